"""The record of a PixMo-Points set: every URL that was tried and what became of it. JSON lines, a header first.

It is written durably while the preparation works, so that nothing is asked for twice, and it is what a colleague
needs to make the same set (`evalkit data prepare pixmo_points --manifest FILE`).
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalkit.datasets.fetching import OUTCOMES, Fate
from evalkit.datasets.pixmo_source import (
    PointRow,
    in_percent,
    is_label,
    is_sha256,
    is_web_address,
    normalised,
)
from evalkit.errors import DataError

SCHEMA = "evalkit-pixmo-points-manifest-1"


@dataclass(frozen=True, slots=True)
class Entry:
    """One URL tried. rank: its place among the candidates of its label, from 0. split: None unless in the set."""

    row: PointRow
    rank: int
    outcome: str
    detail: str | None = None
    http_status: int | None = None
    n_bytes: int | None = None
    attempts: int = 0
    when: str = ""
    split: str | None = None

    @property
    def sample_id(self) -> str:
        return self.row.sha256[:16]


def entry_of(row: PointRow, rank: int, fate: Fate) -> Entry:
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return Entry(
        row, rank, fate.outcome, fate.detail, fate.http_status, fate.n_bytes, fate.attempts, when
    )  # fmt: skip


class Log:
    """An append-only file of entries; each is on disk before the next step. A line torn by a kill is dropped."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Goes on with a log of the same header; one of another header, or none at all, is begun anew."""
        self.path = path
        self.entries: dict[str, Entry] = {}
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        first, _, rest = whole.partition(b"\n")
        if first != _line(header):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_line(header) + b"\n")
        else:
            self.entries = {entry.row.sha256: entry for entry in _entries(rest, path, 2)}
            if whole != content:
                os.truncate(path, len(whole))

    def add(self, entry: Entry) -> None:
        """Raises DataError where it cannot be written."""
        try:
            with self.path.open("ab") as file:
                file.write(_line(as_dict(entry)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror}).") from None
        self.entries[entry.row.sha256] = entry


def write_manifest(path: Path, header: Mapping[str, Any], entries: Iterable[Entry]) -> None:
    """By category and rank, put in place at once."""
    ordered = sorted(entries, key=lambda entry: (entry.row.label, entry.rank))
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(b"".join(_line(line) + b"\n" for line in (header, *map(as_dict, ordered))))
    temporary.replace(path)


def read_manifest(path: Path) -> tuple[dict[str, Any], list[Entry]]:
    """Header and entries of a manifest made anywhere. Raises DataError, which names the line."""
    try:
        content = path.read_bytes()
        first, _, rest = content.partition(b"\n")
        header: Any = json.loads(first)
        json.dumps(header, allow_nan=False)  # it goes into dataset.json
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as a manifest ({' '.join(str(error).split())}).") from None
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise DataError(f"{path}:1: expected a header with schema {SCHEMA!r}.")
    entries = _entries(rest, path, 2)
    if repeated := [key for key, n in Counter(entry.row.sha256 for entry in entries).items() if n > 1]:
        raise DataError(f"{path}: the picture {repeated[0]} stands there twice.")
    if repeated := [key for key, n in Counter(e.sample_id for e in entries if e.split).items() if n > 1]:
        raise DataError(f"{path}: two pictures share the sample id {repeated[0]}.")
    found: dict[str, Any] = header
    return found, entries


def counts(entries: Iterable[Entry]) -> dict[str, int]:
    """Entries by outcome, in the order of OUTCOMES; those of none are left out."""
    found = Counter(entry.outcome for entry in entries)
    return {outcome: found[outcome] for outcome in OUTCOMES if found[outcome]}


def as_dict(entry: Entry) -> dict[str, Any]:
    fields = asdict(entry)
    row: dict[str, Any] = fields.pop("row")
    inside = {"sample_id": entry.sample_id} if entry.split else {}
    return row | {"point_xy_percent": list(entry.row.point_xy_percent)} | fields | inside


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode("ascii")


def _entries(content: bytes, path: Path, first_number: int) -> list[Entry]:
    entries = []
    for number, line in enumerate(content.splitlines(), first_number):
        try:
            entries.append(_entry(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not a line of a manifest ({_words(error)}).") from None
    return entries


def _words(error: BaseException) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]


def _entry(line: Any) -> Entry:
    """Raises ValueError, KeyError or TypeError with what is wrong."""
    if not isinstance(line, dict):
        raise ValueError("no object")
    point = line["point_xy_percent"]
    _must(
        isinstance(point, list) and len(point) == 2 and all(map(in_percent, point)), "point_xy_percent", point
    )
    url, sha256, label = line["url"], line["sha256"], line["label"]
    _must(is_web_address(url), "url", url)
    _must(is_sha256(sha256), "sha256", sha256)
    _must(isinstance(label, str) and label == normalised(label) and is_label(label), "label", label)
    _must(line["outcome"] in OUTCOMES, "outcome", line["outcome"])
    split = line.get("split")
    _must(split in (None, "train", "test"), "split", split)
    _must(split is None or line["outcome"] == "ok", "outcome of a picture in the set", line["outcome"])
    for key in ("rank", "attempts"):
        _must(type(line[key]) is int and line[key] >= 0, key, line[key])
    for key in ("http_status", "n_bytes"):
        _must(line.get(key) is None or type(line[key]) is int, key, line.get(key))
    return Entry(
        PointRow(url, sha256, label, (float(point[0]), float(point[1]))),
        line["rank"],
        line["outcome"],
        None if line.get("detail") is None else str(line["detail"])[:300],
        line.get("http_status"),
        line.get("n_bytes"),
        line["attempts"],
        str(line.get("when", ""))[:40],
        split,
    )


def _must(fine: bool, what: str, found: Any) -> None:
    if not fine:
        raise ValueError(f"{what} {str(found)[:80]!a}")
