"""Reply text -> a typed answer, or the reason why there is none. Pure functions of the text alone."""

from collections.abc import Callable, Mapping

from evalkit.parsers.coordinates import box, point
from evalkit.parsers.integer import integer
from evalkit.parsers.result import Parsed
from evalkit.parsers.yes_no import yes_no

PARSERS: Mapping[str, Callable[[str], Parsed]] = {
    "integer": integer,
    "yes_no": yes_no,
    "point": point,
    "box": box,
}


def parse(parser: str, reply: str) -> Parsed:
    """Read `reply` with the parser of that name (a key of PARSERS)."""
    return PARSERS[parser](reply)


__all__ = ["PARSERS", "Parsed", "parse"]
