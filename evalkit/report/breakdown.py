"""Where a run is right and where it is not: by class, by difficulty, which answer for which, how far off."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from evalkit.frames import grid_units
from evalkit.records import Sample
from evalkit.report.pages import plain
from evalkit.stats import accuracy_interval

Row = Mapping[str, Any]
_MOST_ANSWERS = 12  # columns of a confusion matrix; rarer answers share one
NO_ANSWER, OTHER = "no answer", "other"


def by_class(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Accuracy by the class that samples were drawn by; nothing where there is only one."""
    groups = _grouped((plain(str(row.get("stratum", ""))), row) for row in rows)
    return [_share(label, found) for label, found in sorted(groups.items())] if len(groups) > 1 else []


def by_difficulty(rows: Sequence[Row], samples: Mapping[str, Sample]) -> list[dict[str, Any]]:
    """Accuracy by what makes a question hard: {title, bins} of each measure that this run's rows have.

    samples: of the run's data, by id, for measures that need the geometry; empty where the data are not here.
    """
    found = []
    for title, measure, edges, unit, needs in _MEASURES:
        if not (samples if needs == "geometry" else rows and _has(rows[0], needs)):
            continue
        measured = ((_measured(measure, row, samples), row) for row in rows)
        groups = _grouped((_bin(value, edges, unit), row) for value, row in measured if value is not None)
        if len(groups) > 1:
            labels = [label for label in _labels(edges, unit) if label in groups]
            found.append({"title": title, "bins": [_share(label, groups[label]) for label in labels]})
    return found


def _has(row: Row, coordinates: int) -> bool:
    gold = row.get("gold")
    return isinstance(gold, list) and len(gold) == coordinates


def _measured(measure: Callable[[Row, Sample | None], float | None], row: Row, samples: Any) -> float | None:
    try:
        return measure(row, samples.get(row["sample_id"]))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None  # rows that came from elsewhere may lack what a measure needs


def _centre_distance(row: Row, sample: Sample | None) -> float | None:
    gold = row["gold"]
    if not isinstance(gold, list) or len(gold) != 2:
        return None
    u, v = grid_units(gold, tuple(row["image_size_wh"]))
    return math.hypot(u - 12, v - 12)


def _box_share(row: Row, sample: Sample | None) -> float | None:
    gold = row["gold"]
    if not isinstance(gold, list) or len(gold) != 4:
        return None
    width, height = row["image_size_wh"]
    return 100 * float((gold[2] - gold[0]) * (gold[3] - gold[1]) / (width * height))


def _crossings(row: Row, sample: Sample | None) -> float | None:
    if sample is None or "crossings_xy" not in sample.geometry:
        return None
    return len(sample.geometry["crossings_xy"])


def _path_length(row: Row, sample: Sample | None) -> float | None:
    path = sample.geometry.get("path_xy") if sample is not None else None
    if not path or sample is None:
        return None
    return sum(math.dist(a, b) for a, b in pairwise(path)) / sample.image_size_wh[0]


# title, measure, lower edges of the bins, unit
# and what it is read off: the data's geometry, or a gold of so many coordinates
_Measure = tuple[
    str, Callable[[Row, Sample | None], float | None], tuple[float, ...], str, Literal["geometry", 2, 4]
]
_CENTRE = "Distance of the target from the centre, in cells of the 24 x 24 grid"
_MEASURES: tuple[_Measure, ...] = (
    ("Crossings in the picture", _crossings, (0, 1, 2, 3, 5, 9, 17), "whole", "geometry"),
    ("Length of the path asked for, in picture widths", _path_length, (0, 0.5, 1, 1.5, 2), "", "geometry"),
    (_CENTRE, _centre_distance, (0, 3, 6, 9, 12), "", 2),
    ("Size of the box, in % of the picture", _box_share, (0, 5, 10, 20, 40), "%", 4),
)


def _labels(edges: Sequence[float], unit: str) -> list[str]:
    return [_bin(edge, edges, unit) for edge in edges]


def _bin(value: float, edges: Sequence[float], unit: str) -> str:
    at = _at(value, edges)
    low, last = edges[at], at + 1 == len(edges)
    if unit == "whole":
        if last:
            return f"{low:g} or more"
        high = edges[at + 1] - 1
        return f"{low:g}" if high == low else f"{low:g}–{high:g}"
    tail = f" {unit}" if unit else ""
    return f"{low:g} or more{tail}" if last else f"{low:g}–{edges[at + 1]:g}{tail}"


def _at(value: float, edges: Sequence[float]) -> int:
    """The bin of a value; what lies below the first edge belongs to the first."""
    return max(0, bisect_right(edges, value) - 1)


def _grouped(placed: Iterable[tuple[str, Row]]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for label, row in placed:
        groups.setdefault(label, []).append(row)
    return groups


def _share(label: str, rows: Sequence[Row]) -> dict[str, Any]:
    hits = [row["verdict"] == "correct" for row in rows]
    interval = accuracy_interval(hits, [str(row["cluster"]) for row in rows])
    return {
        "label": label,
        "n": len(rows),
        "correct": sum(hits),
        "accuracy": sum(hits) / len(rows),
        "low": interval.low,
        "high": interval.high,
    }


def confusion(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Gold by answer of counts and of yes and no: {answers, rows: [{gold, counts}]}; None of places and boxes."""
    pairs = [
        (row["gold"], NO_ANSWER if row.get("answer") is None else row["answer"])
        for row in rows
        if isinstance(row.get("gold"), int | str) and isinstance(row.get("answer"), int | str | None)
    ]
    if not pairs:
        return None
    golds = sorted({gold for gold, _ in pairs}, key=_order)
    counted = Counter(answer for _, answer in pairs if answer not in (NO_ANSWER, *golds))
    room = max(0, _MOST_ANSWERS - len(golds))
    further = sorted((answer for answer, _ in counted.most_common(room)), key=_order)
    answers = [*golds, *further]
    kept = {*answers, NO_ANSWER}
    cells = Counter((gold, answer if answer in kept else OTHER) for gold, answer in pairs)
    tail = [name for name in (OTHER, NO_ANSWER) if any(answer == name for _, answer in cells)]
    columns = [*answers, *tail]
    return {
        "answers": [plain(str(name)) for name in columns],
        "rows": [
            {"gold": plain(str(gold)), "counts": [cells[gold, name] for name in columns]} for gold in golds
        ],
        "right": len(golds),  # the first so many columns are the golds, in the same order
    }


def _order(value: Any) -> tuple[bool, Any]:
    return (isinstance(value, str), value)


def histogram(rows: Sequence[Row]) -> dict[str, Any] | None:
    """How far points are off, in grid units, or how well boxes overlap: {title, limit, bins: [{label, n}]}."""
    for key, title, edges, limit in (
        ("distance", "Distance from the target, in cells of the 24 x 24 grid", [0, 1, 2, 3, 4, 6, 8, 12, 16, 24], 3),
        ("iou", "Overlap with the box (IoU)", [i / 10 for i in range(10)], 0.5),
    ):  # fmt: skip
        values = [float(row[key]) for row in rows if isinstance(row.get(key), int | float)]
        if values:
            counts = Counter(_at(value, edges) for value in values)
            labels = [
                f"{low:g}–{high:g}" for low, high in zip(edges, [*edges[1:], None], strict=True) if high
            ]
            labels.append("0.9–1" if key == "iou" else f"{edges[-1]:g} or more")
            return {
                "title": title,
                "n": len(values),
                "without": len(rows) - len(values),
                "bins": [
                    {
                        "label": label,
                        "n": counts[i],
                        "within": (edges[i] < limit) if key == "distance" else (edges[i] >= limit),
                    }
                    for i, label in enumerate(labels)
                ],
            }
    return None
