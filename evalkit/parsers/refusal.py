"""Does a reply decline to answer?"""

import re

_CANNOT = r"(?:can'?t|cannot|can not|could not|couldn't|(?:am|'m) (?:not able|unable)|unable|won't|will not)"
# With an apology any "cannot" declines. Without one only the verbs of serving and finding out do: "I
# cannot see any crossing" is an answer.
_SORRY = re.compile(
    rf"\b(?:sorry|apologi[sz]e|apologies|unfortunately)\b.{{0,200}}?\b{_CANNOT}\b", re.IGNORECASE | re.DOTALL
)
_DECLINES = re.compile(
    rf"\bI\s?{_CANNOT} (?:\w+ )?(?:to )?(?:help|assist|answer|comply|fulfil|engage|discuss|process|respond"
    r"|provide|support|participate|do (?:that|this)|determine|confirm)\b",
    re.IGNORECASE,
)
_CHINESE = re.compile("(?:抱歉|对不起|很遗憾).{0,40}(?:无法|不能)|我(?:无法|不能)(?:回答|提供|协助)")

# A refusal is said at the outset; what a long answer disclaims at its end does not undo it.
_OPENING = 400


def is_refusal(text: str) -> bool:
    """text: as `fold` leaves it."""
    opening = text[:_OPENING]
    return any(pattern.search(opening) for pattern in (_SORRY, _DECLINES, _CHINESE))
