"""Target maps P over a model's visual tokens (Eq. 5 of arXiv 2511.12738): where an answer should look.

    P = Normalize(Smooth(1(I_P)))

A sample's geometry says what to look at (marks, in pixels of the original image); a token grid says
which visual tokens that touches (I_P); a Gaussian in token units smooths, and the sum becomes 1.

    line_intersection   the crossings; without any, both curves, along which one has to look
    line_tracing        the curve between the queried nodes; for a No the two nodes and the curves that
                        leave them, which is what shows that they do not meet
    grid_patch          the cell
    pixmo_points        the point
    refcoco             the box's centre line, vertical or horizontal as the box is
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.errors import TargetError
from evalkit.records import Sample

Patches = NDArray[np.bool_]  # (rows, cols), I_P as an indicator


class Grid(Protocol):
    """The visual tokens of one image, row by row; model_adapters.families.TokenGrid is one."""

    @property
    def rows(self) -> int: ...

    @property
    def cols(self) -> int: ...

    def token_units(self, points_xy_px: ArrayLike) -> NDArray[np.float64]:
        """(..., 2) pixels -> (..., 2) token units (u, v): token (row, col) covers [col, col+1) x [row, row+1)."""
        ...


@dataclass(frozen=True, slots=True)
class Marks:
    """What to look at, in pixels of the original image. `absent`: the answer says that nothing is there."""

    points_xy_px: Sequence[Sequence[float]] = ()
    curves_xy_px: Sequence[Sequence[Sequence[float]]] = ()
    boxes_xyxy: Sequence[Sequence[float]] = ()  # every token that such a box overlaps
    absent: bool = False


def marks(dataset: str, sample: Sample) -> Marks:
    """What one has to look at to answer a sample. Raises TargetError where its geometry lacks a key."""
    try:
        return _MARKS[dataset](sample)
    except KeyError as error:
        what = (
            f"its geometry has no {error}" if dataset in _MARKS else f"no target map for data set {dataset!r}"
        )
        raise TargetError(f"{sample.sample_id}: {what}.") from None


def _crossings(sample: Sample) -> Marks:
    geometry = sample.geometry
    if geometry["crossings_xy"]:
        return Marks(points_xy_px=geometry["crossings_xy"])
    return Marks(curves_xy_px=[geometry["blue_xy"], geometry["red_xy"]], absent=True)


def _path(sample: Sample) -> Marks:
    geometry = sample.geometry
    if geometry["path_xy"]:
        return Marks(curves_xy_px=[geometry["path_xy"]])
    asked = {sample.variables["node_a"], sample.variables["node_b"]}
    edges = zip(geometry["edges"], geometry["curves_xy"], strict=True)
    leaving = [curve for edge, curve in edges if asked & set(edge)]
    return Marks(points_xy_px=geometry["queried_xy"], curves_xy_px=leaving, absent=True)


def _cell(sample: Sample) -> Marks:
    return Marks(boxes_xyxy=[sample.geometry["bbox_xyxy"]])


def _point(sample: Sample) -> Marks:
    assert isinstance(sample.gold, list)
    return Marks(points_xy_px=[sample.gold])


def _centre_line(sample: Sample) -> Marks:
    assert isinstance(sample.gold, list)
    x0, y0, x1, y1 = sample.gold
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    line = [(x, y0), (x, y1)] if y1 - y0 >= x1 - x0 else [(x0, y), (x1, y)]
    return Marks(curves_xy_px=[line])


_MARKS = {
    "line_intersection": _crossings,
    "line_tracing": _path,
    "grid_patch": _cell,
    "pixmo_points": _point,
    "refcoco": _centre_line,
}


def target_patches(found: Marks, grid: Grid, sample_id: str) -> Patches:
    """(rows, cols) bool: the tokens that the marks touch, I_P.

    A mark that the model's image preparation crops away cannot be looked at: TargetError names the
    sample when a point or a box lies outside of the tokens, or nothing is left of the curves.
    """
    patches = np.zeros((grid.rows, grid.cols), np.bool_)
    for point_xy_px in found.points_xy_px:
        units = grid.token_units(point_xy_px)
        _require_inside(units, grid, sample_id, f"the point {_px(point_xy_px)}")
        patches[_floor(units[1], grid.rows), _floor(units[0], grid.cols)] = True
    for x0, y0, x1, y1 in found.boxes_xyxy:
        low, high = grid.token_units((x0, y0)), grid.token_units((x1, y1))
        _require_inside((low + high) / 2, grid, sample_id, f"the box {_px((x0, y0, x1, y1))}")
        patches[_overlapped(low[1], high[1], grid.rows), _overlapped(low[0], high[0], grid.cols)] = True
    for curve in found.curves_xy_px:
        for start, end in pairwise(grid.token_units(curve)):
            rows, cols = _traversed(start, end, grid)
            patches[rows, cols] = True
    if not patches.any():
        raise TargetError(
            f"{sample_id}: its target lies outside of the {grid.rows} x {grid.cols} visual tokens: the model's "
            "image preparation crops it away. Pad instead of cropping, or leave the sample out."
        )
    return patches


def _require_inside(units: NDArray[np.float64], grid: Grid, sample_id: str, what: str) -> None:
    u, v = units
    if not (-_EDGE <= u <= grid.cols + _EDGE and -_EDGE <= v <= grid.rows + _EDGE):
        raise TargetError(
            f"{sample_id}: {what} lies outside of the {grid.rows} x {grid.cols} visual tokens: the model's image "
            "preparation crops it away. Pad instead of cropping, or leave the sample out."
        )


_EDGE = 1e-9  # rounding of an exact border


def _px(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:g}" for v in values) + ") px"


def _floor(unit: float, n: int) -> int:
    """The token of a coordinate; the far border belongs to the last one."""
    return min(max(int(np.floor(unit)), 0), n - 1)


def _overlapped(low: float, high: float, n: int) -> slice:
    """Tokens whose interior [low, high] overlaps, at least the one in its middle."""
    first, last = int(np.floor(low + 1e-6)), int(np.ceil(high - 1e-6))
    if last <= first:
        first, last = (middle := _floor((low + high) / 2, n)), middle + 1
    return slice(max(first, 0), min(last, n))


def _traversed(
    start: NDArray[np.float64], end: NDArray[np.float64], grid: Grid
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the tokens whose interior a segment passes through; parts outside are cut off.

    Exact: the segment is cut where it meets a line of the grid, and each piece lies in one token.
    """
    delta = end - start
    cuts = [np.array([0.0, 1.0])]
    for axis, n in ((0, grid.cols), (1, grid.rows)):
        if delta[axis] != 0:
            at = (np.arange(n + 1) - start[axis]) / delta[axis]
            cuts.append(at[(at > 0) & (at < 1)])
    t = np.unique(np.concatenate(cuts))
    middles = start + ((t[:-1] + t[1:]) / 2)[:, None] * delta
    inside = ((middles >= -_EDGE) & (middles <= np.array([grid.cols, grid.rows]) + _EDGE)).all(axis=1)
    cells = np.floor(middles[inside]).astype(np.int64)
    return np.clip(cells[:, 1], 0, grid.rows - 1), np.clip(cells[:, 0], 0, grid.cols - 1)


def target_map(patches: Patches, sigma: float, floor: float = 0.0) -> NDArray[np.float64]:
    """P of Eq. 5, (rows * cols,) float64, row-major, sums to 1.

    sigma: of the Gaussian, in tokens, cut off beyond 3 sigma and at the border; 0 leaves I_P as it is.
    floor: least value of any token as a fraction of the map's peak, the "fixed low value" of the other
           patches in the paper's Figure 2; 0 (Eq. 5 as printed) lets them be 0.
    """
    if sigma < 0 or not 0 <= floor < 1:
        raise TargetError(f"sigma {sigma} must be at least 0, floor {floor} at least 0 and below 1.")
    smooth = (
        _gaussian(patches.shape[0], sigma) @ patches.astype(np.float64) @ _gaussian(patches.shape[1], sigma)
    )
    smooth = np.maximum(smooth, floor * smooth.max())
    return np.asarray((smooth / smooth.sum()).ravel(), np.float64)


def _gaussian(n: int, sigma: float) -> NDArray[np.float64]:
    """(n, n) symmetric matrix that convolves with an unnormalised Gaussian; the identity for sigma 0."""
    apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n))).astype(np.float64)
    if sigma == 0:
        return np.asarray(apart == 0, np.float64)
    kernel = np.exp(-0.5 * (apart / sigma) ** 2)
    return np.asarray(np.where(apart <= np.ceil(3 * sigma), kernel, 0.0), np.float64)
