"""Whole numbers in running text: digits, words, and what only looks like one number."""

import re

_UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {
    "zero": 0,
    **{word: i for i, word in enumerate(_UNITS, 1)},
    **{word: i for i, word in enumerate(_TEENS, 10)},
    **{word: i for i, word in enumerate(_TENS, 2)},
}

# What stands beside a number and makes it part of something else: letters, superscripts, fractions.
_PART = "A-Za-z0-9_²³¹⁰⁴-⁹½¼¾⅓⅔"
_DIGITS = (
    rf"(?<![{_PART}])(?<![0-9][.,/])(?:(?<![^\s(\[{{=:*$\"'])-)?"
    r"(?:[0-9]{1,3}(?:,[0-9]{3})++|[0-9]++)(?:\.[0-9]++)?+"
    rf"(?![{_PART}]|-[A-Za-z]|/[0-9]|,[0-9]|\.[0-9]| [0-9]++/[0-9])"
)
_WORD = (
    rf"(?<![{_PART}])(?<![A-Za-z]-)(?:(?:{'|'.join(_TENS)})(?:[- ](?:{'|'.join(_UNITS)}))?"
    rf"|{'|'.join(_TEENS)}|{'|'.join(_UNITS)}|zero)(?![{_PART}]|-[A-Za-z])"
)

# Stands where a text offers several numbers for one, or a number that is not whole; no reply contains
# it, as control characters are cleaned away before.
NO_ONE_NUMBER = "\x01"
BOUND = "\x02"  # stands for "more than 3"
NUMBER = rf"(?:{_DIGITS}|{_WORD}|{NO_ONE_NUMBER})"

_NUMBER = re.compile(NUMBER, re.IGNORECASE)
_TERM = rf"[$(]{{0,3}}{_DIGITS}(?: ?[A-Za-z%]{{1,3}}(?![A-Za-z]))?[)]{{0,3}}"
_SUM = re.compile(rf"{_TERM}(?:\s?[-+*/x÷]\s?{_TERM}){{1,12}}\s?=\s?(?=[$*(]{{0,4}}{_DIGITS})")
_OPEN_SUM = re.compile(rf"{_TERM}(?:\s?[-+*/÷]\s?{_TERM}){{1,12}}")
_SEVERAL = re.compile(
    rf"between {NUMBER} and {NUMBER}"
    rf"|(?:from )?{NUMBER}(?:(?:, ?(?:and |or )?|-| ?~ ?| ?x ?| by | to | or | and/or |\.\.\.? ?){NUMBER})+,?"
    rf"|{NUMBER} and {NUMBER}(?= ?(?:[.,;:!)]|$))",
    re.IGNORECASE,
)
_BOUND = re.compile(
    r"\b(?:(?:more|less|fewer|higher|lower|greater|smaller|larger|bigger|older|younger) than(?: or equal to)?"
    rf"|at (?:least|most)|below|above|over|under|up to|exceeds?|[<>]=?) (?:{NUMBER}|once\b|twice\b)",
    re.IGNORECASE,
)
_LABEL = re.compile(
    rf"\b(?:step|figure|fig\.?|option|question|image|example|case|algorithm|page|version) {NUMBER}",
    re.IGNORECASE,
)


def whole(number: str) -> int | None:
    """The value of one NUMBER match; None where it is no whole number, or too long to be meant."""
    token = number.lower().replace(",", "")
    if token == NO_ONE_NUMBER or len(token) > 18:
        return None
    if token[-1].isdigit():
        head, _, fraction = token.partition(".")
        return int(head) if not fraction.strip("0") else None
    first, _, second = token.replace("-", " ").partition(" ")
    return _WORDS[first] * (10 if first in _TENS else 1) + (_WORDS[second] if second else 0)


def settle(text: str) -> str:
    """Leave only numbers that can be a count.

    Sums keep their result, ranges, choices and lists become NO_ONE_NUMBER, bounds ("more than 3") BOUND,
    and labels ("step 2") go.
    """
    text = _LABEL.sub(" ", _BOUND.sub(BOUND, _SUM.sub("", text)))
    return _OPEN_SUM.sub(NO_ONE_NUMBER, _SEVERAL.sub(NO_ONE_NUMBER, text))


def numbers_in(text: str) -> list[str]:
    return _NUMBER.findall(text)
