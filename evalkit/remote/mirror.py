"""A bucket's folder on this machine: CACHE/mirror/<id>/files, and what of it is known to be in the bucket.

index.json has for each object that was pulled or pushed its tag and the stamp of the file, so that only what
changed is moved. A file with another stamp was changed here; one without an entry is new here.
"""

import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evalkit.errors import StoreError
from evalkit.paths import cache_dir
from evalkit.remote.address import Address, parse
from evalkit.remote.objects import Objects, open_objects

_FILES = "files"
_FACTS = "mirror.json"
_INDEX = "index.json"

Stamp = list[int]


@dataclass(frozen=True)
class Mirror:
    """The mirror of one bucket. Keys of objects and paths below `files` are the same."""

    folder: Path
    root: str  # protocol://bucket
    id: str  # of this very folder: two machines never have the same, unless they share it

    @property
    def files(self) -> Path:
        return self.folder / _FILES

    @cached_property
    def objects(self) -> Objects:
        return open_objects(self.root)

    @property
    def conditional(self) -> bool:
        """Whether a put on a condition is known to be one step: other servers may speak S3 and ignore the condition."""
        return self.root.startswith("s3://") and not _endpoint()

    def key(self, path: Path) -> str:
        """The key of a file or folder of the mirror; empty for all of it."""
        key = path.resolve().relative_to(self.files).as_posix()
        return "" if key == "." else key

    def path(self, key: str) -> Path:
        return self.files / key if key else self.files

    def url(self, key: str) -> str:
        return f"{self.root}/{key}"

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """No other process of this machine does the same meanwhile; it waits its turn."""
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        with _locked(self.folder / f"{digest}.lock"):
            yield

    def known(self) -> dict[str, dict[str, Any]]:
        """Key -> {"tag", "stamp"}, as the index has it now."""
        try:
            index = json.loads((self.folder / _INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # without it everything is compared anew
            return {}
        return index if isinstance(index, dict) else {}

    def note(self, entries: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Put entries into the index; None takes one out."""
        if not entries:
            return
        try:
            with _locked(self.folder / "index.lock"):
                index = {**self.known(), **entries}
                kept = {key: entry for key, entry in index.items() if entry is not None}
                place(self.folder / _INDEX, json.dumps(kept).encode())
        except OSError as error:
            raise StoreError(f"{self.folder / _INDEX}: cannot be written ({error.strerror}).") from None


def stamp(path: Path) -> Stamp | None:
    """What changes whenever a file does; None where there is none."""
    try:
        facts = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [facts.st_size, facts.st_mtime_ns, facts.st_ino]


def place(path: Path, content: bytes) -> None:
    """Put a file there at once, durably: the old one or the new one, never part of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(top: Path, folder: Path) -> None:
    """Folders down from `top`. Raises NotADirectoryError rather than follow a link, which may lead anywhere."""
    at = top
    for part in folder.relative_to(top).parts:
        at = at / part
        if at.is_symlink():
            raise NotADirectoryError(at)
        at.mkdir(exist_ok=True)


def mirror_at(address: Address) -> Mirror:
    """The mirror of an address, made where there is none."""
    try:
        folder = _base() / _digest(address.root)
    except RuntimeError:
        raise StoreError(
            f"{address}: no home folder to mirror it in: set EVALKIT_CACHE to a folder."
        ) from None
    facts = folder / _FACTS
    try:
        (folder / _FILES).mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(folder / "index.lock"):
            if not facts.exists():
                content = {"root": address.root, "endpoint": _endpoint(), "id": uuid.uuid4().hex}
                place(facts, json.dumps(content).encode())
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error.strerror}).") from None
    return _read(folder)


def mirror_of(path: Path) -> Mirror | None:
    """The mirror that a path lies in, or None: an ordinary path."""
    try:
        base = _base()
        parts = path.resolve().relative_to(base).parts
    except (ValueError, RuntimeError):  # elsewhere; or there is no home, or links lead in a circle
        return None
    if len(parts) < 2 or parts[1] != _FILES or not (base / parts[0] / _FACTS).exists():
        return None
    return _read(base / parts[0])


def _read(folder: Path) -> Mirror:
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        mirror = Mirror(folder, parse(facts["root"]).root, str(facts["id"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise StoreError(f"{folder / _FACTS}: damaged: remove it, and the mirror is made anew.") from None
    if folder.name != _digest(mirror.root):
        raise StoreError(
            f"{folder} mirrors {mirror.root} of another endpoint ({facts.get('endpoint') or 'the default one'}): "
            "set AWS_ENDPOINT_URL as it was."
        )
    return mirror


def _base() -> Path:
    return cache_dir().resolve() / "mirror"


def _digest(root: str) -> str:
    return hashlib.sha256(f"{root}\n{_endpoint()}".encode()).hexdigest()[:16]


def _endpoint() -> str:
    """Where S3 is asked; two servers may have buckets of one name. Without what may be a password in it."""
    named = ("FSSPEC_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    url = next((os.environ[name] for name in named if os.environ.get(name)), "")
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}".rstrip("/")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
