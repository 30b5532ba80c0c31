"""One file of one or more runs, with checksums down to the row: the same runs give the same bytes.

    manifest.json                     what is in it, and the checksums
    runs/<model>/<run>/run.json       as stored, without local paths and hosts
    runs/<model>/<run>/rows.jsonl     likewise; replies stand as they are

A row's checksum covers its run's name, so that a row that was moved to another run is recognised.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from evalkit import __version__
from evalkit.errors import StoreError
from evalkit.sharing.scrub import holds_key, known_keys, scrub_meta, scrub_row
from evalkit.store import ROWS_FILE, RUN_FILE, dump_row, read_meta, read_rows

MANIFEST = "manifest.json"
# A run's name: what every file system takes, and nothing that leads elsewhere.
RUN_NAME = re.compile(r"runs/[A-Za-z0-9_+@=-][A-Za-z0-9._+@=-]*/[A-Za-z0-9_+@=-][A-Za-z0-9._+@=-]*")
_LONGEST_NAME = 240
_WHEN = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can state


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RunEntry(_Strict):
    """row_sha256: the first 16 hexadecimal digits of each row's checksum, in the order of the file."""

    run: str
    run_json_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    rows_jsonl_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    row_sha256: list[str]


class Manifest(_Strict):
    format: Literal["evalkit-results"]
    version: Literal[1]
    evalkit: str
    runs: list[RunEntry]


def row_digest(run: str, line: bytes) -> str:
    return hashlib.sha256(run.encode() + b"\n" + line).hexdigest()[:16]


def run_name(folder: Path, results_dir: Path) -> str:
    """`runs/<model>/<run>` of a run's folder. Raises StoreError where it cannot go into an archive."""
    try:
        name = folder.resolve().relative_to(results_dir.resolve()).as_posix()
    except ValueError:
        name = f"runs/{folder.parent.name}/{folder.name}"  # a folder of its own, named directly
    if not RUN_NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise StoreError(
            f"{folder}: its name cannot go into an archive: letters, digits and ._+@=- alone, runs/MODEL/RUN."
        )
    return name


def packed(folder: Path, name: str, keys: Sequence[str] | None = None) -> tuple[bytes, bytes]:
    """(run.json, rows.jsonl) of a run as they go into an archive.

    Raises StoreError, naming run and row, where one of `keys` (by default those of the environment) or what looks
    like a key stands in them.
    """
    keys = known_keys() if keys is None else list(keys)
    meta = json.dumps(scrub_meta(read_meta(folder)), indent=2, ensure_ascii=True, allow_nan=False) + "\n"
    if holds_key(meta, keys):
        raise StoreError(f"{name}/{RUN_FILE}: holds what looks like a key; nothing was exported.")
    lines = []
    for row in read_rows(folder):
        line = dump_row(scrub_row(row))
        if holds_key(line.decode("ascii"), keys):
            raise StoreError(
                f"{name}/{ROWS_FILE}: the row of sample {row['sample_id']!r} holds what looks like a key; "
                "nothing was exported."
            )
        lines.append(line)
    return meta.encode("ascii"), b"".join(lines)


def write_archive(path: Path, folders: Iterable[Path], results_dir: Path) -> Manifest:
    """An archive of these runs, replacing the file at once. Raises StoreError; then the old file stands."""
    found = {run_name(folder, results_dir): folder for folder in folders}
    for name, folder in found.items():
        if read_meta(folder)["status"] == "running":
            raise StoreError(
                f"{name}: is being run, or was killed in it. Finish it first: the same `evalkit run` again."
            )
    lower: dict[str, str] = {}
    for name in found:
        if (other := lower.setdefault(name.lower(), name)) != name:
            raise StoreError(
                f"{name} and {other} differ in case alone: not every file system can tell them apart."
            )
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
                manifest = _fill(archive, found)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}).") from None
    return manifest  # fmt: skip


def _fill(archive: zipfile.ZipFile, found: dict[str, Path]) -> Manifest:
    entries = []
    for name in sorted(found):
        meta, rows = packed(found[name], name)
        _put(archive, f"{name}/{RUN_FILE}", meta)
        _put(archive, f"{name}/{ROWS_FILE}", rows)
        entries.append(
            RunEntry(
                run=name,
                run_json_sha256=hashlib.sha256(meta).hexdigest(),
                rows_jsonl_sha256=hashlib.sha256(rows).hexdigest(),
                row_sha256=[row_digest(name, line) for line in rows.splitlines(keepends=True)],
            )
        )
    manifest = Manifest(format="evalkit-results", version=1, evalkit=__version__, runs=entries)
    _put(archive, MANIFEST, _text(manifest))
    return manifest


def _put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, _WHEN)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    info.create_system = 3  # the same bytes on every system
    archive.writestr(info, content)


def fingerprint(manifest: Manifest) -> str:
    """sha256 of the manifest, and with it of every row: what to tell a colleague by another way."""
    return hashlib.sha256(_text(manifest)).hexdigest()


def _text(manifest: Manifest) -> bytes:
    return (manifest.model_dump_json(indent=1) + "\n").encode()


def lines_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def as_manifest(text: bytes, where: str) -> Manifest:
    """Raises StoreError in one line."""
    from pydantic import ValidationError

    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "as a whole"
        raise StoreError(f"{where}: {MANIFEST} is not one of evalkit's ({place}: {first['msg']}).") from None
    except RecursionError:
        raise StoreError(f"{where}: {MANIFEST} is not one of evalkit's.") from None
    names = [entry.run for entry in manifest.runs]
    for name in names:
        if not RUN_NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
            raise StoreError(f"{where}: {MANIFEST} names a run {name[:80]!r}, which is no name of a run.")
    if len({name.lower() for name in names}) != len(names):
        raise StoreError(f"{where}: {MANIFEST} names a run twice.")
    return manifest


def any_json(line: bytes) -> Any:
    """A JSON value, or None of what is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
