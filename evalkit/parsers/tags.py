"""Molmo's pointing tags, the only place where points stand in attributes.

<point x="42.0" y="27.0" alt="..">            Molmo, one point
<points x1="9.1" y1="11.7" x2=.. y2=.. ..>    Molmo, several; Qwen2.5-VL writes the same
<points coords="1 1 199 239 2 279 307">       Molmo2: a frame, then an index, x and y for each point;
                                              further frames follow after a tab, ";" or ","
"""

import re

from evalkit.parsers.choice import Found
from evalkit.parsers.coordinates import NUMBER

TAG = re.compile(r"<points?\b([^<>]*)(?:>|\Z)", re.IGNORECASE)
_XY = re.compile(rf"\b([xy])([0-9]{{0,4}})\s?=\s?[\"']?\s?({NUMBER})(?![0-9.])", re.IGNORECASE)
_COORDS = re.compile(r"\bcoords\s?=\s?[\"']([0-9.\s;,:-]*)[\"']", re.IGNORECASE)
_NUMBER = re.compile(NUMBER)


def tagged_points(text: str) -> list[Found]:
    """Every point of every complete tag, [x, y] as written."""
    found = []
    for tag in TAG.finditer(text):
        if not tag[0].endswith(">"):  # cut off
            continue
        coords = _COORDS.search(tag[1])
        points = _from_coords(coords[1]) if coords else _from_attributes(tag[1])
        found += [Found(tag.start(), tag.end(), point) for point in points]
    return found


def _from_attributes(attributes: str) -> list[list[float]]:
    """x and y by their index; an x without its y gives nothing."""
    axes: dict[str, dict[str, float]] = {"x": {}, "y": {}}
    for axis, index, value in _XY.findall(attributes):
        axes[axis.lower()].setdefault(index, float(value))
    return [[x, axes["y"][index]] for index, x in axes["x"].items() if index in axes["y"]]


def _from_coords(coords: str) -> list[list[float]]:
    """Nothing where any frame is not one number and then whole triples."""
    points: list[list[float]] = []
    for frame in re.split(r"[\t;,:\n]+", coords.strip()):
        values = [float(number) for number in _NUMBER.findall(frame)]
        if len(values) < 4 or len(values) % 3 != 1:
            return []
        points += [values[i + 1 : i + 3] for i in range(1, len(values), 3)]
    return points
