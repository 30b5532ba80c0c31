"""A finished run as the other formats need it: its numbers, and its rows without keys, paths and hosts."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from evalkit.errors import StoreError
from evalkit.leaderboard import run_row
from evalkit.sharing.archive import packed

# Where the public sets of the tasks lie on the Hub; the synthetic ones have no place there but what a user gives them.
HUB_DATASETS = {"refcoco": "lmms-lab/RefCOCO", "pixmo_points": "allenai/pixmo-points"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Finished:
    """meta: run.json; rows: in the order they came; numbers: as the leaderboard has them."""

    name: str
    meta: Mapping[str, Any]
    rows: list[dict[str, Any]]
    numbers: Mapping[str, Any]

    @property
    def model(self) -> str:
        return str(self.meta["model"]["name"])

    @cached_property
    def model_id(self) -> str:
        """The Hub's id of the checkpoint where it has one, else the registry's name."""
        checkpoint = str(self.meta["model"].get("checkpoint") or "")
        on_hub = _HUB_ID.fullmatch(checkpoint) and not checkpoint.startswith("checkpoints/")
        return checkpoint if on_hub else self.model

    @property
    def task(self) -> str:
        return str(self.meta["task"]["name"])

    @property
    def split(self) -> str:
        return str(self.meta["split"])

    @property
    def ended(self) -> datetime:
        when = datetime.fromisoformat(str(self.meta["ended"]))
        return when if when.tzinfo else when.replace(tzinfo=UTC)

    @property
    def remarks(self) -> list[str]:
        """What must not be lost of a number: its n and interval, and what it is not."""
        n = self.numbers
        found = [
            f"{n['correct']}/{n['n']} correct, 95% CI {100 * n['low']:.2f}-{100 * n['high']:.2f}% ({n['interval']})"
        ]
        if n["n"] < n["n_split"]:
            found.append(f"on a sample of {n['n']} of {n['n_split']}")
        if n["scale"] in ("tiny", "small"):
            found.append(f"{n['scale']} scale: a test of the harness, no statement about a model")
        if self.meta["trained_on"]:
            found.append(f"trained on {self.meta['trained_on']}, seed {n['train_seed']}")
        if n["origin"] == "import":
            found.append("replies made elsewhere, scored by evalkit")
        return found


def finished(folder: Path) -> Finished:
    """Raises StoreError of a run that is not complete, or holds what looks like a key."""
    name = f"{folder.parent.name}/{folder.name}"
    try:
        numbers = run_row(folder)
        meta, rows = packed(folder, name)
        found = Finished(name, json.loads(meta), [json.loads(line) for line in rows.splitlines()], numbers)
        _ = found.ended if found.meta["ended"] else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{folder}: not a run as evalkit writes it ({error!r}).") from None
    if numbers["status"] != "complete":
        raise StoreError(
            f"{folder}: {numbers['status']}: {numbers['n_rows'] - numbers['failed']} of {numbers['n']} samples are "
            "answered. Finish it before it is given to others: the same `evalkit run` again."
        )
    return found


def file_safe(name: str) -> str:
    """A name as part of a file's name on any system."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name).strip(".-")
    return safe[:100] or "unnamed"


def write_text(path: Path, text: str) -> Path:
    """Raises StoreError in one line."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}).") from None
    return path
