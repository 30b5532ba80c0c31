"""point: the one place that a reply points to."""

from evalkit.parsers.choice import Found, bare, counted, one_of
from evalkit.parsers.coordinates import Group, groups_in, numbers, rows
from evalkit.parsers.named import named_points
from evalkit.parsers.parsed import Parsed, unparsed
from evalkit.parsers.reading import Text, read
from evalkit.parsers.tags import TAG, tagged_points


def point(reply: str) -> Parsed:
    """[x, y] as written, in the reply's own frame and order; a box is no point."""
    return read(reply, _point)


def _point(text: Text) -> Parsed:
    prose = TAG.sub(lambda tag: " " * len(tag[0]), text.body)  # keeps every position
    groups = groups_in(prose)
    found = tagged_points(text.body) + _listed(groups) + named_points(prose)
    found = found or bare(prose, 2)
    parsed = one_of(text.body, found, "point", "points")
    lengths = [len(flat) for group in groups if (flat := numbers(group.values))]
    if lengths and not found and parsed.reason == "no point":
        return unparsed(f"no point, but a list of {counted(lengths[0], 'number')}")
    return parsed


def _listed(groups: list[Group]) -> list[Found]:
    """All pairs in lists."""
    listed = []
    for group in groups:
        flat = numbers(group.values)
        pairs = [flat] if flat is not None else list(rows(group.values))
        listed += [Found(group.start, group.end, pair) for pair in pairs if len(pair) == 2]
    return listed
