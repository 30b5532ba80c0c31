"""What a parser hands back: an answer, or why there is none."""

from dataclasses import dataclass
from typing import Literal

from evalkit.records import Answer


@dataclass(frozen=True, slots=True)
class Parsed:
    """One reply, read.

    answer: int, "yes" | "no", [x, y] or [a, b, c, d]; None unless parsed.
    status: `blocked` means that the text is a refusal, `unparsed` that it commits to no one answer.
    reason: why there is no answer; None when parsed.
    """

    answer: Answer | None
    status: Literal["parsed", "unparsed", "blocked"]
    reason: str | None


def answered(answer: Answer) -> Parsed:
    return Parsed(answer, "parsed", None)


def unparsed(reason: str) -> Parsed:
    return Parsed(None, "unparsed", reason)


def blocked(reason: str) -> Parsed:
    return Parsed(None, "blocked", reason)
