"""`yes_no`: the opening word, else a marked answer, else a plain statement of connection."""

import re

from evalkit.parsers.result import Parsed, found, nothing
from evalkit.parsers.text import clean, is_refusal, sentences

_OPENING = re.compile(
    r"^[\W_]*(yes|no|yeah|yep|nope)\b(?!\s*(?:/|or\b|and\s+(?:yes|no)\b|one\b|matter\b|idea\b|nodes?\b|lines?\b|path\b))",
    re.I,
)
_EITHER = re.compile(r"\byes\s*(?:/|or|and)\s*no\b|\bno\s*(?:/|or|and)\s*yes\b", re.I)
_MARKED = re.compile(
    r"(?:\banswers?\b(?:\s+to (?:the|this|your) question)?\s*(?:is|would be|should be|:|=)+\s*:?"
    r"|\btherefore,?|\bso,?|\bthus,?|\bboxed|####)"
    r"[\s*_`\"'({\[]*(yes|no)\b",
    re.I,
)
_WORD = re.compile(r"\b(yes|no)\b(?=\s*(?:[.,;:!*)}\]\"']|$))", re.I)
_NEGATIVE = re.compile(
    r"\b(?:is|are|was|were|does|do)(?:\s+not|n't)\s+(?:\w+\s+){0,2}?(?:connect|link|join|attach)\w*"
    r"|\bnot\s+(?:\w+\s+){0,2}?(?:connected|linked|joined)\b|\b(?:dis|un)connected\b"
    r"|\b(?:is|are|exists?)\s+no\s+(?:\w+\s+){0,2}?(?:connection|line|path|edge|link|curve)\b"
    r"|\bno\s+(?:direct\s+)?(?:connection|line|path|edge|link|curve)\b",
    re.I,
)
_POSITIVE = re.compile(
    r"\b(?:is|are)\s+(?:\w+\s+){0,2}?(?:connected|linked|joined)\b|\bconnects\b"
    r"|\bthere\s+(?:is|exists)\s+a\s+(?:\w+\s+){0,2}?(?:connection|line|path|edge|link|curve)\b",
    re.I,
)


def yes_no(reply: str) -> Parsed:
    """ "yes" or "no", or why there is neither."""
    text = clean(reply)
    if not text:
        return nothing("empty")
    if (opening := _OPENING.match(text)) is not None:
        return found("no" if opening[1].lower() in ("no", "nope") else "yes")
    if (marked := _MARKED.findall(text)) and not _EITHER.search(text[-200:]):
        return found(marked[-1].lower())
    if _EITHER.search(text):
        return nothing("says yes and no")
    words = {word.lower() for word in _WORD.findall(text)}
    if len(words) == 1:
        return found(words.pop())
    if len(words) == 2:
        return nothing("says yes and no")
    if is_refusal(text):
        return Parsed(None, "blocked", "a refusal")
    return _statement(text)


def _statement(text: str) -> Parsed:
    for sentence in sentences(text):
        if _NEGATIVE.search(sentence):
            return found("no")
        if _POSITIVE.search(sentence) and not re.search(
            r"\b(?:whether|if|may|might|could)\b", sentence, re.I
        ):
            return found("yes")
    return nothing("neither yes nor no")
