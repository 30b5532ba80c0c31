"""What a parser says: an answer, or why there is none."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Parsed:
    """status `parsed` has an answer and no reason; `unparsed` and `blocked` (a refusal) the reverse.

    Coordinates are as the text has them: frame and axis order are for the caller to know.
    """

    answer: int | str | list[float] | None
    status: Literal["parsed", "unparsed", "blocked"]
    reason: str | None


def found(answer: int | str | list[float]) -> Parsed:
    return Parsed(answer, "parsed", None)


def nothing(reason: str) -> Parsed:
    return Parsed(None, "unparsed", reason)
