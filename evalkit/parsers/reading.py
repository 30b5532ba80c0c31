"""The way every reply goes before and after its parser: cleaned, cut to size, refusals told apart."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from evalkit.parsers.clean import after_thinking, fold, inside_answer_tag, last_part
from evalkit.parsers.parsed import Parsed, blocked, unparsed
from evalkit.parsers.refusal import is_refusal

# Models without a stop token go on to ask themselves the next question.
_NEXT_TURN = re.compile(r"\n\s*(?:#+ ?)?(?:Question|Human|User|USER|Q)\s?:")


@dataclass(frozen=True, slots=True)
class Text:
    """A cleaned reply. cut: its beginning was left out; refusal: it declines to answer."""

    body: str
    cut: bool
    refusal: bool


def read(reply: str, reader: Callable[[Text], Parsed]) -> Parsed:
    """Clean `reply`, let `reader` find its answer, and say why where there is none."""
    if not reply.strip():
        return unparsed("empty reply")
    said = after_thinking(reply)
    if said is None:
        return unparsed("the reasoning never ends")
    kept = last_part(said)
    body = inside_answer_tag(fold(kept)).strip()
    if not body:
        return unparsed("no text besides reasoning and special tokens")
    text = Text(body, cut=len(kept) < len(said), refusal=is_refusal(body))
    parsed = _first_turn(text, reader)
    if parsed.status == "unparsed" and text.refusal:
        return blocked("the reply is a refusal")
    if parsed.reason is not None and text.cut:
        return replace(
            parsed,
            reason=f"{parsed.reason} (only the last {len(kept):,} of {len(said):,} characters were read)",
        )
    return parsed


def _first_turn(text: Text, reader: Callable[[Text], Parsed]) -> Parsed:
    """The answer given before the reply asks itself another question, where there is one."""
    turn = _NEXT_TURN.search(text.body)
    if turn and turn.start() > 0:
        parsed = reader(replace(text, body=text.body[: turn.start()]))
        if parsed.status == "parsed":
            return parsed
    return reader(text)
