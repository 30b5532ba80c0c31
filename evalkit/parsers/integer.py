"""`integer`: how many, as a model says it.

In order: what is marked as the answer ({3}, \\boxed{3}, "the answer is 3", "#### 3"), a reply that is a
number and little else, a conclusion ("so there are 3"), the first sentence that counts ("they cross 3
times", "do not touch" is 0), one number in all of the text. Two different numbers on the same
footing commit to neither.
"""

import re

from evalkit.parsers.result import Parsed, found, nothing
from evalkit.parsers.text import clean, is_refusal, sentences

_WORDS = {
    word: number for number, word in enumerate(("zero", "one", "two", "three", "four", "five", "six"))
} | {
    word: number
    for number, word in enumerate(
        ("seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen"), 7
    )
}
_WORDS |= {"fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20}
_DIGITS = r"(?<![\w.,])[-+]?\d{1,9}(?:\.0+)?(?![\w]|[.,:/]\d|\s*%)"
_NUMBER = rf"(?:{_DIGITS}|\b(?:{'|'.join(_WORDS)})\b)"
_TIMES = {"once": 1, "twice": 2, "thrice": 3}

_LATEX = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]{0,60})\}")
_BOXED = re.compile(r"\\boxed\s*\{([^{}]{0,60})\}?")
_BRACES = re.compile(r"(?<![\\\w])\{\s*([^{}\n]{1,40}?)\s*\}")
_MARK = re.compile(
    r"(?:\banswers?\b(?:\s+(?:to (?:the|this|your) question|here))?\s*(?:is|are|would be|should be|=|:)+\s*:?"
    r"|####|\bfinal count\s*(?:is|:))\s*",
    re.IGNORECASE,
)
_VERB = r"(?:touch|intersect|cross|meet|overlap|coincide)"
_NOUN = (
    r"(?:times?|points?|intersections?|crossings?|crosses|touch(?:es|ing)?|spots?|places?|locations?|occasions?|"
    r"instances?)"
)
# Things of which a picture always has two: "there are two lines" counts none of their crossings.
_NOT_LINES = r"(?!\s+(?:[a-z-]+\s+){0,3}?(?:lines?|curves?|polylines?|segments?|paths?|colou?rs?)\b)"
_NEGATED = re.compile(
    rf"\b(?:do|does|did|will|can)\s?(?:not|n't)\b(?:\s+\w+){{0,3}}?\s+{_VERB}|\bdon't\b(?:\s+\w+){{0,3}}?\s+{_VERB}|"
    rf"\b(?:never|not|neither|without)\b(?:\s+\w+){{0,3}}?\s+(?:{_VERB}\w*)|"
    rf"\b(?:no|zero)\b(?:\s+\w+){{0,3}}?\s+(?:{_NOUN}|{_VERB}\w*)|\bthere (?:are|is) (?:none|no)\b|^\W*none\b|"
    r"\bnon-?intersecting\b|\bnot (?:a single|any|even once|at all)\b|\bat no (?:point|time)\b",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    rf"\b{_VERB}\w*\b(?:\s+(?!not\b)[a-z]+){{0,4}}?\s+(?P<a>{_NUMBER}|once|twice|thrice){_NOT_LINES}"
    rf"|(?P<b>{_NUMBER}){_NOT_LINES}\s+(?:(?!and\b|or\b|to\b)[a-z-]+\s+){{0,3}}?{_NOUN}\b"
    rf"|\bthere\s+(?:are|is|were|was|will be|would be)\s+(?:exactly |only |a total of |in total |about |still )?"
    rf"(?P<c>{_NUMBER}){_NOT_LINES}"
    rf"|\b(?:count|see|find|identify|have|has|total of|a total is|get)\s+(?:exactly |only |a total of )?"
    rf"(?P<d>{_NUMBER}){_NOT_LINES}"
    rf"|(?P<e>\b(?:once|twice|thrice)\b)",
    re.IGNORECASE,
)
_EITHER = re.compile(
    rf"({_NUMBER})\s*(?:or|to|-)\s*({_NUMBER})|\bbetween\s+({_NUMBER})\s+and\s+({_NUMBER})", re.IGNORECASE
)
_CONCLUSION = re.compile(
    r"^\W*(?:therefore|so|thus|hence|in total|total|in summary|in conclusion|overall|finally|answer|conclusion)\b|"
    r"\btherefore\b|\bthus\b|\bhence\b",
    re.IGNORECASE,
)
_STATED = re.compile(
    rf"(?:\b(?:is|are|equals?|was|be)\b|=)\s*(?:exactly\s+|only\s+|about\s+)?({_NUMBER}){_NOT_LINES}",
    re.IGNORECASE,
)
_OPTION = re.compile(r"^\W*\(?[A-Ea-e]\s*[).:]\s*(?P<n>[^\s].{0,30})$", re.DOTALL)
_NUMBERS = re.compile(_NUMBER, re.IGNORECASE)


def integer(reply: str) -> Parsed:
    """A whole number, or why there is none. Decimals other than n.0 are no integers."""
    text = _LATEX.sub(r"\1", clean(reply)).replace("$", " ")
    if not text:
        return nothing("empty")
    if len(re.findall(r"\w\s*=\s*\{", text)) > 1:
        return nothing("several quantities, each with a number of its own")
    for read in (_marked, _whole, _concluded, _counted, _stated, _only):
        if (parsed := read(text)) is not None:
            if parsed.answer is None and is_refusal(text):
                break
            return parsed
    if is_refusal(text):
        return Parsed(None, "blocked", "a refusal")
    return nothing("no whole number that the text commits to")


def _plain(text: str) -> str:
    return re.sub(r"[*_`#]+", " ", text)


def _value(token: str) -> int:
    token = token.lower().lstrip("+")
    if token in _TIMES:
        return _TIMES[token]
    return _WORDS[token] if token in _WORDS else int(float(token))


def _single(text: str) -> int | None:
    """The number that is all of a short text, bar units and punctuation."""
    text = _plain(text).strip(" \t\n.,:;!()[]{}\"'\\")
    if (option := _OPTION.match(text + " ")) is not None:
        text = option["n"].strip(" .()[]")
    numbers = {_value(m[0]) for m in _NUMBERS.finditer(text)}
    rest = _NUMBERS.sub("", text)
    if len(numbers) == 1 and not re.search(r"[\d+*/^=\\]", rest):
        return numbers.pop()
    return None


def _marked(text: str) -> Parsed | None:
    marks = [(m.start(), _single(m[1])) for m in _BOXED.finditer(text)]
    for m in _MARK.finditer(text):
        rest = _plain(text[m.end() : m.end() + 80]).lstrip(" :\n")
        head = re.match(rf"(?:\(?[A-E]\)?[).:]\s*)?\(?\{{?\\?\(?\s*({_NUMBER})", rest, re.IGNORECASE)
        if head:
            if (either := _EITHER.match(rest)) is not None and not re.match(r".{0,3}-", rest[: either.end()]):
                return nothing(f"{either[0]!r} commits to neither")
            marks.append((m.start(), _value(head[1])))
    braces = [(m.start(), _single(m[1])) for m in _BRACES.finditer(text)]
    braces = [(at, value) for at, value in braces if value is not None]
    if not any(value is not None for _, value in marks) and len({v for _, v in braces}) > 1:
        return nothing("different numbers in braces")
    marks += braces
    if not marks:
        return None
    last = max(marks)[1]
    return found(last) if last is not None else nothing("what is marked as the answer is no whole number")


def _whole(text: str) -> Parsed | None:
    if len(text) > 40 or len(text.split()) > 4:
        return None
    if re.search(r"\d\s*[,x&/]\s*\d", text) or _EITHER.search(_plain(text)):
        return nothing("more than one number")
    value = _single(text)
    return None if value is None else found(value)


def _concluded(text: str) -> Parsed | None:
    bold = re.findall(r"\*\*\s*([^*\n]{1,20}?)\s*\*\*", text)
    if bold and (value := _single(bold[-1])) is not None and len({_single(b) for b in bold} - {None}) == 1:
        return found(value)
    for sentence in reversed(sentences(text)):
        if _CONCLUSION.search(sentence):
            return _in_sentence(_plain(sentence)) or _last_stated(sentence)
    return None


def _counted(text: str) -> Parsed | None:
    for sentence in sentences(_plain(text)):
        if (parsed := _in_sentence(sentence)) is not None:
            return parsed
    return None


def _in_sentence(sentence: str) -> Parsed | None:
    """What one sentence counts; its first count is the headline, what follows a colon its detail."""
    if (either := _EITHER.search(sentence)) is not None:
        values = {_value(v) for v in either.groups() if v}
        if len(values) == 2:
            return nothing(f"{either[0]!r} commits to neither")
    hit = _COUNTED.search(sentence)
    negated = _NEGATED.search(sentence)
    if negated and (hit is None or negated.start() <= hit.start()):
        return found(0)
    if hit is None:
        return None
    return found(_value(next(value for value in hit.groupdict().values() if value)))


def _last_stated(text: str) -> Parsed | None:
    stated = _STATED.findall(_plain(text))
    return found(_value(stated[-1])) if stated else None


def _stated(text: str) -> Parsed | None:
    values = {_value(v) for v in _STATED.findall(_plain(text))}
    return found(values.pop()) if len(values) == 1 else None


def _only(text: str) -> Parsed | None:
    values = {
        _value(m[0]) for m in _NUMBERS.finditer(_plain(text)) if not m[0][0].isalpha()
    }  # "two lines" is no count
    if len(values) > 1:
        return nothing(f"{len(values)} different numbers, none marked as the answer")
    return found(values.pop()) if values else None
