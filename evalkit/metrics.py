"""Metrics: (answer, gold) -> Score. Pure; coordinates are pixels of the original image."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.frames import grid_units

# A prediction is correct within 3 units of the 24 x 24 grid (Sec. 4.2 of arXiv 2511.12738).
MAX_GRID_DISTANCE = 3.0
MIN_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Score:
    """distance in grid units; iou in [0, 1]; correct_floor_cell: the distance of whole cells instead.

    beyond_image: whether a box passes the picture's edge by more than a pixel.
    """

    correct: bool
    distance: float | None = None
    iou: float | None = None
    correct_floor_cell: bool | None = None
    beyond_image: bool | None = None


Metric = Callable[[Any, Any, tuple[int, int]], Score]


def exact(answer: int | str, gold: int | str, image_size_wh: tuple[int, int]) -> Score:
    """The same count, or the same of "yes" and "no"."""
    return Score(answer == gold)


def within_3_grid_units(
    answer: Sequence[float], gold: Sequence[float], image_size_wh: tuple[int, int]
) -> Score:
    """Euclidean distance of two `point_xy_px` on the continuous 24 x 24 grid, per axis u = 24 x / W.

    The variant on whole cells (both positions floored) stands beside it; on one set of real points
    the two differ on 9 % of the verdicts.
    """
    u, v = grid_units(answer, image_size_wh)
    gold_u, gold_v = grid_units(gold, image_size_wh)
    distance = math.hypot(u - gold_u, v - gold_v)
    cells = math.hypot(math.floor(u) - math.floor(gold_u), math.floor(v) - math.floor(gold_v))
    return Score(
        distance <= MAX_GRID_DISTANCE, distance=distance, correct_floor_cell=cells <= MAX_GRID_DISTANCE
    )


def iou_50(answer: Sequence[float], gold: Sequence[float], image_size_wh: tuple[int, int]) -> Score:
    """Two `bbox_xyxy`, correct at IoU >= 0.5, as RefCOCO's accuracy is defined."""
    overlap = iou(answer, gold)
    return Score(overlap >= MIN_IOU, iou=overlap, beyond_image=_beyond(answer, image_size_wh))


def _beyond(bbox_xyxy: Sequence[float], image_size_wh: tuple[int, int]) -> bool:
    """A pixel is what rounding explains; beyond that a model speaks another frame, or guesses."""
    width, height = image_size_wh
    xs, ys = bbox_xyxy[0::2], bbox_xyxy[1::2]
    return min(*xs, *ys) < -1 or max(xs) > width + 1 or max(ys) > height + 1


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two `bbox_xyxy`, areas continuous (no + 1).

    A box whose corners are swapped or which has no area overlaps nothing: it is not put right, since
    that would be a guess at what was meant.
    """
    if any(box[2] <= box[0] or box[3] <= box[1] for box in (a, b)):
        return 0.0
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - wide * high
    return wide * high / area


METRICS: Mapping[str, Metric] = {"exact": exact, "within_3_grid_units": within_3_grid_units, "iou_50": iou_50}
