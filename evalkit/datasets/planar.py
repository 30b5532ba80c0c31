"""Plane geometry of polygonal curves: crossings, distances, angles. Pure Python, points are (x, y).

Only + - * / and square roots enter, so that the same input gives the same bits on every platform.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import inf, sqrt

Point = tuple[float, float]
Curve = Sequence[Point]  # the vertices, in order


def distance(p: Point, q: Point) -> float:
    return sqrt((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2)


def point_to_segment(p: Point, a: Point, b: Point) -> float:
    """Euclidean distance of p to the segment ab."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length2 = dx * dx + dy * dy
    t = 0.0 if length2 == 0 else ((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / length2
    t = 0.0 if t < 0 else 1.0 if t > 1 else t
    return distance(p, (a[0] + t * dx, a[1] + t * dy))


def point_to_curve(p: Point, curve: Curve) -> float:
    return min(point_to_segment(p, a, b) for a, b in pairwise(curve))


def crossing(a: Point, b: Point, c: Point, d: Point) -> Point | None:
    """Where segments ab and cd cross; None when they do not, also when they are parallel."""
    rx, ry, sx, sy = b[0] - a[0], b[1] - a[1], d[0] - c[0], d[1] - c[1]
    denominator = rx * sy - ry * sx
    if denominator == 0:
        return None
    t = ((c[0] - a[0]) * sy - (c[1] - a[1]) * sx) / denominator
    u = ((c[0] - a[0]) * ry - (c[1] - a[1]) * rx) / denominator
    if 0 <= t <= 1 and 0 <= u <= 1:
        return a[0] + t * rx, a[1] + t * ry
    return None


def segments_apart(a: Point, b: Point, c: Point, d: Point) -> float:
    """Distance of two segments that do not cross: an end of one is always the nearest."""
    return min(
        point_to_segment(a, c, d),
        point_to_segment(b, c, d),
        point_to_segment(c, a, b),
        point_to_segment(d, a, b),
    )


def sin2_between(a: Point, b: Point, c: Point, d: Point) -> float:
    """Squared sine of the angle between the lines ab and cd: 0 parallel, 1 perpendicular."""
    rx, ry, sx, sy = b[0] - a[0], b[1] - a[1], d[0] - c[0], d[1] - c[1]
    cross = rx * sy - ry * sx
    return cross * cross / ((rx * rx + ry * ry) * (sx * sx + sy * sy))


def cos_turn(a: Point, b: Point, c: Point) -> float:
    """Cosine of the interior angle at b: -1 straight on, 0 a right angle, 1 straight back."""
    ux, uy, vx, vy = a[0] - b[0], a[1] - b[1], c[0] - b[0], c[1] - b[1]
    return (ux * vx + uy * vy) / sqrt((ux * ux + uy * uy) * (vx * vx + vy * vy))


class Unclear(Exception):
    """A drawing that would be hard to read; the builder draws again."""


def clear_crossings(
    one: Curve, two: Curve, *, from_knots: float, from_each_other: float, sin2_angle: float, apart: float
) -> list[Point]:
    """The crossings of two curves, in the order of `one`, if all of them can be read.

    from_knots       least distance of a crossing to any vertex of either curve
    from_each_other  least distance of two crossings
    sin2_angle       least squared sine of the angle at a crossing
    apart            least distance of every vertex to the other curve, hence of any two segments
                     that do not cross
    Raises Unclear where one of these does not hold.
    """
    found: list[Point] = []
    for a, b in pairwise(one):
        here: list[Point] = []
        for c, d in pairwise(two):
            if segments_apart(a, b, c, d) < apart:
                raise Unclear
            point = crossing(a, b, c, d)
            if point is None:
                continue
            if min(distance(point, knot) for knot in (a, b, c, d)) < from_knots:
                raise Unclear
            if sin2_between(a, b, c, d) < sin2_angle:
                raise Unclear
            here.append(point)
        found += sorted(here, key=lambda p, start=a: distance(p, start))  # type: ignore[misc]
    nearest = min((distance(p, q) for i, p in enumerate(found) for q in found[:i]), default=inf)
    if nearest < from_each_other:
        raise Unclear
    return found
