"""Anti-aliased strokes and discs by analytic coverage, computed only for the pixels they touch.

Pixel i spans [i, i + 1) and is sampled at its centre i + 0.5. The coverage of a shape is
clip(0.5 - signed distance, 0, 1), the exact box filter of a straight edge along an axis. Arithmetic is
elementwise IEEE (+ - * / sqrt), so that pixels do not depend on the platform or on a font library.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from evalkit.datasets.planar import Curve, Point

RGB = tuple[int, int, int]
WHITE: RGB = (255, 255, 255)


class Canvas:
    """An image being drawn. `pixels`: (H, W, 3) uint8, RGB."""

    def __init__(self, width: int, height: int, background: RGB = WHITE) -> None:
        self.pixels: NDArray[np.uint8] = np.empty((height, width, 3), np.uint8)
        self.pixels[:] = background
        self._coverage = np.zeros(height * width)  # of the shape at hand; zero between two calls

    def stroke(self, curves: Iterable[Curve], width: float, color: RGB) -> None:
        """Draw polygonal curves as one shape, `width` px wide, with round joins and ends."""
        touched = [self._cover(a, b, width / 2) for curve in curves for a, b in pairwise(curve)]
        self._blend(touched, color)

    def disc(self, center: Point, radius: float, color: RGB) -> None:
        self._blend([self._cover(center, center, radius)], color)

    def rectangle(self, bbox_xyxy: Sequence[int], color: RGB) -> None:
        """Fill whole pixels: columns x0 .. x1 - 1, rows y0 .. y1 - 1."""
        x0, y0, x1, y1 = bbox_xyxy
        self.pixels[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = color

    def _cover(self, a: Point, b: Point, radius: float) -> NDArray[np.intp]:
        """Raise the coverage to that of all points within `radius` of segment ab; flat indices touched.

        Walks the major axis pixel by pixel and looks at a band of the minor axis around the segment.
        """
        height, width = self.pixels.shape[:2]
        steep = abs(b[1] - a[1]) > abs(b[0] - a[0])
        (u0, v0), (u1, v1) = (a[::-1], b[::-1]) if steep else (a, b)
        if u0 > u1:
            u0, v0, u1, v1 = u1, v1, u0, v0
        limit_u, limit_v = (height, width) if steep else (width, height)
        du, dv = u1 - u0, v1 - v0
        slope = dv / du if du else 0.0
        reach = radius + 1.0
        u = np.arange(max(0, int(u0 - reach)), min(limit_u, int(u1 + reach) + 1))
        middle = v0 + slope * (np.clip(u + 0.5, u0, u1) - u0)
        half_band = int(reach * (1.0 + slope * slope) ** 0.5) + 1
        v = np.floor(middle).astype(np.intp)[:, None] + np.arange(-half_band, half_band + 1)

        pu, pv = u[:, None] + 0.5 - u0, v + 0.5 - v0
        length2 = du * du + dv * dv
        t = np.clip((pu * du + pv * dv) / length2, 0.0, 1.0) if length2 else 0.0
        eu, ev = pu - t * du, pv - t * dv
        coverage = np.clip(radius + 0.5 - np.sqrt(eu * eu + ev * ev), 0.0, 1.0)

        hit = (coverage > 0) & (v >= 0) & (v < limit_v)
        flat = (u[:, None] * width + v if steep else v * width + u[:, None])[hit]
        self._coverage[flat] = np.maximum(self._coverage[flat], coverage[hit])
        return flat

    def _blend(self, touched: list[NDArray[np.intp]], color: RGB) -> None:
        flat = np.concatenate(touched)
        share = self._coverage[flat][:, None]
        pixels = self.pixels.reshape(-1, 3)
        mixed = pixels[flat] * (1.0 - share) + np.array(color, np.float64) * share
        pixels[flat] = np.floor(mixed + 0.5).astype(np.uint8)
        self._coverage[flat] = 0.0
