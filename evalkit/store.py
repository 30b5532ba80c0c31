"""A run folder: run.json, replaced atomically, and rows.jsonl, appended durably, one line a reply.

A row counts once it is on disk (fdatasync). A line torn by a kill is recognised by its missing end
of line and dropped; every whole line must be valid. An advisory lock keeps a second process out.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from evalkit.errors import InUse, StoreError
from evalkit.records import VERDICTS
from evalkit.storedrows import StoredRows

RUN_FILE = "run.json"
ROWS_FILE = "rows.jsonl"
LOCK_FILE = ".lock"
SCHEMA = 1
# What every reader of run.json relies on.
_META_KEYS: dict[str, tuple[str, ...]] = {
    "origin": (),
    "model": ("name", "title"),
    "task": ("name", "title"),
    "split": (),
    "trained_on": (),
    "dataset": ("fingerprint", "n_split"),
    "selection": ("n",),
    "started": (),
    "ended": (),
    "status": (),
    "counts": ("correct",),
    "cost_usd": (),
}


class RunStore:
    """One run folder, held exclusively; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Opens or makes the folder. Raises StoreError if another process holds it or it is damaged."""
        self.folder = folder
        with _one_line(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        self._rows_fd: int | None = None
        try:
            self._take_lock()
            self._prepare()
            drop_torn_line(folder / ROWS_FILE)
            self.rows, self.failed = StoredRows(folder / ROWS_FILE), set[str]()
            for line, row in _read_lines(folder, _loads):
                if row["sample_id"] in self.rows:
                    raise StoreError(f"{folder / ROWS_FILE}: sample {row['sample_id']!r} stands there twice.")
                self._note(row, len(line))
        except BaseException:
            os.close(self._lock)
            raise

    def _prepare(self) -> None:
        """What a kind of store does with a folder that it holds, before the rows are read."""

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise InUse(
                f"{self.folder}: another process (pid {holder}) is writing this run. "
                "Wait for it, or stop it and start again: nothing finished is lost."
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rows_fd is not None:
            os.close(self._rows_fd)
        os.close(self._lock)  # gives the lock back

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; on return it survives a kill and a power cut. Refuses a sample it has."""
        sample_id = row["sample_id"]
        if sample_id in self.rows:
            raise StoreError(f"{self.folder}: sample {sample_id!r} was answered twice.")
        if self._rows_fd is None:
            path = self.folder / ROWS_FILE
            self._rows_fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            _sync_folder(self.folder)
        line = dump_row(row)
        with _one_line(self.folder):
            _write_all(self._rows_fd, line)
            os.fdatasync(self._rows_fd)
        self._note(row, len(line))

    def replace_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put these rows in place of all, atomically: the old file or the new one, never a mixture."""
        if self._rows_fd is not None:
            os.close(self._rows_fd)
            self._rows_fd = None
        new, failed = StoredRows(self.folder / ROWS_FILE), set[str]()

        def lines() -> Iterator[bytes]:
            for row in rows:
                line = dump_row(row)
                _note(new, failed, row, len(line))
                yield line

        _replace(self.folder / ROWS_FILE, lines())
        self.rows, self.failed = new, failed

    def _note(self, row: Mapping[str, Any], n_bytes: int) -> None:
        _note(self.rows, self.failed, row, n_bytes)

    def write_meta(self, meta: Mapping[str, Any]) -> None:
        """Replace run.json atomically."""
        text = json.dumps(meta, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        _replace(self.folder / RUN_FILE, [text.encode("utf-8", "backslashreplace")])  # as JSON escapes

    def read_meta(self) -> dict[str, Any] | None:
        """run.json, or None for a new folder."""
        return read_meta(self.folder) if (self.folder / RUN_FILE).exists() else None


def _note(rows: StoredRows, failed: set[str], row: Mapping[str, Any], n_bytes: int) -> None:
    rows.note(row, n_bytes)
    if row["verdict"] == "failed":
        failed.add(row["sample_id"])


def read_meta(folder: Path) -> dict[str, Any]:
    """run.json of a run folder. Raises StoreError in one line."""
    path = folder / RUN_FILE
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{folder}: no run here (no {RUN_FILE}).") from None
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: cannot be read ({error}).") from None
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        found = meta.get("schema") if isinstance(meta, dict) else type(meta).__name__
        raise StoreError(f"{path}: expected schema {SCHEMA}, found {found!r}: written by another version.")
    for key, inner in _META_KEYS.items():
        if key not in meta or (inner and not isinstance(meta[key], dict)):
            raise StoreError(
                f"{path}: key {key!r} is missing or no mapping: the file was changed or damaged."
            )
        if absent := [name for name in inner if name not in meta[key]]:
            raise StoreError(
                f"{path}: key {key + '.' + absent[0]!r} is missing: the file was changed or damaged."
            )
    return meta


def read_rows(folder: Path, *, fast: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of a run, in the order they came; a torn last line is left out.

    fast: for reports, by orjson, which makes floats of integers beyond 64 bits; never to write rows again.
    Raises StoreError on a whole line that is no row.
    """
    for _, row in _read_lines(folder, _fast_loads if fast else _loads):
        yield row


def _read_lines(folder: Path, loads: Callable[[bytes], Any]) -> Iterator[tuple[bytes, dict[str, Any]]]:
    path = folder / ROWS_FILE
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return  # a run being written, or one torn by a kill
            try:
                row = loads(line)
                whole = isinstance(row["sample_id"], str) and row["verdict"] in VERDICTS
            except (ValueError, KeyError, TypeError, RecursionError):
                whole = False
            if not whole:
                raise StoreError(f"{path}:{number}: not a row: the file was changed or damaged.")
            yield line, row


def _loads(line: bytes) -> Any:
    return json.loads(line, parse_constant=_refuse)


def _fast_loads(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:  # lone surrogates, which replies may hold, are not for orjson
        return _loads(line)


def _refuse(constant: str) -> None:
    """NaN and infinities are no JSON; we never write them."""
    raise ValueError(constant)


_LOOKED_AT = 2**16  # bytes at a time, from the end of a file


def drop_torn_line(path: Path) -> None:
    """Cut a last line without its end off the file. Only for who holds the run's lock."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = whole = file.seek(0, os.SEEK_END)
        while whole:
            start = max(0, whole - _LOOKED_AT)
            file.seek(start)
            found = file.read(whole - start).rfind(b"\n")
            if found >= 0:
                whole = start + found + 1
                break
            whole = start
        if whole != size:
            file.truncate(whole)
            os.fsync(file.fileno())


def find_runs(results_dir: Path) -> list[Path]:
    """Every run folder below RESULTS/runs, sorted by path."""
    return sorted(path.parent for path in (results_dir / "runs").glob(f"*/*/{RUN_FILE}"))


def dump_row(row: Mapping[str, Any]) -> bytes:
    """One line of rows.jsonl. Lone surrogates in a reply are kept as JSON escapes."""
    return (json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _replace(path: Path, content: Iterable[bytes]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with _one_line(path):
        with temporary.open("wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}).") from None
