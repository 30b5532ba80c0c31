"""Reply text -> a typed answer, or the reason why there is none. Pure: neither gold nor image is seen."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from evalkit.errors import ConfigError
from evalkit.parsers.box import box
from evalkit.parsers.integer import integer
from evalkit.parsers.parsed import Parsed
from evalkit.parsers.point import point
from evalkit.parsers.yes_no import yes_no

__all__ = ["PARSERS", "Parsed", "parse"]

PARSERS: Mapping[str, Callable[[str], Parsed]] = MappingProxyType(
    {"integer": integer, "yes_no": yes_no, "point": point, "box": box}
)


def parse(parser: str, reply: str) -> Parsed:
    """Read `reply` with the parser of that name."""
    if parser not in PARSERS:
        raise ConfigError(f"No parser named {parser!r}. Known parsers: {', '.join(PARSERS)}.")
    return PARSERS[parser](reply)
