"""One place out of those that a reply gives: the marked one, else the only one."""

import re
from dataclasses import dataclass

from evalkit.parsers.coordinates import NUMBER
from evalkit.parsers.parsed import Parsed, answered, unparsed


@dataclass(frozen=True, slots=True)
class Found:
    """A point or box in `text[start:end]`, in the order and frame of the text."""

    start: int
    end: int
    values: list[float]


_MARK = re.compile(
    r"\b(?:answer|output|result|solution)\b[\"'*]*"
    r"(?:\s?[:=]|\s(?:is|are|should be|would be|must be)(?!\snot\b|n't))[\s:*\"']*"
    r"|\\boxed\s?(?=\{)|####",
    re.IGNORECASE,
)
_REJECTED_AFTER = re.compile(r"[\s\"'`*.,]{0,4}(?:is|are|was|were|does|do)(?:\snot\b|n't\b)", re.IGNORECASE)
_REJECTED_BEFORE = re.compile(
    r"\b(?:not|isn't|rather than|instead of)\s{1,2}(?:at\s|in\s)?[*\"'`]{0,3}$", re.IGNORECASE
)
_NOTHING = re.compile(
    r"[\s:*\"'`]*(?:(?:json)?\s*[\[(]\s*[\])]|none\b|nothing\b|not\b|no\b|null\b|n/a\b)", re.IGNORECASE
)


def one_of(text: str, places: list[Found], noun: str, plural: str) -> Parsed:
    """The one place that `text` commits to. places: all that are in the text, in any order.

    The last stretch that is marked as the answer decides where it holds a place or says there is
    none. Otherwise all that is said counts, and several different places are no answer.
    """
    standing = [found for found in places if not _rejected(text, found)]
    for mark in reversed(list(_MARK.finditer(text))):
        marked = [found for found in standing if found.start >= mark.end() - 1]
        if _NOTHING.match(text, mark.end()):
            return unparsed(f"the marked answer holds no {noun}")
        if marked:
            return _only(_next_line(text, mark.end(), marked), noun, plural)
    return _only(standing, noun, plural)


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def bare(text: str, count: int) -> list[Found]:
    """`count` numbers without brackets, where they are the whole text or follow a mark: "12, 7"."""
    starts = [0, *(mark.end() for mark in _MARK.finditer(text))]
    pattern = re.compile(
        rf"[\s*`\"']*{'(?:[ ]*[,;][ ]*|[ ]+)'.join([rf'({NUMBER})'] * count)}[\s*`\"'.]*(?:\n|\Z)"
    )
    matches = [match for start in starts if (match := pattern.match(text, start))]
    return [
        Found(match.start(1), match.end(), [float(value) for value in match.groups()]) for match in matches
    ]


def _rejected(text: str, found: Found) -> bool:
    """ "(1, 2) is not the answer", "not (1, 2) but ..." """
    before = text[max(0, found.start - 30) : found.start]
    return bool(_REJECTED_AFTER.match(text, found.end) or _REJECTED_BEFORE.search(before))


def _next_line(text: str, start: int, marked: list[Found]) -> list[Found]:
    """What stands on the line of the mark, where a place stands there; else all after the mark."""
    end = text.find("\n", start)
    same_line = [found for found in marked if end < 0 or found.end <= end]
    return same_line or marked


def _only(places: list[Found], noun: str, plural: str) -> Parsed:
    distinct: list[list[float]] = []
    for found in places:
        if found.values not in distinct:
            distinct.append(found.values)
            if len(distinct) > 200:
                break
    if not distinct:
        return unparsed(f"no {noun}")
    if len(distinct) > 1:
        count = "more than 200" if len(distinct) > 200 else str(len(distinct))
        return unparsed(f"{count} different {plural} where one was asked")
    return answered(distinct[0])
