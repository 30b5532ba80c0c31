"""integer: the one count that a reply commits to."""

import re

from evalkit.parsers.counting import KINDS, Claim, claim_of, lone_number
from evalkit.parsers.marks import Mark, emphasised, marks_in, without_code, without_emphasis
from evalkit.parsers.numerals import NUMBER, numbers_in, settle, whole
from evalkit.parsers.parsed import Parsed, answered, unparsed
from evalkit.parsers.reading import Text, read
from evalkit.parsers.refusal import is_refusal

_SEVERAL = "offers several numbers, or none that is whole"
_TAGS = re.compile(r"</?[A-Za-z][^<>]*>|<points?\b[^<>]*\Z")
_OPTION = re.compile(
    r"^[\s\"']*(?:(?:option|choice)\s)?[(\[]?[A-H](?:[)\]]|[.:](?=\s))[\s:]*(?=\S)", re.IGNORECASE
)
_UNCLOSED = re.compile(r"(?:\\boxed\s?)?\{[^{}\n]{0,200}\Z")
_LABELLED = re.compile(rf"\b([A-Za-z]\w{{0,30}})\s?=\s?\{{?{NUMBER}\}}?", re.IGNORECASE)
_ABOUT = r"(?:only|just|exactly|about|approximately|around|roughly|probably|simply|therefore|:|=|~)"
_LEADING = re.compile(
    rf"(?:not {NUMBER},? but )?(?:{_ABOUT}\s*){{0,3}}[\"'({{\[$]*(?P<number>{NUMBER})", re.IGNORECASE
)
_BRIEF = re.compile(
    rf"{_ABOUT}?\s?\$?(?P<number>{NUMBER})%?:?"
    r"(?:\s(?!lines?\b|curves?\b|segments?\b|or\b|and\b|to\b)[A-Za-z²³.-]+){0,3}\W*",
    re.IGNORECASE,
)
_BRIEF_WORDS = {
    "none": 0,
    "never": 0,
    "zero times": 0,
    "once": 1,
    "only once": 1,
    "just once": 1,
    "exactly once": 1,
}
_BRIEF_WORDS |= {"twice": 2, "exactly twice": 2, "thrice": 3}
_SENTENCE_END = re.compile(
    r"(?<!\be\.g)(?<!\bi\.e)[.!?](?=\s|$|[A-Z])|\n+|;|:(?=\s)(?!\s*\S{1,12}\W*(?:\n|$))"
    r"|\s-{1,2}\s(?![0-9$])|(?<![0-9])\s-{1,2}\s"
)
_BULLET = re.compile(r"\s*(?:[*+•-]|[0-9]{1,3}[.)])\s")
# Prose with more sentences than this is read at its beginning and end only.
_HEAD_SENTENCES, _TAIL_SENTENCES = 40, 60


def integer(reply: str) -> Parsed:
    """A whole number. What is marked as the answer wins, the last of several marks; then a conclusion;
    then the first statement of a count; then the only number of a short reply."""
    return read(reply, _integer)


def _integer(text: Text) -> Parsed:
    raw = without_code(_TAGS.sub(" ", text.body))
    plain = _UNCLOSED.sub("", without_emphasis(raw).strip())
    labels = {match[1].lower() for match in _LABELLED.finditer(plain)}
    if len(labels) > 1 and not re.search(r"\\boxed|answer", plain, re.IGNORECASE):
        return unparsed(f"numbers for {', '.join(sorted(labels)[:4])}: which one is the answer is not said")
    if len(labels) == 1 and (only := _LABELLED.fullmatch(plain)):
        return _verdict(whole(numbers_in(only[0])[-1]))
    brief = _brief(_OPTION.sub("", plain))
    if brief is not None:
        return brief
    for mark in reversed(marks_in(plain)):
        marked = _marked(mark)
        if marked is not None:
            return marked
    return _stated(raw, plain, text)


def _verdict(value: int | None) -> Parsed:
    return unparsed(_SEVERAL) if value is None else answered(value)


def _brief(text: str) -> Parsed | None:
    """A reply that is a number and at most three words: "3 times.", "six", "none"."""
    word = text.strip(" .!\n\"'").lower()
    if word in _BRIEF_WORDS:
        return answered(_BRIEF_WORDS[word])
    found = _BRIEF.fullmatch(settle(text))
    return _verdict(whole(found["number"])) if found else None


def _marked(mark: Mark) -> Parsed | None:
    """The number of a marked answer; None where the mark holds no number and may mean something else."""
    content = _OPTION.sub("", mark.content.strip()).strip()
    brief = _brief(content)
    if brief is not None:
        return brief
    settled = settle(content)
    if mark.closed:
        if re.search("[0-9]", content) or mark.final:
            return unparsed(f"the marked answer {content[:40]!r} is no whole number")
        return None
    sentence = next((part for part in _sentences(settled)), "")
    leading = _LEADING.match(settled)
    if leading:
        return _verdict(whole(leading["number"]))
    claim = claim_of(sentence)
    if claim is not None:
        return _verdict(claim.value)
    if len(sentence.split()) <= 3 and not marks_in(content):
        return unparsed(f"the marked answer {content[:40]!r} is no whole number")
    return None


def _sentences(text: str) -> list[str]:
    parts = [part for part in _SENTENCE_END.split(text) if part.strip()]
    if len(parts) > _HEAD_SENTENCES + _TAIL_SENTENCES:
        parts = parts[:_HEAD_SENTENCES] + parts[-_TAIL_SENTENCES:]
    return parts


def _stated(raw: str, plain: str, text: Text) -> Parsed:
    """The count that prose states: its conclusion, else what it says first or in bold."""
    lines = [line for line in plain.split("\n") if not _BULLET.match(line)]
    sentences = _sentences("\n".join(lines) or plain)
    claims = [claim for part in sentences if not is_refusal(part) and (claim := claim_of(part)) is not None]
    if text.refusal:  # what a refusal mentions in passing is no answer
        claims = [claim for claim in claims if claim.kind != "mention"]
    chosen = _chosen(claims, [] if text.cut else emphasised(raw), text.cut)
    if chosen is not None:
        return _verdict(chosen.value)
    if text.cut:
        return unparsed("no number is marked as the answer")
    lone = lone_number(settle(sentences[0])) if len(sentences) == 1 and not text.refusal else None
    if lone is not None:
        return _verdict(whole(lone))
    return unparsed("no count is stated" if numbers_in(plain) else "no number")


def _chosen(claims: list[Claim], bold: list[str], cut: bool) -> Claim | None:
    """A conclusion over a statement about crossings over bold over "there are" over other statements.

    Of crossings and "there are" the first is the headline, what follows its detail. Other statements
    have no such order: where they differ, and the last does not repeat the first, none is the answer.
    """
    conclusions = [claim for claim in claims if claim.conclusion]
    if conclusions:
        return conclusions[-1]
    if cut:  # the first statement that is left need not be the first that was made
        return None
    by_kind = {kind: [claim for claim in claims if claim.kind == kind] for kind in KINDS}
    if by_kind["crossing"]:
        return by_kind["crossing"][0]
    emphatic = [match for text in bold if (match := _BRIEF.fullmatch(settle(text.strip())))]
    if emphatic:
        return Claim("count", whole(emphatic[-1]["number"]), conclusion=False)
    stated = [claim for claim in claims if claim.kind in ("count", "value")]
    if stated and stated[0].value == stated[-1].value:
        return stated[0]
    if by_kind["count"]:
        return by_kind["count"][0]
    others = stated or by_kind["mention"]
    if len({claim.value for claim in others}) > 1:
        return Claim("value", None, conclusion=False)
    return others[0] if others else None
