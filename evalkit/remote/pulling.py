"""Objects -> files of the mirror: those that changed, several at a time, each put in place at once."""

import contextlib
import logging
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evalkit.errors import StoreError
from evalkit.remote.mirror import Mirror, make_folder, stamp
from evalkit.remote.names import is_content, is_plain
from evalkit.remote.objects import Known
from evalkit.remote.parts import Damaged, Entries, Parts, is_part, not_at_work, pull_rows, run_of
from evalkit.store import ROWS_FILE, RUN_FILE

_LOG = logging.getLogger(__name__)
_AT_ONCE = 16
_WORTH_A_BAR = 50  # files
_TRIES = 3  # of an object that is replaced while it is read


@dataclass
class _Listing:
    """What is below a key. runs: of each, its files and the parts of its rows; odd: names that are no file names."""

    files: dict[str, Known] = field(default_factory=dict)
    runs: dict[str, dict[str, Known]] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)


def everything(key: str) -> bool:
    return True


def pull(mirror: Mirror, below: str, wanted: Callable[[str], bool] = everything) -> None:
    """Bring the mirror up to date below a key. Where a file changed here and in the bucket, the bucket's stands.

    A run that a process of this machine is writing is left alone.
    """
    with mirror.alone(below):
        found, known = _listing(mirror, below), mirror.known()
        files = {
            key: one for key, one in found.files.items() if wanted(key) and _is_due(mirror, key, one, known)
        }
        runs = found.runs.keys() | {run for key in known if _is_below(key, below) and (run := run_of(key))}
        blocked = _pull_files(mirror, files)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            entries: Entries = {}
            try:
                for done, odd in pool.map(
                    lambda run: _pull_idle(mirror, run, found.runs.get(run, {}), known, wanted), sorted(runs)
                ):
                    entries |= done
                    blocked += odd
            finally:
                mirror.note(entries)
        _drop(mirror, below, found.files, known)
    _name_odd(found.odd + blocked)


def pull_run(mirror: Mirror, run: str) -> Parts:
    """The same of one run, for who holds it here and in the bucket."""
    found, known = _listing(mirror, run), mirror.known()
    listed = found.runs.get(run, {})
    parts, entries, odd = _pull_run(mirror, run, listed, known, everything)
    mirror.note(entries)
    _name_odd(found.odd + odd)
    return parts


def _pull_idle(
    mirror: Mirror,
    run: str,
    listed: Mapping[str, Known],
    known: Mapping[str, Any],
    wanted: Callable[[str], bool],
) -> tuple[Entries, list[str]]:
    with not_at_work(mirror.path(run)) as idle:
        if not idle:
            return {}, []
        try:
            _, entries, odd = _pull_run(mirror, run, listed, known, wanted)
        except Damaged as damage:
            _LOG.warning("%s What this machine has of the run stands.", damage)
            return {}, []
        return entries, odd


def _pull_run(
    mirror: Mirror,
    run: str,
    listed: Mapping[str, Known],
    known: Mapping[str, Any],
    wanted: Callable[[str], bool],
) -> tuple[Parts, Entries, list[str]]:
    """Rows first: a run.json that is there has the rows that it counts."""
    entries: Entries = {}
    parts = Parts()
    rows = {key: one for key, one in listed.items() if is_part(key)}
    if wanted(f"{run}/{ROWS_FILE}"):
        parts, entries = pull_rows(mirror, run, rows, known)
    odd = []
    for key, one in listed.items():
        if not is_part(key) and wanted(key) and _is_due(mirror, key, one, known):
            _, entry = _fetched(mirror, key, one)
            if entry is None:
                odd.append(key)
            else:
                entries[key] = entry
    there = {*listed, f"{run}/{ROWS_FILE}"} if rows else set(listed)
    for key in known:
        if key not in there and run_of(key) == run:
            _remove(mirror, key, known[key])
            entries[key] = None
    return parts, entries, odd


def _listing(mirror: Mirror, below: str) -> _Listing:
    found = _Listing()
    for key, one in sorted(mirror.objects.list(below).items()):
        if not is_plain(key) or not _is_below(key, below):
            found.odd.append(key)
        elif is_content(key):
            run = run_of(key)
            (found.files if run is None else found.runs.setdefault(run, {}))[key] = one
    return found


def _is_below(key: str, below: str) -> bool:
    return not below or key == below or key.startswith(f"{below}/")


def _name_odd(keys: list[str]) -> None:
    if keys:
        _LOG.warning(
            "%d objects left out, their names are no file names here: %s", len(keys), ascii(keys[0])[:100]
        )


def _is_due(mirror: Mirror, key: str, one: Known, known: Mapping[str, Any]) -> bool:
    """Whether an object is to be fetched. What changed here alone is kept, to be sent; but for run.json, which
    follows from rows: it may belong to rows that the bucket's took the place of."""
    entry, here = known.get(key), stamp(mirror.path(key))
    if entry is None or here is None or entry["tag"] != one.tag:
        return True
    return bool(entry["stamp"] != here) and key.endswith(f"/{RUN_FILE}") and run_of(key) is not None


def _pull_files(mirror: Mirror, files: Mapping[str, Known]) -> list[str]:
    """Returns the names that cannot be files here."""
    entries: Entries = {}
    blocked = []
    bar = tqdm(
        total=len(files), desc=f"fetching {mirror.root}", unit="file", leave=False,
        disable=None if len(files) >= _WORTH_A_BAR else True,
    )  # fmt: skip
    with bar, ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for key, entry in pool.map(lambda item: _fetched(mirror, *item), files.items()):
                if entry is None:
                    blocked.append(key)
                else:
                    entries[key] = entry
                bar.update(1)
        finally:
            mirror.note(entries)
    return blocked


def _fetched(mirror: Mirror, key: str, one: Known) -> tuple[str, dict[str, Any] | None]:
    """Key and entry of an object, put in place; no entry where a file and a folder would have one name."""
    path = mirror.path(key)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        make_folder(mirror.files, path.parent)
        try:
            tag = _fetch(mirror, key, one, temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return key, None
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}).") from None
    return key, {"tag": tag, "stamp": stamp(path)}


def _fetch(mirror: Mirror, key: str, one: Known, temporary: Path) -> str:
    """The tag of what was fetched, whole: its size is the one that the bucket names."""
    size = -1
    for _ in range(_TRIES):
        mirror.objects.fetch(key, temporary)
        size = temporary.stat().st_size
        if size == one.size:
            return one.tag
        one = mirror.objects.list(key).get(key, one)  # replaced meanwhile
    raise StoreError(f"{mirror.url(key)}: {one.size} bytes by its listing, but {size} came.")


def _drop(mirror: Mirror, below: str, there: Mapping[str, Known], known: Mapping[str, Any]) -> None:
    """Remove what the bucket has no longer, but for files that changed here."""
    gone = [key for key in known if _is_below(key, below) and run_of(key) is None and key not in there]
    for key in gone:
        _remove(mirror, key, known[key])
    mirror.note(dict.fromkeys(gone))


def _remove(mirror: Mirror, key: str, entry: Mapping[str, Any]) -> None:
    path = mirror.path(key)
    if is_plain(key) and stamp(path) == entry["stamp"]:
        with contextlib.suppress(OSError):
            path.unlink()
