"""The capital letters A to G as strokes, so that labels do not depend on an installed font.

Each letter is a list of polygonal curves in a box one unit high, y down, (0, 0) the middle of the
letter; its width is about 0.7.
"""

from math import cos, pi, sin

from evalkit.datasets.planar import Curve, Point

LETTERS = "ABCDEFG"


def _arc(cx: float, cy: float, rx: float, ry: float, start: int, stop: int) -> list[Point]:
    """Points of an ellipse from `start` to `stop` degrees, clockwise from three o'clock, every 12 degrees."""
    steps = max(2, abs(stop - start) // 12)
    angles = [(start + (stop - start) * i / steps) * pi / 180 for i in range(steps + 1)]
    # Rounded, so that the last bit of a platform's cosine cannot reach a pixel.
    return [(round(cx + rx * cos(a), 4), round(cy + ry * sin(a), 4)) for a in angles]


def _strokes(letter: str) -> list[Curve]:
    left, right, top, bottom = -0.3, 0.3, -0.5, 0.5
    match letter:
        case "A":
            return [[(-0.37, bottom), (0.0, top), (0.37, bottom)], [(-0.24, 0.16), (0.24, 0.16)]]
        case "B":
            upper = [(left, top), *_arc(0.02, -0.26, 0.24, 0.24, -90, 90), (left, -0.02)]
            lower = [(left, -0.02), *_arc(0.05, 0.24, 0.27, 0.26, -90, 90), (left, bottom)]
            return [upper, lower, [(left, top), (left, bottom)]]
        case "C":
            return [_arc(0.03, 0.0, 0.38, 0.5, -45, -315)]
        case "D":
            return [[(left, top), *_arc(-0.08, 0.0, 0.42, 0.5, -90, 90), (left, bottom), (left, top)]]
        case "E":
            return [
                [(right, top), (left, top), (left, bottom), (right, bottom)],
                [(left, -0.02), (0.2, -0.02)],
            ]
        case "F":
            return [[(right, top), (left, top), (left, bottom)], [(left, 0.0), (0.2, 0.0)]]
        case "G":
            return [[*_arc(0.0, 0.0, 0.38, 0.5, -45, -360), (0.38, 0.06), (0.08, 0.06)]]
    raise ValueError(f"No glyph for {letter!r}.")


def glyph(letter: str, center: Point, height: float) -> list[Curve]:
    """The strokes of a letter, `height` px high, its middle at `center`."""
    x, y = center
    return [[(x + height * px, y + height * py) for px, py in curve] for curve in _strokes(letter)]
