"""The rows of a run in the bucket: rows.jsonl, and segments that were not yet put together with it."""

import contextlib
import fcntl
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import StoreError
from evalkit.remote.faults import Absent
from evalkit.remote.mirror import Mirror, make_folder, place, stamp
from evalkit.remote.names import is_plain
from evalkit.remote.objects import Known
from evalkit.remote.rows import Lines, content, contradictions, fault, only_in, united
from evalkit.store import LOCK_FILE, ROWS_FILE

_LOG = logging.getLogger(__name__)
SEGMENTS = "rows"
_AT_ONCE = 8
_TRIES = 3
# RESULTS/runs/<model>/<task>-<split>...-<hash8>: by its hash a run is told from other folders, as RESULTS itself may
# lie below a folder called runs
_RUN = r"(?P<run>(?:.*/)?runs/[^/]+/[^/]+-[0-9a-f]{8})"
_PART = re.compile(_RUN + r"/(?:rows\.jsonl|rows/[^/]+\.jsonl)")
_OF_RUN = re.compile(_RUN + r"/[^/]+")


class Damaged(StoreError):
    """An object that should hold rows holds something else; the mirror has none of it."""


Entries = dict[str, dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Parts:
    """base: tag of rows.jsonl in the bucket; unsent: lines that the mirror alone has."""

    base: str | None = None
    segments: tuple[str, ...] = ()
    unsent: tuple[bytes, ...] = ()


def run_of(key: str) -> str | None:
    """The run whose folder a file lies in, or whose rows an object holds."""
    match = _PART.fullmatch(key) or _OF_RUN.fullmatch(key)
    return match["run"] if match else None


def is_part(key: str) -> bool:
    """Whether an object or a file holds rows of a run: these are united, never just copied."""
    return _PART.fullmatch(key) is not None


def rows_tag(tags: Mapping[str, str]) -> str:
    """One tag for all the parts of a run's rows."""
    lines = sorted(f"{key.rpartition('/')[2]}\t{tag}" for key, tag in tags.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def listed_parts(mirror: Mirror, run: str) -> Parts:
    """What the bucket has of a run's rows; the mirror stays as it is."""
    listed = {key: one for key, one in mirror.objects.list(run).items() if is_part(key) and is_plain(key)}
    rows = f"{run}/{ROWS_FILE}"
    base = listed[rows].tag if rows in listed else None
    return Parts(base, tuple(sorted(key for key in listed if key != rows)))


def pull_rows(
    mirror: Mirror, run: str, listed: Mapping[str, Known], known: Mapping[str, Any]
) -> tuple[Parts, Entries]:
    """Make the mirror's rows.jsonl of the parts listed and of what it alone has; for who holds the run here.

    Returns the parts and what the index should know. Whoever writes the run may put parts together meanwhile:
    then they are listed again.
    """
    for _ in range(_TRIES):
        try:
            return _pull_rows(mirror, run, listed, known)
        except Absent:
            found = mirror.objects.list(run)
            listed = {key: one for key, one in found.items() if is_part(key) and is_plain(key)}
    raise StoreError(f"{mirror.url(run)}: its rows change faster than they can be read: try again.")


def _pull_rows(
    mirror: Mirror, run: str, listed: Mapping[str, Known], known: Mapping[str, Any]
) -> tuple[Parts, Entries]:
    key = f"{run}/{ROWS_FILE}"
    path, entry = mirror.path(key), known.get(key)
    base = listed[key].tag if key in listed else None
    segments = tuple(sorted(name for name in listed if name != key))
    tag, here = rows_tag({name: one.tag for name, one in listed.items()}), stamp(path)
    clean = here is None or (entry is not None and entry["stamp"] == here)
    if clean and entry is not None and here is not None and entry["tag"] == tag:
        return Parts(base, segments), {}
    if clean and not listed:
        return Parts(), {}
    shared = _shared(mirror, ([key] if base else []) + list(segments))
    mine = {} if clean else united([path.read_bytes()])
    _name_contradictions(mirror.url(run), contradictions(mine, shared))
    added = only_in(mine, shared)
    try:
        make_folder(mirror.files, path.parent)
        place(path, content(shared | added))
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}).") from None
    parts = Parts(base, segments, tuple(line.raw for line in added.values()))
    return parts, {key: {"tag": tag, "stamp": None if added else stamp(path)}}


def _shared(mirror: Mirror, keys: list[str]) -> Lines:
    """The rows of the bucket; rows.jsonl first, then the segments in their order. Raises Absent."""
    if not keys:
        return {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return united(pool.map(lambda key: _content(mirror, key), keys))


def _content(mirror: Mirror, key: str) -> bytes:
    found = mirror.objects.read(key)
    if found is None:
        raise Absent(f"{mirror.url(key)}: put together with others while it was read.")
    if (line := fault(found[0])) is not None:
        raise Damaged(
            f"{mirror.url(key)}:{line}: not a row: the object was changed or damaged. Put it back as it was, or remove "
            "it: what it held is asked again."
        )
    return found[0]


def _name_contradictions(where: str, samples: list[str]) -> None:
    if samples:
        _LOG.warning(
            "%s: %d samples have another reply here than in the bucket, whose stands; the first: %s",
            where, len(samples), ascii(samples[0])[:100],
        )  # fmt: skip


@contextlib.contextmanager
def not_at_work(folder: Path) -> Iterator[bool]:
    """Holds a run's lock; False where a process of this machine is writing it: it is newer than the bucket's."""
    if not folder.is_dir():
        yield True
        return
    fd = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(fd)
