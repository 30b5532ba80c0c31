"""Statements of a count in prose: "they cross twice", "there are 3 squares", "do not intersect"."""

import re
from dataclasses import dataclass
from typing import Literal

from evalkit.parsers.numerals import BOUND, NO_ONE_NUMBER, NUMBER, numbers_in, settle, whole

# The strength of a statement. A crossing is what the tasks count; then "there are 3", "a total of 3";
# then "is 3"; a mention is any other number that a verb holds.
Kind = Literal["crossing", "count", "value", "mention"]
KINDS: tuple[Kind, ...] = ("crossing", "count", "value", "mention")


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of a count. value: None where the statement offers no single whole number."""

    kind: Kind
    value: int | None
    conclusion: bool  # it begins with "so", "therefore", "in total", ...


_CROSS = r"(?:intersect|cross|touch|meet|met|overlap|contact|collid|coincid)"
_NOT = r"(?:\bnot\b|\bnever\b|n't\b|\bcannot\b|\bwithout\b|\bneither\b)"
# Between a "not" and its verb these turn the sentence into something else than a count of zero.
_UNKNOWING = (
    r"\b(?:only|just|clear|sure|certain|possible|know|visible|see|tell|determin\w+|able|count|give|provide"
    r"|state|say|enough|whether|if|many|often|obvious)\b"
)
_AGAIN = r"again|elsewhere|otherwise|(?<!each )other|further|additional|else|more|twice|thrice"
_FURTHER = rf"(?:\b(?:{_AGAIN})\b|[0-9{BOUND}])"
_NOT_CROSSING = re.compile(
    rf"{_NOT}(?:(?!{_UNKNOWING})[^.;]){{0,40}}?"
    rf"\b(?:{_CROSS}\w*|shar\w+ (?:a|any|one)\b|ha(?:ve|s) (?:a|any)\b[^.;]{{0,20}}\bpoint)"
    rf"(?![^.;]{{0,40}}?{_FURTHER})"
    rf"|\bnon-?{_CROSS}ing\b",
    re.IGNORECASE,
)
_NONE = re.compile(
    rf"(?:\bno|\bwithout any|(?:n't|\bnot)(?: have)? any)\s+(?!{_FURTHER}|clear|doubt|way|idea)"
    rf"(?:[a-z]+\s){{0,3}}?(?:{_CROSS}\w*|points?\b)"
    r"|\bnone\b(?! of the (?:above|options|answers|choices))",
    re.IGNORECASE,
)
_PLACES = r"(?:points?|places?|locations?|spots?|positions?|times?|occasions?)"
_QUALIFIED = r"(?:\s+(?!and\b|or\b)[a-z-]+){0,2}?"
_CROSSING_COUNT = re.compile(
    # "intersect at 2 points", "meet at a single point", "cross exactly once"
    rf"\b{_CROSS}\w*\b(?:(?!\b{_CROSS})[^.;]){{0,60}}?"
    rf"(?:(?<!\w)(?P<after>{NUMBER}){_QUALIFIED}\s+(?:{_PLACES}|intersections?|crossings?)\b"
    r"|\ba (?P<single>single)\b|\b(?P<word>once|twice|thrice)\b)"
    # "3 intersections", "3 crossing points", "3 points where they meet"
    rf"|(?P<before>{NUMBER}){_QUALIFIED}\s+"
    rf"(?:{_CROSS}(?:ions?|ings?)\b|{_CROSS}\w* {_PLACES}|{_PLACES}\b(?=[^.;]{{0,60}}\b{_CROSS}))"
    # "intersections: 3"
    rf"|\b{_CROSS}(?:ions?|ings?)?(?: points?| count)?\s?[:=]\s*(?P<stated>{NUMBER})",
    re.IGNORECASE,
)
_ABOUT_CROSSING = re.compile(rf"\b(?:non-?)?{_CROSS}|\b(?:none|points?|shar\w+)\b", re.IGNORECASE)
_TIMES = {"once": 1, "twice": 2, "thrice": 3}
_ONCE_MORE = re.compile(
    rf"\bonce\b(?:(?!{_NOT}|\bno\b).){{0,200}}?\b(?:once|again|another|second)\b", re.IGNORECASE | re.DOTALL
)
_DENIED_COUNT = re.compile(rf"{_NOT}(?P<between>[^,;]{{0,30}})$", re.IGNORECASE)

# What the question is about is not what it counts: "two lines", "a blue and a red curve".
_COUNTABLE = (
    r"(?!\s+(?:(?!(?:in|of|on|at|that|where|between|with|without|and|or)\b)[a-z-]+,?\s+){0,4}?"
    r"(?:lines?|curves?|segments?|paths?|polylines?|colou?rs?)\b)"
)
_HOW = (
    r"(?:(?:a total of|total of|only|just|exactly|precisely|about|around|approximately|roughly|currently|also"
    r"|a|the|at|=|:)\s+){0,3}"
)
_HELD = rf"[\s:]\s*{_HOW}[$(~]*(?P<number>{NUMBER}){_COUNTABLE}"
_COUNT = re.compile(
    r"\b(?:there(?:'s| is| are| was| were|'re)|totals?|total of|count(?:ed)?|find|found|remain)"
    rf"{_HELD}|\b(?!one\b)(?P<part>{NUMBER}) of (?:the|these|those|them|whom)\b{_COUNTABLE}",
    re.IGNORECASE,
)
_VALUE = re.compile(
    rf"(?:\b(?:is|are|was|were|be|equals?|get|got)|=){_HELD}|[:=]\s*(?P<part>{NUMBER})\W*$",
    re.IGNORECASE,
)
_MENTION = re.compile(
    r"\b(?:has|have|had|shows?|sees?|saw|contains?|includes?|gets?|needs?|spends?|takes?|makes?|uses?|into)"
    rf"(?P<part>){_HELD}",
    re.IGNORECASE,
)
_STATEMENTS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("count", _COUNT),
    ("value", _VALUE),
    ("mention", _MENTION),
)
_LONE = re.compile(NUMBER + _COUNTABLE, re.IGNORECASE)
_CONCLUDES = re.compile(
    r"\W*(?:and )?(?:so|therefore|thus|hence|in conclusion|overall|in summary|to sum up|finally|in total"
    r"|total|altogether|actually|wait|correction|on second thought|looking again)\b",
    re.IGNORECASE,
)


def claim_of(sentence: str) -> Claim | None:
    """What one sentence states, if it states a count."""
    settled = settle(sentence)
    concludes = _CONCLUDES.match(sentence) is not None
    found = _crossing(settled)
    if found is not None:
        return Claim("crossing", found if isinstance(found, int) else whole(found), concludes)
    for kind, pattern in _STATEMENTS:
        if match := pattern.search(settled):
            return Claim(kind, whole(match["number"] or match["part"]), concludes)
    lone = lone_number(settled) if concludes else None
    return Claim("mention", whole(lone), concludes) if lone else None


def lone_number(settled: str) -> str | None:
    """The only number of a text, if it is in digits and counts no lines: "two lines" says nothing."""
    found = numbers_in(settled)
    if len(found) != 1 or found[0][0].isalpha():
        return None
    return found[0] if _LONE.search(settled) else None


def _crossing(sentence: str) -> str | int | None:
    """A count of crossings: a number token, or a value said in other words."""
    if not _ABOUT_CROSSING.search(sentence):
        return None
    denial = _NOT_CROSSING.search(sentence) or _NONE.search(sentence)
    count = _CROSSING_COUNT.search(sentence)
    if count is None:
        return 0 if denial else None
    value: str | int | None
    if count["word"]:
        value = None if _ONCE_MORE.search(sentence) else _TIMES[count["word"].lower()]
    else:
        value = 1 if count["single"] else count["after"] or count["before"] or count["stated"]
    if denied := _DENIED_COUNT.search(sentence, 0, count.start()):
        # "do not cross even once" is zero; "do not cross 3 times", "do not only cross once" state no number
        zero = value in (1, "one") and not re.search(_UNKNOWING, denied["between"])
        return 0 if zero else NO_ONE_NUMBER
    return value
