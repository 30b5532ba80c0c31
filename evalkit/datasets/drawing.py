"""Anti-aliased drawing by analytic coverage, computed only for the pixels it touches, in palette colours.

Pixel i spans [i, i + 1) and is sampled at its centre i + 0.5. The coverage of a shape is
clip(0.5 - signed distance, 0, 1), the exact box filter of a straight edge along an axis, in 16 steps.
Arithmetic is elementwise IEEE (+ - * / sqrt), so that pixels do not depend on the platform or on a
font library. A palette image is a third of the bytes to compress, which is what drawing time goes into.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from evalkit.datasets.planar import Curve, Point

RGB = tuple[int, int, int]
WHITE: RGB = (255, 255, 255)
FULL = 15  # the coverage level of a pixel that lies wholly inside


@dataclass(frozen=True, slots=True)
class Stamp:
    """A small picture with a soft edge, to be put on a canvas at whole pixels.

    solid:  (h, w) bool, where it hides what is below by index: (h, w) uint8 into palette.
    edge:   (h, w) uint8, coverage level 0 .. 14 of its edge, in edge_color.
    """

    solid: NDArray[np.bool_]
    index: NDArray[np.uint8]
    palette: tuple[RGB, ...]
    edge: NDArray[np.uint8]
    edge_color: RGB


class Canvas:
    """An image being drawn on white. `index`: (H, W) uint8 into `palette`."""

    def __init__(self, width: int, height: int) -> None:
        self.index: NDArray[np.uint8] = np.zeros((height, width), np.uint8)
        self.palette: list[RGB] = [WHITE]
        self._slots: dict[RGB, int] = {WHITE: 0}

    @property
    def palette_rgb(self) -> NDArray[np.uint8]:
        """(n, 3) uint8."""
        return np.array(self.palette, np.uint8)

    def stroke(self, curves: Iterable[Curve], width: float, color: RGB) -> None:
        """Draw polygonal curves as one shape, `width` px wide, with round joins and ends."""
        segments = [segment for curve in curves for segment in pairwise(curve)]
        flat, level = cover(segments, width / 2, self.index.shape)
        self._blend(flat, level, color)

    def rectangle(self, bbox_xyxy: Sequence[int], color: RGB) -> None:
        """Fill whole pixels: columns x0 .. x1 - 1, rows y0 .. y1 - 1."""
        x0, y0, x1, y1 = bbox_xyxy
        self.index[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = self._slot(color)

    def stamp(self, stamp: Stamp, x: int, y: int) -> None:
        """Put a stamp with its top left corner at (x, y); it must lie inside."""
        h, w = stamp.solid.shape
        rows, columns = np.nonzero(stamp.edge)
        self._blend(
            (rows + y) * self.index.shape[1] + columns + x, stamp.edge[rows, columns], stamp.edge_color
        )
        patch = self.index[y : y + h, x : x + w]
        slots = np.array([self._slot(color) for color in stamp.palette], np.uint8)
        patch[stamp.solid] = slots[stamp.index[stamp.solid]]

    def _blend(self, flat: NDArray[np.intp], level: NDArray[np.uint8], color: RGB) -> None:
        """Mix `color` into pixels (flat indices; the same one only with the same level) by coverage level."""
        pixels = self.index.reshape(-1)
        code = pixels[flat].astype(np.intp) * (FULL + 1) + level
        present = np.zeros(256 * (FULL + 1), bool)
        present[code] = True
        slots = np.zeros(256 * (FULL + 1), np.uint8)
        for value in np.flatnonzero(present).tolist():
            below, share = divmod(value, FULL + 1)
            slots[value] = self._slot(mix(self.palette[below], color, share))
        pixels[flat] = slots[code]

    def _slot(self, color: RGB) -> int:
        """The palette index of a color; the nearest one once the palette is full."""
        slot = self._slots.get(color)
        if slot is None:
            if len(self.palette) == 256:
                return min(range(256), key=lambda i: _difference(self.palette[i], color))
            slot = self._slots[color] = len(self.palette)
            self.palette.append(color)
        return slot


def _difference(one: RGB, two: RGB) -> int:
    return sum(abs(a - b) for a, b in zip(one, two, strict=True))


def mix(below: RGB, above: RGB, level: int) -> RGB:
    """`above` over `below` at a coverage of level / 15, rounded half up."""
    r, g, b = (
        (2 * (u * (FULL - level) + a * level) + FULL) // (2 * FULL) for u, a in zip(below, above, strict=True)
    )
    return r, g, b


def cover(
    segments: Sequence[tuple[Point, Point]], radius: float, shape: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """Pixels within `radius` of any segment: flat indices and coverage levels 1 .. 15.

    A pixel that several segments touch is given several times, each time with its highest level.
    """
    height, width = shape[:2]
    plane = np.zeros(height * width, np.uint8)
    touched = []
    for a, b in segments:
        flat, level = _cover_one(a, b, radius, height, width)
        plane[flat] = np.maximum(plane[flat], level)
        touched.append(flat)
    every = np.concatenate(touched)
    return every, plane[every]


def _cover_one(
    a: Point, b: Point, radius: float, height: int, width: int
) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """One segment, walked along its major axis pixel by pixel; a band of the minor axis is looked at."""
    steep = abs(b[1] - a[1]) > abs(b[0] - a[0])
    (u0, v0), (u1, v1) = (a[::-1], b[::-1]) if steep else (a, b)
    if u0 > u1:
        u0, v0, u1, v1 = u1, v1, u0, v0
    limit_u, limit_v = (height, width) if steep else (width, height)
    du, dv = u1 - u0, v1 - v0
    slope = dv / du if du else 0.0
    reach = radius + 1.0
    u = np.arange(max(0, int(u0 - reach)), min(limit_u, int(u1 + reach) + 1))
    middle = v0 + slope * (np.minimum(np.maximum(u + 0.5, u0), u1) - u0)
    half_band = int(reach * (1.0 + slope * slope) ** 0.5) + 1
    v = middle.astype(np.intp)[:, None] + np.arange(-half_band, half_band + 1)

    pu, pv = (u + (0.5 - u0))[:, None], v + (0.5 - v0)
    length2 = du * du + dv * dv
    t = np.minimum(np.maximum((pu * du + pv * dv) / length2, 0.0), 1.0) if length2 else 0.0
    eu, ev = pu - t * du, pv - t * dv
    level = ((radius + 0.5) - np.sqrt(eu * eu + ev * ev)) * FULL
    hit = level >= 0.5
    if middle.size and (middle.min() < half_band + 1 or middle.max() > limit_v - half_band - 2):
        hit &= (v >= 0) & (v < limit_v)
    flat = (u[:, None] * width + v if steep else v * width + u[:, None])[hit]
    return flat, np.minimum(level[hit] + 0.5, FULL).astype(np.uint8)
