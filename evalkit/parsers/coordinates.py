"""Lists of numbers in text: every complete bracketed list, at any depth, where it stands."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

Nested = list["float | Nested"]

# Longer numbers are no coordinate, and float() would make infinity of them.
NUMBER = r"[-+]?(?:[0-9]{1,12}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})"
_TOKEN = re.compile(
    rf"(?:(?<=[\s,;:(\[{{\u27e6=|])|^)(?P<number>{NUMBER})(?:\s?(?:px|pixels|%))?(?![0-9A-Za-z_])"
    r"|(?P<open>[(\[{\u27e6])|(?P<close>[)\]}\u27e7])|(?P<gap>[\s,;]+)|(?P<other>[0-9.A-Za-z_]+|.)",
    re.DOTALL,
)
_PAIRS = {")": "(", "]": "[", "}": "{", "\u27e7": "\u27e6"}


@dataclass(frozen=True, slots=True)
class Group:
    """A complete list of nothing but numbers and lists of numbers, in `text[start:end]`.

    values: nested as written, needless outer brackets taken off: [[1, 2]] is [1, 2].
    quad: the corners of a quad token, which need not be axis-aligned.
    """

    start: int
    end: int
    values: Nested
    quad: bool


@dataclass(slots=True)
class _Open:
    """A bracket that has not closed yet. inner: complete lists in it; pure: so far numbers and lists only."""

    bracket: str
    start: int
    values: Nested = field(default_factory=list)
    inner: list[Group] = field(default_factory=list)
    pure: bool = True


def groups_in(text: str) -> list[Group]:
    """The outermost complete lists of numbers, in the order of the text.

    A list that holds anything else gives its inner lists instead: so JSON objects give the lists that
    are their values, and a list that was cut off the complete ones before the cut.
    """
    stack = [_Open("", 0)]
    for token in _TOKEN.finditer(text):
        top = stack[-1]
        if token["open"]:
            stack.append(_Open(token["open"], token.start()))
        elif token["close"]:
            if top.bracket == _PAIRS[token["close"]]:
                _close(stack, token.end())
        elif token["number"]:
            top.values.append(float(token["number"]))
        elif token["other"]:
            top.pure = False
    return [group for opened in stack for group in opened.inner]


def _close(stack: list[_Open], end: int) -> None:
    closed = stack.pop()
    outer = stack[-1]
    if closed.pure:
        values = closed.values
        while len(values) == 1 and isinstance(values[0], list):
            values = values[0]
        outer.values.append(values)
        outer.inner.append(
            Group(closed.start, end, values, closed.bracket == "\u27e6" or any(g.quad for g in closed.inner))
        )
    else:
        outer.pure = False
        outer.inner.extend(closed.inner)


def numbers(values: Nested) -> list[float] | None:
    """A flat list of numbers; None where `values` holds lists."""
    flat = [value for value in values if not isinstance(value, list)]
    return flat if len(flat) == len(values) else None


def rows(values: Nested) -> Iterator[list[float]]:
    """The flat lists among the members of a list of lists."""
    for value in values:
        if isinstance(value, list) and (flat := numbers(value)) is not None:
            yield flat
