"""What changed between two sets of results, cell by cell, and why: model, prompt, data, parser, decoding, ..."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import StoreError
from evalkit.leaderboard import best_run, load_runs
from evalkit.scores import ScoreBook
from evalkit.sharing.merging import opened, refuse
from evalkit.stats import mcnemar_exact
from evalkit.store import read_meta, read_rows

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 200
Cell = tuple[str, str, str, str, int]  # model, task, split, trained_on, train_seed
# cause -> where in run.json it stands; what is left of the model's entry is "model"
_CAUSES: dict[str, tuple[str, ...]] = {
    "model": (
        "model.adapter",
        "model.family",
        "model.checkpoint",
        "model.revision",
        "model.options",
        "training.key",
    ),
    "prompt": ("task.prompt",),
    "data": ("dataset.fingerprint", "dataset.n_split"),
    "parser": ("task.parser", "task.metric", "frame"),
    "decoding": ("decoding", "task.max_new_tokens"),
    "selection": ("selection.limit", "selection.seed", "selection.n"),
    "status": ("status", "origin"),
    "software": ("versions", "git_commit", "ran_on"),
}


@dataclass(frozen=True, slots=True)
class Results:
    """A results folder, or an archive unpacked: the best run of every cell."""

    folder: Path
    cells: Mapping[Cell, "pd.Series[Any]"]


@contextlib.contextmanager
def results_of(path: Path) -> Iterator[Results]:
    """Of a results folder or an archive. Raises StoreError."""
    if path.is_dir():
        yield Results(path, _cells(path))
        return
    if not path.is_file():
        raise StoreError(f"{path}: neither a results folder nor an archive.")
    with opened(path) as checked:
        refuse(path, checked.faults)
        yield Results(checked.folder, _cells(checked.folder))


def _cells(folder: Path) -> dict[Cell, "pd.Series[Any]"]:
    book = ScoreBook(folder)
    runs = load_runs(folder, book)
    found = {}
    named = runs.assign(trained_on=runs["trained_on"].fillna(""))
    for key, group in named.groupby(["model", "task", "split", "trained_on", "train_seed"]):
        best, _ = best_run(group)
        if best is not None:
            found[key] = best
    return found  # type: ignore[return-value]  # keys as grouped


def changes(a: Results, b: Results) -> dict[str, Any]:
    """{"changed", "appeared", "vanished", "same"}: lists of cells, and the number of those alike."""
    cells = [(key, _cell(key, a, b)) for key in sorted(a.cells.keys() & b.cells.keys())]
    changed = [cell for _, cell in cells if cell is not None]
    return {
        "changed": changed,
        "appeared": [_named(key) | _number(b.cells[key]) for key in sorted(b.cells.keys() - a.cells.keys())],
        "vanished": [_named(key) | _number(a.cells[key]) for key in sorted(a.cells.keys() - b.cells.keys())],
        "same": len(cells) - len(changed),
    }


def _named(key: Cell) -> dict[str, Any]:
    model, task, split, trained_on, seed = key
    return {"model": model, "task": task, "split": split, "trained_on": trained_on or None, "seed": int(seed)}


def _number(run: "pd.Series[Any]") -> dict[str, Any]:
    return {
        "run": str(run["run"]),
        "correct": int(run["correct"]),
        "n": int(run["n"]),
        "accuracy": float(run["accuracy"]),
        "status": str(run["status"]),
    }


def _cell(key: Cell, a: Results, b: Results) -> dict[str, Any] | None:
    """None where both have the same replies with the same verdicts."""
    before, after = a.folder / a.cells[key]["run"], b.folder / b.cells[key]["run"]
    old_rows, new_rows = _rows(before), _rows(after)
    shared = [name for name in old_rows if name in new_rows]
    replies = sum(old_rows[name]["reply"] != new_rows[name]["reply"] for name in shared)
    right = [
        (old_rows[name]["verdict"] == "correct", new_rows[name]["verdict"] == "correct") for name in shared
    ]
    flipped = sum(old_rows[name]["verdict"] != new_rows[name]["verdict"] for name in shared)
    old, new = _number(a.cells[key]), _number(b.cells[key])
    if not flipped and not replies and old_rows.keys() == new_rows.keys() and old["status"] == new["status"]:
        return None
    won, lost = right.count((False, True)), right.count((True, False))
    return _named(key) | {
        "before": old,
        "after": new,
        "difference": new["accuracy"] - old["accuracy"],
        "shared": len(shared),
        "other_replies": replies,
        "other_verdicts": flipped,
        "won": won,
        "lost": lost,
        "mcnemar_p": mcnemar_exact(won, lost),
        "causes": _causes(read_meta(before), read_meta(after), replies, flipped),
    }  # fmt: skip


def _rows(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        row["sample_id"]: {"reply": row.get("reply"), "verdict": row["verdict"]}
        for row in read_rows(folder, fast=True)
    }


def _causes(
    old: Mapping[str, Any], new: Mapping[str, Any], replies: int, flipped: int
) -> list[dict[str, Any]]:
    """What differs in run.json, by cause; where nothing does that changes answers, that is said."""
    found = []
    for cause, places in _CAUSES.items():
        differ = [
            {"key": key, "before": _short(before), "after": _short(after)}
            for place in places
            for key, before, after in _differences(_at(old, place), _at(new, place), place)
        ]
        if differ:
            found.append({"cause": cause, "keys": differ})
    if not any(one["cause"] not in ("software", "status") for one in found):
        why = "verdicts" if flipped and not replies else "replies" if replies else "samples"
        found.insert(0, {"cause": f"other {why} under the same settings", "keys": []})
    return found


def _at(meta: Mapping[str, Any], place: str) -> Any:
    value: Any = meta
    for part in place.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from _differences(old.get(name), new.get(name), f"{key}.{name}")
    elif old != new:
        yield key, old, new


def _short(value: Any) -> Any:
    text = value if isinstance(value, str) else None
    return value if text is None or len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
