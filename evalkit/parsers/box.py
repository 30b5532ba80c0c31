"""box: the one box that a reply gives."""

import re

from evalkit.parsers.choice import Found, bare, counted, one_of
from evalkit.parsers.coordinates import Group, groups_in, numbers, rows
from evalkit.parsers.named import named_boxes
from evalkit.parsers.parsed import Parsed, unparsed
from evalkit.parsers.reading import Text, read

# Two corners in a row: "(1, 2), (3, 4)", "(1, 2) to (3, 4)", "(1, 2) and bottom-right (3, 4)".
_BETWEEN = re.compile(
    r"[ \t]*(?:,\s*|;\s*)?(?:(?:to|and|through|->|-)\s*)?"
    r"(?:(?:the\s)?(?:bottom|lower)[- ]right(?:\scorner)?\s*(?:is|at|:|=)?\s*(?:at\s)?)?",
    re.IGNORECASE,
)


def box(reply: str) -> Parsed:
    """[a, b, c, d] as written, in the reply's own frame and order; corner points become min and max."""
    return read(reply, _box)


def _box(text: Text) -> Parsed:
    groups = groups_in(text.body)
    found = _listed(text.body, groups) + named_boxes(text.body)
    found = found or bare(text.body, 4) or _bare_corners(text.body)
    parsed = one_of(text.body, found, "box", "boxes")
    lists = [group.values for group in groups if group.values]
    if lists and not found and parsed.reason == "no box":
        what = counted(len(lists[0]), "number" if numbers(lists[0]) else "list")
        return unparsed(f"no box, but a list of {what}")
    return parsed


def _listed(text: str, groups: list[Group]) -> list[Found]:
    """All boxes in lists, and in runs of two or four pairs."""
    found: list[Found] = []
    at = 0
    while at < len(groups):
        run = _run(text, groups, at)
        corners = [pair for group in run if (pair := numbers(group.values)) is not None]
        values = _from_corners(corners, any(group.quad for group in run)) if len(run) > 1 else None
        if values is not None:
            found.append(Found(run[0].start, run[-1].end, values))
        elif len(run) == 1:
            found += [Found(run[0].start, run[0].end, box) for box in _from_group(run[0])]
        at += len(run)
    return found


def _bare_corners(text: str) -> list[Found]:
    flats = [(found, [found.values[i : i + 2] for i in range(0, 8, 2)]) for found in bare(text, 8)]
    boxes = [(found, _from_corners(corners, quad=False)) for found, corners in flats]
    return [Found(found.start, found.end, values) for found, values in boxes if values is not None]


def _run(text: str, groups: list[Group], at: int) -> list[Group]:
    """groups[at] and the pairs that follow it directly, if it is a pair; else it alone."""
    run = [groups[at]]
    while _is_pair(run[-1]) and at + len(run) < len(groups):
        following = groups[at + len(run)]
        if not _is_pair(following) or not _BETWEEN.fullmatch(text, run[-1].end, following.start):
            break
        run.append(following)
    return run


def _is_pair(group: Group) -> bool:
    return len(group.values) == 2 and numbers(group.values) is not None


def _from_group(group: Group) -> list[list[float]]:
    """The boxes of one list: four numbers, corners, or several of these."""
    flat = numbers(group.values)
    if flat is not None:
        if len(flat) == 8:
            rectangle = _from_corners([flat[i : i + 2] for i in range(0, 8, 2)], group.quad)
            return [] if rectangle is None else [rectangle]
        return [flat] if len(flat) == 4 else []
    members = list(rows(group.values))
    if members and all(len(member) == 2 for member in members):
        corners = _from_corners(members, group.quad)
        return [] if corners is None else [corners]
    return [member for member in members if len(member) == 4]


def _from_corners(corners: list[list[float]], quad: bool) -> list[float] | None:
    """Two opposite corners, or four: the extent along each axis. None for any other polygon.

    Four points are a box only where they are an axis-aligned rectangle, or marked as a quad.
    """
    if len(corners) not in (2, 4):
        return None
    first, second = zip(*corners, strict=True)
    if len(corners) == 4 and not quad:
        ends = {(a, b) for a in (min(first), max(first)) for b in (min(second), max(second))}
        if {tuple(corner) for corner in corners} != ends or len(ends) < 4:
            return None
    return [min(first), min(second), max(first), max(second)]
