"""yes_no: the yes or no that a reply commits to."""

import re

from evalkit.parsers.marks import marks_in, without_code, without_emphasis
from evalkit.parsers.parsed import Parsed, answered, unparsed
from evalkit.parsers.reading import Text, read

_ANSWERS = {"yes": "yes", "yeah": "yes", "yep": "yes", "yup": "yes", "no": "no", "nope": "no"}
_WORD = r"(?P<word>yes|yeah|yep|yup|no|nope)\b"
_TAGS = re.compile(r"</?[A-Za-z][^<>]*>")
_PREFIX = r"[\s\"'(\[{>#*-]*+(?:(?:option )?[A-H][).:][\s\"'(\[{]*+)?"
# "No" opens an answer before punctuation or before the subject of a sentence; "No gap is visible" and
# "No doubt they meet" are about something else. "Yes or no" is no answer.
_AFTER_NO = (
    r"(?=\s*(?:$|[.,;:!)\]}\"'\n]|-\s)|\s+(?:it|they|there|the|this|these|that|those|we|i|not|because|since|as"
    r"|according|based|both)\b(?! (?:one|more|matter)))"
)
_AFTER_YES = r"(?!\s*(?:/|,?\s*(?:or|and) (?:also )?no\b))"
_NO_CHOICE = r"(?!\s*(?:/|,?\s*(?:or|and) (?:also )?yes\b))"
_OPENING = re.compile(
    rf"{_PREFIX}(?:(?P<yes>yes|yeah|yep|yup)\b{_AFTER_YES}|(?P<no>no|nope)\b{_NO_CHOICE}{_AFTER_NO})",
    re.IGNORECASE,
)
_CONCLUDING = re.compile(
    r"\b(?:so|therefore|thus|hence|conclude|conclusion|would say|think|believe|(?:answer|it) is)\b"
    r"[\s,:\"'-]{0,4}"
    rf"(?:it is |that is )?{_WORD}"
    r"(?=\s*(?:$|[.,;:!)\]}\"'\n]))",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])(?=\s|$)|\n+|;")
_JOINED = r"(?:connected|joined|linked|connect|connects|join|joins|link|links)"
_PATH = r"(?:path|line|curve|connection|edge|link|route|connecting line|connecting path)s?"
_DENIED = re.compile(
    rf"(?:\bnot|n't|\bnever|\bneither)\b(?: \w+){{0,3}}? {_JOINED}\b|\b(?:disconnected|unconnected)\b"
    rf"|(?:\bno|\bnot any|n't any|\bnot an?|n't an?|\bnot a single)(?: (?!doubt)\w+){{0,3}}? {_PATH}\b",
    re.IGNORECASE,
)
_AFFIRMED = re.compile(
    rf"\b(?:is|are|be|being)(?: (?:\w+ly|both|also|indeed|in fact)){{0,2}} {_JOINED}\b"
    rf"|\bthere(?: is|'s| are| exists)(?: \w+){{0,4}}? {_PATH}(?: \w+)?"
    r" (?:between|connecting|joining|linking|from|that)\b"
    rf"|\b{_PATH} (?:\w+ )?(?:connects|joins|links|leads|runs from|goes from)\b",
    re.IGNORECASE,
)
# Sentences that weigh or ask commit to nothing.
_OPEN = re.compile(
    r"\?|\b(?:whether|if|might|may|maybe|perhaps|could|possibl[ey]|unclear|uncertain|unsure"
    r"|not (?:sure|certain|clear)|cannot|can't|can not|unable|determine|hard to|difficult to)\b",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"\W*(?:and )?(?:so|therefore|thus|hence|in conclusion|overall|in summary|finally|actually)\b",
    re.IGNORECASE,
)


def yes_no(reply: str) -> Parsed:
    """ "yes" or "no". A last word marked as final wins, then the opening word, then a marked answer,
    then what the sentences state about a connection."""
    return read(reply, _yes_no)


def _yes_no(text: Text) -> Parsed:
    plain = without_emphasis(without_code(_TAGS.sub(" ", text.body))).strip()
    marks = [(mark, answer) for mark in marks_in(plain) if (answer := _opening(mark.content)) is not None]
    final = [answer for mark, answer in marks if mark.final]
    if final:
        return answered(final[-1])
    opening = None if text.cut else _opening(plain)
    if opening is not None:
        return answered(opening)
    if marks:
        return answered(marks[-1][1])
    if text.refusal:
        return unparsed("the reply is a refusal")
    return _stated(plain)


def _opening(text: str) -> str | None:
    found = _OPENING.match(text)
    if found is None:
        return None
    return "yes" if found["yes"] else "no"


def _stated(plain: str) -> Parsed:
    """The last conclusion; else the one answer that all committing sentences give."""
    sentences = [part for part in _SENTENCE_END.split(plain) if part.strip() and not _OPEN.search(part)]
    concluded = [match["word"] for part in sentences for match in _CONCLUDING.finditer(part)]
    if concluded:
        return answered(_ANSWERS[concluded[-1].lower()])
    said = [
        (part, answer) for part in sentences if (answer := _opening(part) or _connection(part)) is not None
    ]
    conclusions = [answer for part, answer in said if _CONCLUDES.match(part)]
    answers = {answer for _, answer in said}
    if conclusions:
        return answered(conclusions[-1])
    if len(answers) == 1:
        return answered(answers.pop())
    return unparsed("says both yes and no" if answers else "commits to neither yes nor no")


def _connection(sentence: str) -> str | None:
    """What a sentence states about two nodes: "no" before "yes", since "not connected" holds "connected"."""
    if _DENIED.search(sentence):
        return "no"
    return "yes" if _AFFIRMED.search(sentence) else None
