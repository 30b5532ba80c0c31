"""Coordinate frames: what a model speaks <-> continuous pixels of the original image.

    kind            a coordinate pair means
    pixel           pixels of the original image
    resized_pixel   pixels of the image after the model's own resize (Qwen2.5-VL: smart_resize)
    unit            0-1 of width and height
    percent         0-100 of width and height (Molmo)
    per_mille       0-1000 of width and height (Gemini, Qwen3-VL)
    padded_unit     0-1 of the image padded to a square, content centred (LLaVA-1.5)
    grid_24         cell indices of a 24 x 24 grid, 0-based; index i stands for the cell's centre

`order` is `xy`, or `yx` for models that name y first (Gemini). The frame is declared by the task's
prompt or by the model's registry entry; nothing here looks at the gold or guesses from magnitudes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from evalkit.errors import FrameError

FrameKind = Literal["pixel", "resized_pixel", "unit", "percent", "per_mille", "padded_unit", "grid_24"]
FRAME_KINDS: tuple[FrameKind, ...] = get_args(FrameKind)
GRID = 24

# Qwen2.5-VL: patches of 14 px merged 2 x 2, limits of its preprocessor_config.json
# (https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct).
QWEN_FACTOR = 28
QWEN_MIN_PIXELS = 56 * 56
QWEN_MAX_PIXELS = 12_845_056


@dataclass(frozen=True, slots=True)
class Frame:
    """How a model states coordinates. min_pixels, max_pixels and factor serve `resized_pixel` alone."""

    kind: FrameKind
    order: Literal["xy", "yx"] = "xy"
    min_pixels: int = QWEN_MIN_PIXELS
    max_pixels: int = QWEN_MAX_PIXELS
    factor: int = QWEN_FACTOR

    def __post_init__(self) -> None:
        if self.kind not in FRAME_KINDS:
            raise FrameError(f"No frame {self.kind!r}. Known frames: {', '.join(FRAME_KINDS)}.")
        if self.order not in ("xy", "yx"):
            raise FrameError(f"No axis order {self.order!r}. Allowed: xy, yx.")


def smart_resize(
    size_wh: tuple[int, int],
    factor: int = QWEN_FACTOR,
    min_pixels: int = QWEN_MIN_PIXELS,
    max_pixels: int = QWEN_MAX_PIXELS,
) -> tuple[int, int]:
    """Qwen2-VL's target size (w, h): multiples of `factor`, area within the limits, aspect ratio kept.

    Rounds half to even, as the reference does. Raises FrameError on an aspect ratio above 200.
    """
    width, height = size_wh
    if min(width, height) <= 0 or max(width, height) / min(width, height) > 200:
        raise FrameError(f"Image of {width} x {height} px: Qwen's resize takes aspect ratios up to 200.")
    # A side below half a factor rounds to 0 here and is raised by the growth below, as in the reference.
    w, h = (round(side / factor) * factor for side in (width, height))
    if w * h > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        w, h = (max(factor, math.floor(side / shrink / factor) * factor) for side in (width, height))
    elif w * h < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        w, h = (math.ceil(side * grow / factor) * factor for side in (width, height))
    return w, h


def _affine(frame: Frame, size_wh: tuple[int, int]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Per axis (scale, offset) with pixel = value * scale + offset."""
    width, height = size_wh
    match frame.kind:
        case "pixel":
            return (1.0, 0.0), (1.0, 0.0)
        case "resized_pixel":
            w, h = smart_resize(size_wh, frame.factor, frame.min_pixels, frame.max_pixels)
            return (width / w, 0.0), (height / h, 0.0)
        case "unit":
            return (width, 0.0), (height, 0.0)
        case "percent":
            return (width / 100, 0.0), (height / 100, 0.0)
        case "per_mille":
            return (width / 1000, 0.0), (height / 1000, 0.0)
        case "padded_unit":
            side = max(width, height)
            return (side, -float((side - width) // 2)), (side, -float((side - height) // 2))
        case "grid_24":
            return (width / GRID, width / GRID / 2), (height / GRID, height / GRID / 2)


def _check(values: Sequence[float]) -> None:
    if len(values) not in (2, 4):
        raise FrameError(f"Expected a point (2 numbers) or a box (4), found {len(values)}.")


def _swap(values: Sequence[float]) -> list[float]:
    """(y, x, ...) <-> (x, y, ...), pair by pair."""
    return [v for i in range(0, len(values), 2) for v in (values[i + 1], values[i])]


def to_pixels(values: Sequence[float], frame: Frame, image_size_wh: tuple[int, int]) -> list[float]:
    """A point or box as the model stated it -> `point_xy_px` or `bbox_xyxy` of the original image.

    values: 2 or 4 numbers in `frame` and its axis order. Raises FrameError on any other count.
    """
    _check(values)
    xy = _swap(values) if frame.order == "yx" else values
    axes = _affine(frame, image_size_wh)
    return [v * axes[i % 2][0] + axes[i % 2][1] for i, v in enumerate(xy)]


def from_pixels(values_px: Sequence[float], frame: Frame, image_size_wh: tuple[int, int]) -> list[float]:
    """`point_xy_px` or `bbox_xyxy` of the original image -> the numbers a model of `frame` would state."""
    _check(values_px)
    axes = _affine(frame, image_size_wh)
    xy = [(v - axes[i % 2][1]) / axes[i % 2][0] for i, v in enumerate(values_px)]
    return _swap(xy) if frame.order == "yx" else xy


def grid_units(point_xy_px: Sequence[float], image_size_wh: tuple[int, int]) -> tuple[float, float]:
    """Continuous position on the 24 x 24 grid: u = x * 24 / W, v = y * 24 / H."""
    return point_xy_px[0] * GRID / image_size_wh[0], point_xy_px[1] * GRID / image_size_wh[1]
