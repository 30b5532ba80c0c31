"""Grid Patch: a grid of 24 x 24 cells in grey lines on white, one cell red; where is it?

672 px a side: a cell is 28 px, exactly one merged visual token of Qwen2.5-VL; LLaVA-1.5 halves the
image to 336 px, where a cell is exactly one of its 24 x 24 patches of 14 px. Lines lie on the pixel
boundaries between cells, so that nothing is blurred.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from evalkit.datasets.drawing import RGB
from evalkit.datasets.recipe import Picture, Question, Recipe
from evalkit.datasets.stream import Stream
from evalkit.frames import GRID

NAME = "grid_patch"
SIDE = 672
CELL = SIDE // GRID
HALF_LINE = 1  # px on each side of a boundary
_HALF = GRID // 2
_QUADRANTS = ("top left", "top right", "bottom left", "bottom right")


def place(index: int) -> tuple[str, int]:
    """Quadrants take turns, so that every part of the image is in train and test alike."""
    return _QUADRANTS[index % 4], index // 4


def cell_of(seed: int, index: int) -> tuple[int, int]:
    """(column, row), 0-based. Each quadrant's 144 cells come once before any comes again."""
    quadrant = index % 4
    lap, rank = divmod(index // 4, _HALF * _HALF)
    order = Stream(seed, NAME, "order", quadrant, lap).shuffled(range(_HALF * _HALF))
    row, column = divmod(order[rank], _HALF)
    return column + _HALF * (quadrant % 2), row + _HALF * (quadrant // 2)


@lru_cache(maxsize=1)
def grid() -> NDArray[np.uint8]:
    """The empty grid, (SIDE, SIDE) uint8: 0 where a cell is, 1 on the lines. Read-only."""
    position = np.arange(SIDE)
    line = (position + HALF_LINE) % CELL < 2 * HALF_LINE
    lines = (line[:, None] | line[None, :]).astype(np.uint8)
    lines.flags.writeable = False
    return lines


def draw(seed: int, index: int) -> Picture:
    """The shades vary a little, so that two images of one cell are never the same image."""
    column, row = cell_of(seed, index)
    stream = Stream(seed, NAME, "shade", index)
    grey = 150 + stream.below(41)
    red: RGB = (215 + stream.below(41), stream.below(51), stream.below(51))

    bbox_xyxy = [column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL]
    picture = grid().copy()
    cell = picture[bbox_xyxy[1] : bbox_xyxy[3], bbox_xyxy[0] : bbox_xyxy[2]]
    cell[cell == 0] = 2  # the grid lies over the cell
    palette_rgb = np.array([(255, 255, 255), (grey, grey, grey), red], np.uint8)
    question = Question(
        gold=[(column + 0.5) * CELL, (row + 0.5) * CELL],
        stratum=place(index)[0],
        variables={},
        geometry={"cell_xy": [column, row], "bbox_xyxy": bbox_xyxy},
    )
    return Picture(picture, palette_rgb, (question,))


def describe(images_by_class: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in images_by_class.items())


RECIPE = Recipe(
    name=NAME,
    version=1,
    paper_images=1000,
    draw=draw,
    place=place,
    describe=describe,
    source="drawn by evalkit after Sec. 4.1.2 of arXiv 2511.12738",
)
