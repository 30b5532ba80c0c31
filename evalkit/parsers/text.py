"""Reply text made even: Unicode forms, special tokens, hidden reasoning, length; refusals."""

import re
import unicodedata

# A final answer stands at the end, an opening answer at the beginning; the middle of a huge reply is dropped.
_HEAD, _TAIL = 2_000, 18_000

_SPECIAL = re.compile(r"</?s>|<\|(?:im_start|im_end|im_sep|endoftext|eot_id|end)\|>|<(?:eos|bos|pad|unk)>")
_ZERO_WIDTH = dict.fromkeys(
    [0x00AD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)
_PLAIN = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2212": "-", "\u2013": "-", "\u2014": " - ",
     "\u3010": "[", "\u3011": "]", "\u3002": ". ", "\u3001": ", "}
)  # fmt: skip

_REFUSAL = re.compile(
    r"\b(?:i'?m|i am|we are|we're)?\s*(?:very |so |really )?sorry\b"
    r"|\b(?:i|we) (?:cannot|can't|can not|am unable to|'m unable to|won't|will not|am not able to|'m not able to)"
    r" (?:assist|help|answer|provide|comply|identify|process|determine|tell|see|view|analy[sz]e|do that|count|fulfil)"
    r"|\bunable to (?:assist|help|answer|comply|fulfil)"
    r"|\bas an ai\b|\bagainst (?:my|our) (?:policy|guidelines)",
    re.IGNORECASE,
)


def clean(reply: str) -> str:
    """The text a reader would see: NFKC, no zero-width or special tokens, bounded length, no hidden thought.

    After `</think>` only what follows counts; a thought that never ends holds no answer. The last
    `<answer>` element, where there is one, is the reply.
    """
    if len(reply) > _HEAD + _TAIL:
        reply = reply[:_HEAD] + "\n\n" + reply[-_TAIL:]
    text = unicodedata.normalize("NFKC", reply).translate(_ZERO_WIDTH).translate(_PLAIN)
    text = _SPECIAL.sub(" ", text)
    lower = text.lower()
    if (end := lower.rfind("</think>")) >= 0:
        text = text[end + len("</think>") :]
    elif (start := lower.find("<think>")) >= 0:
        text = text[:start]
    lower = text.lower()
    if (start := lower.rfind("<answer>")) >= 0:
        end = lower.find("</answer>", start)
        text = text[start + len("<answer>") : end if end >= 0 else None]
    return text.strip()


def is_refusal(text: str) -> bool:
    """Whether a text without an answer declines to give one. Looks at its beginning."""
    return _REFUSAL.search(text[:400]) is not None


def sentences(text: str) -> list[str]:
    """Sentences and list items, in order; a dot inside a number ends none."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]
