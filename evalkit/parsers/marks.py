"""Answers that a text marks as such: braces, \\boxed{}, ####, "the answer is", bold."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """A marked stretch of the text. closed: it ends where its braces end, nothing else belongs to it."""

    start: int
    content: str
    closed: bool
    final: bool  # nothing else but the last word can be meant: \\boxed{}, ####, "final answer"


_BOXED = re.compile(r"\\(?:boxed|fbox)\s?(?=\{)")
_BRACES = re.compile(r"(?<![\\A-Za-z0-9_^}=])\{([^{}\n]{1,60})\}")
_HASHES = re.compile(r"####\s?([^\n]{1,200})")
# "The answer is", "Answer:", "answer to the question ... is", {"answer": ...}
_ANSWER = re.compile(
    r"\b(?P<final>final )?(?:answer|count|result)\b[\"']?(?: to [^\n]{1,120}?)?"
    r"(?:\s?[:=]|\s(?:is|should be|would be|must be|will be)(?!\snot\b(?![^.\n]{1,20}\bbut\b))(?:\s?:)?)\s*"
    r"(?P<content>[^\n]{1,200})",
    re.IGNORECASE,
)
_LAST = 20  # the last mark wins, so no more need be looked at
_EXAMPLE = re.compile(r"(?:e\.g\.|i\.e\.|such as|for example|for instance|like),?\s*$", re.IGNORECASE)
_EMPHASIS = re.compile(
    r"(?<![A-Za-z0-9*])(\*{1,3})(?=[^\s*])([^*\n]{1,200})(?<=\S)\1(?!\*)|(?<!\w)__(?=\S)([^_\n]{1,200})__(?!\w)"
)
_CODE = re.compile(r"```[^`]*(?:```|\Z)|~~~[^~]*(?:~~~|\Z)")


def without_emphasis(text: str) -> str:
    """The text without asterisks and underscores of Markdown, without math dollars and backticks."""
    text = _EMPHASIS.sub(lambda match: match[2] or match[3], text)
    return re.sub(r"`|\$(?![0-9])|(?<=[0-9}])\$|\\[()\[\]]|^\s*#{1,3} ", "", text, flags=re.MULTILINE)


def emphasised(text: str) -> list[str]:
    """What stands in bold or italics, outside bullets and headings."""
    lines = [line for line in text.split("\n") if not re.match(r"\s*(?:[*+-]|[0-9]+[.)]|#+)\s", line)]
    return [match[2] or match[3] for match in _EMPHASIS.finditer("\n".join(lines))]


def without_code(text: str) -> str:
    """The text without fenced code, unless nothing with a letter or digit is left."""
    prose = _CODE.sub("\n", text)
    return prose if re.search(r"[A-Za-z0-9]", prose) else text


def _boxed(text: str) -> list[Mark]:
    """Contents of \\boxed{...}, braces balanced; one that never closes is left out."""
    marks = []
    for match in list(_BOXED.finditer(text))[-_LAST:]:
        depth, start = 0, match.end() + 1
        for at in range(match.end(), min(len(text), match.end() + 200)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if depth == 0:
                marks.append(Mark(match.start(), text[start:at].rpartition("=")[2], closed=True, final=True))
                break
    return marks


def marks_in(text: str) -> list[Mark]:
    """The last marked answers, in the order of the text. text: `without_emphasis`."""
    marks = _boxed(text)
    for match in _BRACES.finditer(text):
        if not _EXAMPLE.search(text[max(0, match.start() - 16) : match.start()]):
            marks.append(Mark(match.start(), match[1], closed=True, final=False))
    marks += [Mark(match.start(), match[1], closed=False, final=True) for match in _HASHES.finditer(text)]
    for match in _ANSWER.finditer(text):
        final = match["final"] is not None
        marks.append(Mark(match.start(), match["content"], closed=False, final=final))
    return sorted(marks, key=lambda mark: mark.start)[-_LAST:]
