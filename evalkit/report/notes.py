"""What a table's signs mean: one note for each that occurs in it."""

from collections.abc import Iterable, Mapping
from typing import Any

_NOTES = {
    "empty": ("—", "no run here, or none on this task"),
    "unfinished": ("unfinished", "not every selected sample has a reply yet: no accuracy, no difference, no test"),
    "partial": ("sample", "complete on a sample of the split alone: not compared with the paper, ranked or averaged"),
    "other_data": ("other data", "run on other data than most models of the column (first digits of its fingerprint)"),
    "imported": ("imported", "replies made elsewhere, scored here"),
    "excludes": ("≠", "our 95 % interval excludes the printed value; how far the paper's own n reaches is not known"),
    "seeds": ("seeds", "the mean of several training seeds; the interval covers the choice of images, not of seeds"),
}  # fmt: skip


def state(ours: Mapping[str, Any] | None) -> str:
    """Of a cell: empty, unfinished, partial, other_data or final."""
    if ours is None:
        return "empty"
    if ours.get("status", "complete") != "complete":
        return "unfinished"
    return "partial" if ours.get("partial") else "other_data" if ours.get("other_data") else "final"


def table_notes(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """cells: with `ours` and `excludes`. Notes come in one order whatever the cells' is."""
    seen = set()
    for cell in cells:
        ours = cell["ours"]
        seen.add(state(ours))
        seen |= {"excludes"} if cell["excludes"] else set()
        if ours is not None:
            seen |= {"imported"} if ours.get("origin") == "import" else set()
            seen |= {"other_data"} if ours.get("other_data") else set()
            seen |= {"seeds"} if len(ours["seeds"]) > 1 else set()
    return [{"sign": sign, "text": text} for key, (sign, text) in _NOTES.items() if key in seen]
