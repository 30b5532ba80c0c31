"""The rows of a run out of their parts: rows.jsonl, the segments after it, and what a mirror alone has.

Each sample stands once. A failed row gives way to whatever comes later, as it does when a run goes on;
any other row stands, and a later one of the same sample is left out.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One line of rows.jsonl as it was written, and what is needed to choose between two."""

    raw: bytes  # with its end of line
    failed: bool


Lines = dict[str, Line]


def united(parts: Iterable[bytes]) -> Lines:
    """Sample id -> line. A line that is no row is kept, so that a reader of the file says where it stands."""
    found: Lines = {}
    for part in parts:
        for name, line in _lines(part):
            if name not in found or found[name].failed:
                found[name] = line
    return found


def fault(part: bytes) -> int | None:
    """The number of the first line that is no row, from 1, or None."""
    return next((number for number, (name, _) in enumerate(_lines(part), 1) if name.startswith("\0")), None)


def only_in(mine: Lines, shared: Lines) -> Lines:
    """What `mine` adds to `shared`: samples that it lacks, and replies to what failed there."""
    return {
        name: line
        for name, line in mine.items()
        if name not in shared or (shared[name].failed and not line.failed)
    }


def contradictions(mine: Lines, shared: Lines) -> list[str]:
    """Samples that have two different replies."""
    return [
        name
        for name, line in mine.items()
        if name in shared
        and line.raw != shared[name].raw
        and not line.failed
        and not shared[name].failed
        and _reply(line) != _reply(shared[name])
    ]


def content(lines: Lines) -> bytes:
    return b"".join(line.raw for line in lines.values())


def whole_lines(data: bytes) -> bytes:
    """Without a last line that was torn by a kill."""
    return data[: data.rfind(b"\n") + 1]


def _lines(part: bytes) -> Iterable[tuple[str, Line]]:
    # not splitlines: only \n ends a row
    for raw in whole_lines(part).split(b"\n")[:-1]:
        raw += b"\n"
        try:
            row = json.loads(raw)
            yield str(row["sample_id"]), Line(raw, row["verdict"] == "failed")
        except (ValueError, KeyError, TypeError, RecursionError):
            yield f"\0{raw!r}", Line(raw, False)


def _reply(line: Line) -> object:
    try:
        return json.loads(line.raw).get("reply")
    except (ValueError, AttributeError, RecursionError):
        return line.raw
