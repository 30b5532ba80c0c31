"""Line Intersection: how often do a blue and a red polygonal curve cross? 0 to 5 times.

Classes 0-2 have BlindTest's geometry (anguyen8/vision-llms-are-blind, MIT): both curves run from left
to right through three shared x-knots, their heights lie on 13 ticks and differ at every knot, so that
crossings are exactly the changes of sign. Classes 3-5, the extension of Sec. 4.1.1 of arXiv 2511.12738,
have six or seven shared x-knots, each count equally often in each class, so that the number of bends
does not tell the three apart.

Lengths are fractions of the side. The rules for a readable image are a little stricter than the
smallest gaps in BlindTest (crossing to knot 0.036, crossing to crossing 0.083).
"""

from collections.abc import Mapping
from itertools import pairwise

from evalkit.datasets.drawing import RGB, Canvas
from evalkit.datasets.planar import Point, Unclear, clear_crossings
from evalkit.datasets.recipe import Picture, Question, Recipe
from evalkit.datasets.stream import Stream

NAME = "line_intersection"
SIDE = 384  # px; BlindTest's smallest
CLASSES = 6
TICKS = 13
INSET = 0.1 / 12  # the outermost ticks and knots stay inside the image, as in BlindTest
WIDTHS = (2 / 360, 4 / 360)  # 2 and 4 pt on a figure of 5 in = 360 pt
BLUE: RGB = (0, 0, 255)
RED: RGB = (255, 0, 0)

CROSSING_TO_KNOT = 0.04
CROSSING_TO_CROSSING = 0.09
SIN2_ANGLE = 0.117  # 20 degrees
APART = 0.03  # 11.5 px, centre line to centre line; the widest stroke is 4.3 px


def place(index: int) -> tuple[str, int]:
    return str(index % CLASSES), index // CLASSES


def _px(tick: float, last: int) -> float:
    """Tick 0 .. last -> pixels, the outermost ones inset."""
    return round(min(max(tick / last, INSET), 1 - INSET) * SIDE, 2)


def _knots(n_crossings: int, rank: int) -> int:
    return 3 if n_crossings < 3 else 6 + rank // 2 % 2


def _heights(stream: Stream, above: list[bool]) -> tuple[list[int], list[int]]:
    """Ticks of the blue and the red curve; at knot k blue is above red where above[k]."""
    blue, red = [], []
    for blue_above in above:
        high = stream.below(TICKS)
        low = (high + 1 + stream.below(TICKS - 1)) % TICKS
        high, low = min(high, low), max(high, low)  # y down
        blue.append(high if blue_above else low)
        red.append(low if blue_above else high)
    return blue, red


def _hugs_the_edge(ticks: list[int]) -> bool:
    """BlindTest's rule: never twice running on the top tick, nor on the bottom one."""
    return any(a == b and a in (0, TICKS - 1) for a, b in pairwise(ticks))


def curves(seed: int, index: int) -> tuple[list[Point], list[Point], list[Point]]:
    """Vertices of the blue and the red curve and their crossings, left to right, in pixels."""
    n_crossings, rank = index % CLASSES, index // CLASSES
    stream = Stream(seed, NAME, index)
    knots = _knots(n_crossings, rank)
    xs = [_px(k, knots - 1) for k in range(knots)]
    while True:
        changes = set(stream.shuffled(range(1, knots))[:n_crossings])
        above = [stream.below(2) == 0]
        for k in range(1, knots):
            above.append(above[-1] != (k in changes))
        heights = _heights(stream, above)
        if any(map(_hugs_the_edge, heights)):
            continue
        blue, red = ([(x, _px(y, TICKS - 1)) for x, y in zip(xs, ys, strict=True)] for ys in heights)
        try:
            crossings = clear_crossings(
                blue,
                red,
                from_knots=CROSSING_TO_KNOT * SIDE,
                from_each_other=CROSSING_TO_CROSSING * SIDE,
                sin2_angle=SIN2_ANGLE,
                apart=APART * SIDE,
            )
        except Unclear:
            continue
        return blue, red, [(round(x, 2), round(y, 2)) for x, y in crossings]


def draw(seed: int, index: int) -> Picture:
    """The stroke widths alternate within each class; red lies over blue."""
    label, rank = place(index)
    blue, red, crossings = curves(seed, index)
    width = round(WIDTHS[rank % 2] * SIDE, 2)
    canvas = Canvas(SIDE, SIDE)
    canvas.stroke([blue], width, BLUE)
    canvas.stroke([red], width, RED)
    geometry = {
        "blue_xy": [list(p) for p in blue],
        "red_xy": [list(p) for p in red],
        "crossings_xy": [list(p) for p in crossings],
        "line_width": width,
    }
    return Picture(canvas.index, canvas.palette_rgb, (Question(int(label), label, {}, geometry),))


def describe(images_by_class: Mapping[str, int]) -> str:
    return ", ".join(f"{n} with {label}" for label, n in sorted(images_by_class.items())) + " crossings"


RECIPE = Recipe(
    name=NAME,
    version=1,
    paper_images=1200,
    draw=draw,
    place=place,
    describe=describe,
    source="drawn by evalkit after Sec. 4.1.1 of arXiv 2511.12738, classes 0-2 with BlindTest's geometry",
)
