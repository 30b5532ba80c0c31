"""An archive's runs into a results folder: all is checked before anything is written."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit.errors import EvalkitError, StoreError
from evalkit.frames import Frame
from evalkit.records import VERDICTS
from evalkit.report.pages import plain
from evalkit.scoring import Scorer
from evalkit.sharing.archive import (
    MANIFEST,
    Manifest,
    RunEntry,
    any_json,
    as_manifest,
    fingerprint,
    lines_of,
    packed,
    row_digest,
)
from evalkit.store import ROWS_FILE, RUN_FILE, RunStore, read_meta, read_rows

LARGEST_MEMBER = 2 << 30
LARGEST_ARCHIVE = 16 << 30
_LARGEST_MANIFEST = 512 << 20
_LARGEST_RATIO = 400  # of a member above 16 MiB: rows are text and pack 5- to 50-fold
_RATIO_FROM = 16 << 20
_MOST_MEMBERS = 100_000
_NAMED = 20
_CHUNK = 1 << 20
_OLD = "old"  # in the temporary folder: runs that others take the place of


@dataclass
class Checked:
    """An archive, unpacked and checked. faults: why it is refused; warnings: what is to be known of it."""

    folder: Path
    manifest: Manifest
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[str]:
        return [entry.run for entry in self.manifest.runs]


@contextlib.contextmanager
def opened(path: Path, beside: Path | None = None) -> Iterator[Checked]:
    """The archive in a folder that goes with the context, inside of `beside` or the system's temporary one.

    Raises StoreError of what is no archive of evalkit's; faults of its content are listed, not raised.
    """
    if beside is not None:
        beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".importing-", dir=beside) as temporary:
        folder = Path(temporary)
        try:
            with zipfile.ZipFile(path) as archive:
                manifest = _unpack(archive, folder, str(path))
        except (
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
            RuntimeError,
            EOFError,
            ValueError,
        ) as error:
            raise StoreError(f"{path}: not an archive that can be read ({plain(error)}).") from None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror or plain(error)}).") from None
        checked = Checked(folder, manifest)
        _check(checked)
        yield checked


def _unpack(archive: zipfile.ZipFile, folder: Path, where: str) -> Manifest:
    members = archive.infolist()
    if len(members) > _MOST_MEMBERS:
        raise StoreError(f"{where}: {len(members):,} files in it, more than {_MOST_MEMBERS:,}.")
    names = Counter(info.filename.lower() for info in members)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise StoreError(f"{where}: {plain(repeated[0])} stands in it more than once.")
    by_name = {info.filename: info for info in members}
    if MANIFEST not in by_name:
        raise StoreError(f"{where}: no {MANIFEST} in it: not an archive of `evalkit results export`.")
    manifest = as_manifest(_bytes(archive, by_name.pop(MANIFEST), where), where)
    wanted = {f"{entry.run}/{name}" for entry in manifest.runs for name in (RUN_FILE, ROWS_FILE)}
    for name, info in by_name.items():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if name not in wanted:
            raise StoreError(f"{where}: {plain(name)} does not belong into it.")
        if info.is_dir() or kind not in (0, stat.S_IFREG):
            raise StoreError(f"{where}: {plain(name)} is no plain file.")
    if absent := sorted(wanted - by_name.keys()):
        raise StoreError(f"{where}: {absent[0]} is missing.")
    total = 0
    for name in sorted(wanted):
        target = folder / name  # of names that the manifest's check let through
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            for chunk in _chunks(archive, by_name[name], LARGEST_MEMBER, where):
                total += len(chunk)
                if total > LARGEST_ARCHIVE:
                    raise StoreError(f"{where}: more than {LARGEST_ARCHIVE >> 30} GiB unpacked.")
                file.write(chunk)
    return manifest


def _bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> bytes:
    return b"".join(_chunks(archive, info, _LARGEST_MANIFEST, where))


def _chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int, where: str) -> Iterator[bytes]:
    """A member's content, as long as it stays within bounds, whatever size it states."""
    size = 0
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise StoreError(f"{where}: {plain(info.filename)} is packed in a way that evalkit does not write.")
    with archive.open(info) as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            if size > most or (size > _RATIO_FROM and size > _LARGEST_RATIO * max(1, info.compress_size)):
                raise StoreError(f"{where}: {plain(info.filename)} unpacks beyond all measure.")
            yield chunk


def _check(checked: Checked) -> None:
    owners = {digest: entry.run for entry in checked.manifest.runs for digest in entry.row_sha256}
    for entry in checked.manifest.runs:
        folder = checked.folder / entry.run
        if hashlib.sha256((folder / RUN_FILE).read_bytes()).hexdigest() != entry.run_json_sha256:
            checked.faults.append(f"{entry.run}/{RUN_FILE}: changed since it was exported.")
        _check_rows(entry, folder, checked, owners)
        _check_meaning(entry, folder, checked)


def _check_rows(entry: RunEntry, folder: Path, checked: Checked, owners: Mapping[str, str]) -> None:
    """Names every row that is not what was exported."""
    before, seen = len(checked.faults), Counter(entry.row_sha256)
    whole = hashlib.sha256()
    for number, line in enumerate(lines_of(folder / ROWS_FILE), 1):
        whole.update(line)
        digest = row_digest(entry.run, line)
        if seen[digest] > 0:
            seen[digest] -= 1
            continue
        row = any_json(line)
        sample = plain(repr(row.get("sample_id"))) if isinstance(row, dict) else "of no readable sample"
        other = next((run for run in checked.runs if owners.get(row_digest(run, line)) == run), None)
        if digest in entry.row_sha256:
            why = "stands there again"
        elif other is not None and other != entry.run:
            why = f"is a row of {other}"
        else:
            why = "changed since it was exported, or was not in it"
        checked.faults.append(f"{entry.run}/{ROWS_FILE}:{number}: sample {sample} {why}.")
    missing = sum(seen.values())
    if missing > len(checked.faults) - before:
        checked.faults.append(
            f"{entry.run}/{ROWS_FILE}: {missing} of {len(entry.row_sha256)} exported rows are missing."
        )
    if len(checked.faults) == before and whole.hexdigest() != entry.rows_jsonl_sha256:
        checked.faults.append(
            f"{entry.run}/{ROWS_FILE}: its rows stand in another order than they were exported in."
        )


def _check_meaning(entry: RunEntry, folder: Path, checked: Checked) -> None:
    """What checksums do not say: that run and rows fit each other, and that replies bear their verdicts out."""
    try:
        meta, rows = read_meta(folder), list(read_rows(folder))
        _check_run(entry.run, meta, rows, checked)
        _check_verdicts(entry.run, meta, rows, checked)
    except StoreError as error:
        text = str(error).replace(str(checked.folder) + "/", "")
        checked.faults.append(plain(text, 300))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        checked.faults.append(f"{entry.run}: not a run as evalkit writes it ({plain(repr(error))}).")


def _check_run(name: str, meta: Mapping[str, Any], rows: list[dict[str, Any]], checked: Checked) -> None:
    _, model, run = name.split("/")
    trained = f"-trained_on-{meta['trained_on']}" if meta["trained_on"] else ""
    stem = f"{meta['task']['name']}-{meta['split']}{trained}"
    if (
        not run.startswith(f"{stem}-")
        or "".join(c if c.isalnum() or c in "._-" else "-" for c in str(meta["model"]["name"])).strip(".-")
        != model
    ):
        checked.faults.append(
            f"{name}/{RUN_FILE}: says {plain(meta['model']['name'])} on {plain(stem)}, which is not the run's name."
        )
    if repeated := [s for s, count in Counter(row["sample_id"] for row in rows).items() if count > 1]:
        checked.faults.append(
            f"{name}/{ROWS_FILE}: sample {plain(repr(repeated[0]))} stands there more than once."
        )
    counts = Counter(row["verdict"] for row in rows)
    stated = {verdict: meta["counts"].get(verdict, 0) for verdict in VERDICTS}
    if stated != {verdict: counts[verdict] for verdict in VERDICTS}:
        checked.faults.append(f"{name}/{RUN_FILE}: its counts are not those of its rows.")
    if len(rows) > meta["selection"]["n"]:
        checked.faults.append(f"{name}: {len(rows)} rows for {meta['selection']['n']} selected samples.")  # fmt: skip


def _check_verdicts(name: str, meta: Mapping[str, Any], rows: list[dict[str, Any]], checked: Checked) -> None:
    frame = None if meta.get("frame") is None else Frame(**meta["frame"])
    try:
        scorer = Scorer(meta["task"]["parser"], meta["task"]["metric"], frame)
        others = [row["sample_id"] for row in rows if _verdict(scorer, row) != row["verdict"]]
    except (KeyError, TypeError, ValueError, EvalkitError) as error:
        checked.warnings.append(f"{name}: its verdicts could not be made again ({plain(repr(error))}).")
        return
    if others:
        shown = ", ".join(plain(repr(one)) for one in others[:3])
        checked.warnings.append(
            f"{name}: {len(others)} verdict{'s' * (len(others) != 1)} that this evalkit would not give "
            f"({shown}{', …' if len(others) > 3 else ''}): parsers may differ between versions, or they were changed."
        )


def _verdict(scorer: Scorer, row: Mapping[str, Any]) -> str:
    size = tuple(row["image_size_wh"])
    return str(
        scorer.score(row["reply"], row["finish_reason"], row["gold"], size, row.get("error"))["verdict"]
    )


def refuse(path: Path, faults: list[str]) -> None:
    """Raises StoreError with the first faults by name, where there are any."""
    if faults:
        more = [f"and {len(faults) - _NAMED} more."] if len(faults) > _NAMED else []
        head = f"{path}: {len(faults)} fault{'s' * (len(faults) != 1)}; nothing was imported."
        raise StoreError("\n".join([head, *faults[:_NAMED], *more]))


def merge(path: Path, results_dir: Path, *, replace: bool, strict: bool, dry_run: bool) -> dict[str, Any]:
    """Put an archive's runs into a results folder: {"imported", "present", "replaced", "warnings"}, names of runs.

    Raises StoreError, before anything is written, of a fault in the archive and of a run that is there already with
    other content (unless `replace`).
    """
    with _alone(results_dir), _swept(results_dir), opened(path, None if dry_run else results_dir) as checked:
        refuse(path, checked.faults + (checked.warnings if strict else []))
        new: list[str] = []
        present: list[str] = []
        other: list[str] = []
        for run in checked.runs:
            state = _compare(results_dir / run, checked.folder / run, run)
            (new if state == "new" else present if state == "same" else other).append(run)
        if other and not replace:
            refuse(
                path,
                [
                    f"{run}: is there already, with other content; --replace puts this one in its place."
                    for run in other
                ],
            )
        if not dry_run:
            for run in [*new, *other]:
                _place(checked.folder / run, results_dir / run, checked.folder)
        done = {"imported": new, "present": present, "replaced": other, "warnings": checked.warnings}
        return done | {"sha256_of_manifest": fingerprint(checked.manifest)}  # fmt: skip


@contextlib.contextmanager
def _alone(results_dir: Path) -> Iterator[None]:
    """One import at a time; the lock goes with the process, however it ends."""
    try:
        results_dir.mkdir(parents=True, exist_ok=True)
        fd = os.open(results_dir / ".import.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"{results_dir}: cannot be written ({error.strerror}).") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{results_dir}: another import is at work there; wait for it.") from None
        yield
    finally:
        os.close(fd)


def _compare(there: Path, new: Path, name: str) -> str:
    """new, same or other: what is there is compared as it would be exported."""
    if not (there / RUN_FILE).exists():
        return "new"
    with RunStore(there):  # held by nobody else; raises by name if it is
        try:
            meta, rows = packed(there, name, keys=[])
        except StoreError:
            return "other"
    same = (
        json.loads(meta) == json.loads((new / RUN_FILE).read_bytes())
        and rows == (new / ROWS_FILE).read_bytes()
    )
    return "same" if same else "other"


def _place(new: Path, place: Path, aside: Path) -> None:
    """By renames: a kill leaves the old run or the new one whole; the next import puts an old one back that was
    on its way out."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            old = aside / _OLD / place.parent.name / place.name
            old.parent.mkdir(parents=True, exist_ok=True)
            place.rename(old)
        new.rename(place)
    except OSError as error:
        raise StoreError(f"{place}: cannot be written ({error.strerror}).") from None


@contextlib.contextmanager
def _swept(results_dir: Path) -> Iterator[None]:
    """Without what killed imports left there; only for who holds the import's lock."""
    for left in results_dir.glob(".importing-*"):
        for old in left.glob(f"{_OLD}/*/*"):
            place = results_dir / "runs" / old.parent.name / old.name
            if not place.exists():
                old.rename(place)
        shutil.rmtree(left, ignore_errors=True)
    yield
