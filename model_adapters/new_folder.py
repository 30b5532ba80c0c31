"""A folder that appears under its name once it is whole, or not at all."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evalkit.errors import AdapterError, ConfigError, Unavailable

_ROOM = 64 * 2**20  # for the small files


def require_new(out: Path) -> None:
    """Raises ConfigError where there is anything of that name."""
    if os.path.lexists(out):
        raise ConfigError(f"{out} exists: name a new folder, or delete it first.")


def require_room(folder: Path, size: int) -> None:
    """Raises Unavailable where the disk of `folder` has not `size` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < size + _ROOM:
        raise Unavailable(f"{folder}: {free / 1e9:.1f} GB are free, {size / 1e9:.1f} GB are needed.")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """An empty folder next to `out` that becomes it at the end; a failure or an interrupt leaves neither.

    A killed process leaves the folder beside, which the next one empties; a lock tells the two apart.
    """
    partial = out.with_name(f".{out.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = os.open(partial, os.O_RDONLY)
    except OSError as error:
        raise Unavailable(f"{partial}: cannot be made ({error.strerror}).") from None
    try:
        _take(lock, out)
        for left in partial.iterdir():
            left.unlink()
        try:
            yield partial
            os.fsync(lock)
            require_new(out)
            partial.rename(out)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError):
                raise Unavailable(f"{out}: cannot be written ({error.strerror or error}).") from None
            raise
    finally:
        os.close(lock)


def _take(lock: int, out: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise AdapterError(f"{out} is being written by another process: wait for it.") from None


def write_text(path: Path, text: str) -> None:
    """Durably: a power cut after the folder has its name must not leave the file empty."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
