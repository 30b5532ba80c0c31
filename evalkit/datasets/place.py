"""Putting splits where they belong: written aside, then moved in by renames, so that a kill leaves whole ones."""

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.datasets.disk import METADATA, fingerprint

_A_DAY_S = 86_400


def write_metadata(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """FOLDER/metadata.jsonl, a row a line."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / METADATA).write_text(text, encoding="utf-8")


def split_entry(rows: Sequence[Mapping[str, Any]], source: str, licence: str | None) -> dict[str, Any]:
    """What dataset.json records of a split."""
    return {
        "images": len({row["file_name"] for row in rows}),
        "samples": len(rows),
        "fingerprint": fingerprint(rows),
        "source": source,
        "licence": licence,
    }


def put_in_place(new: Path, place: Path) -> None:
    """Two renames, so that a kill leaves the old split or the new one, never part of one.

    The old one goes aside into the folder of `new`, which is a temporary one beside `place`, and away with
    it. Without `new` it just goes.
    """
    if place.exists():
        place.rename(new.with_name(f"old-{place.name}"))
    if new.exists():
        new.rename(place)


def sweep(dataset_folder: Path, prefix: str) -> None:
    """Remove what killed commands left a day ago or more (`.building-...`); a younger one may be at work."""
    for left in dataset_folder.glob(f"{prefix}*"):
        if time.time() - left.stat().st_mtime > _A_DAY_S:
            shutil.rmtree(left, ignore_errors=True)
