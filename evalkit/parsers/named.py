"""Coordinates that a text names: "x: 12, y: 7", "column 12, row 7", x1 .. y2, xmin .. ymax."""

import re

from evalkit.parsers.choice import Found
from evalkit.parsers.coordinates import NUMBER

_NUMBER = rf"(?P<value>{NUMBER})(?![0-9A-Za-z_]|\.[0-9])"
_SAYS = r"[\"']?\s?-?(?:coordinate|coord|index|number|value|position)?\s?(?:[:=]|is|of|at)?\s?[\"']?"
_AXIS = re.compile(
    rf"(?<![A-Za-z0-9_])(?:(?P<x>x|columns?|col)|(?P<y>y|rows?))(?![A-Za-z0-9_]){_SAYS}\s?{_NUMBER}",
    re.IGNORECASE,
)
_SIDE = re.compile(
    r"(?<![A-Za-z0-9])(?:(?P<x1>x_?min|x_?1|x_?0|left)|(?P<y1>y_?min|y_?1|y_?0|top)|(?P<x2>x_?max|x_?2|right)|(?P<y2>y_?max|y_?2|bottom))"
    rf"(?![A-Za-z0-9])[\"']?\s?[:=]\s?{_NUMBER}",
    re.IGNORECASE,
)
_EXTENT = re.compile(r"\b(?:width|height|w|h)\b[\"']?\s?[:=]\s?[0-9]", re.IGNORECASE)
_XYXY = ("x1", "y1", "x2", "y2")
# Farther apart, two names belong to different statements.
_NEAR = 60


def named_points(text: str) -> list[Found]:
    """[x, y] of each x (column) with its y (row) beside it, whichever is named first.

    A corner with a width and a height is a box, not a point.
    """
    names = list(_AXIS.finditer(text))
    found = []
    at = 0
    while at + 1 < len(names):
        first, second = names[at], names[at + 1]
        at += 1
        if bool(first["x"]) == bool(second["x"]) or second.start() - first.end() > _NEAR:
            continue
        x, y = (first, second) if first["x"] else (second, first)
        at += 1
        if not _EXTENT.search(text, second.end(), second.end() + _NEAR):
            found.append(Found(first.start(), second.end(), [float(x["value"]), float(y["value"])]))
    return found


def named_boxes(text: str) -> list[Found]:
    """Four named sides in a row, the axis that is named first standing first."""
    sides = list(_SIDE.finditer(text))
    found = []
    at = 0
    while at + 3 < len(sides):
        four = sides[at : at + 4]
        values = {name: float(side["value"]) for side in four for name in _XYXY if side[name]}
        if len(values) == 4 and four[3].start() - four[0].end() <= 4 * _NEAR:
            order = ("y1", "x1", "y2", "x2") if four[0]["y1"] or four[0]["y2"] else _XYXY
            found.append(Found(four[0].start(), four[3].end(), [values[name] for name in order]))
            at += 4
        else:
            at += 1
    return found
