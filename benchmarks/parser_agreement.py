"""How far the parsers agree with the extraction that came with real replies, file by file.

    python -m benchmarks.parser_agreement [FOLDER] [-v]

FOLDER (default: $EVALKIT_REAL_DATA) holds `replies/*.jsonl`. The reference is the source's own
extraction, which can be wrong; where a source gives none (GPT-4V yes/no) it is the reply's opening word.
`no answer` counts replies in which the reference found no whole number (or word) either.
"""

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.parsers import PARSERS, Parsed, parse

Row = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """One file (or a part of it) and how its reference is read."""

    file: str
    part: str
    parser: str
    reply_key: str
    keep: Callable[[Row], bool]
    reference: Callable[[Row], Any]


@dataclass(frozen=True)
class Agreement:
    source: Source
    statuses: dict[str, int]
    with_reference: int
    agree: int
    without_reference: int
    both_none: int
    differing: tuple[tuple[Any, Parsed, str], ...]


def whole_number(value: Any) -> int | None:
    """12, "12", "1,200" or "12.00"; no float in between, which would make 1 of 0.99999999999999999."""
    found = re.fullmatch(r"(-?[0-9]+)(?:\.0*)?", str(value).strip().replace(",", ""))
    return int(found[1]) if found else None


def opening_word(row: Row) -> str | None:
    word = row["raw_response"].strip().lower()[:4]
    return "yes" if word.startswith("yes") else "no" if word[:3] in ("no,", "no.", "no ") else None


def blindtest(task: str, parser: str, reference: Callable[[Row], Any]) -> Source:
    return Source(
        "claude35_blindtest.jsonl", task, parser, "raw_response", lambda row: row["task"] == task, reference
    )


def sources() -> Iterator[Source]:
    def number(row: Row) -> int | None:
        return whole_number(row["parsed_answer"])

    def every(row: Row) -> bool:
        return True

    yield blindtest("LineIntersection", "integer", number)
    yield blindtest("NestedSquares", "integer", number)
    yield blindtest("TouchingCircle", "yes_no", lambda row: row["parsed_answer"].lower())
    # pairs (rows, columns): one number out of two would be invented
    yield blindtest("CountingRowsAndColumns", "integer", lambda row: None)
    yield Source(
        "mathvista_integer_5models.jsonl", "", "integer", "raw_response", every,
        lambda row: whole_number(row["upstream_extraction"]) if row["raw_response"] else None,
    )  # fmt: skip
    yield Source(
        "mathv_smallint_4models.jsonl", "", "integer", "raw_response", every,
        lambda row: whole_number(row["upstream_parsed"]),
    )  # fmt: skip
    yield Source("hallusionbench_gpt4v_yesno.jsonl", "", "yes_no", "raw_response", every, opening_word)
    # several places in one reply: nothing was asked that one of them would answer
    yield Source("gemini_box2d_cookbook.jsonl", "", "box", "raw_output", every, lambda row: None)
    yield Source("molmo_points_olmo_ui.jsonl", "", "point", "raw_output", every, lambda row: None)
    yield Source("qwen3vl_cookbook_outputs.jsonl", "", "box", "raw_output", every, single_qwen_box)


def single_qwen_box(row: Row) -> list[float] | None:
    """The cookbook's tool calls hold one box each, by JSON of that part of the text."""
    text = row["raw_output"]
    if text.count('"bbox_2d"') != 1:
        return None
    start = text.index('{"label"')
    return [float(v) for v in json.loads(text[start : text.index("}", start) + 1])["bbox_2d"]]


def measure(folder: Path, source: Source) -> Agreement:
    statuses = dict.fromkeys(("parsed", "unparsed", "blocked"), 0)
    with_reference = agree = without = both_none = 0
    differing = []
    for line in (folder / "replies" / source.file).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if not source.keep(row):
            continue
        parsed, reference = parse(source.parser, row[source.reply_key]), source.reference(row)
        statuses[parsed.status] += 1
        same = parsed.answer == reference
        if reference is None:
            without += 1
            both_none += same
        else:
            with_reference += 1
            agree += same
        if not same:
            differing.append((reference, parsed, row[source.reply_key]))
    return Agreement(source, statuses, with_reference, agree, without, both_none, tuple(differing))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default=os.environ.get("EVALKIT_REAL_DATA"))
    parser.add_argument("-v", "--verbose", action="store_true", help="print every reply read differently")
    arguments = parser.parse_args()
    if arguments.folder is None:
        parser.error("name the folder, or set EVALKIT_REAL_DATA")
    assert set(PARSERS) == {"integer", "yes_no", "point", "box"}
    print(
        f"{'file':<34} {'part':<23} {'parser':<8} {'parsed':>6} {'unparsed':>8} {'blocked':>7} "
        f"{'agree':>9} {'no answer':>9}"
    )
    for source in sources():
        got = measure(Path(arguments.folder), source)
        status = got.statuses
        print(
            f"{source.file:<34} {source.part:<23} {source.parser:<8} {status['parsed']:>6} {status['unparsed']:>8} "
            f"{status['blocked']:>7} {f'{got.agree}/{got.with_reference}':>9} "
            f"{f'{got.both_none}/{got.without_reference}':>9}"
        )
        for reference, parsed, reply in got.differing if arguments.verbose else ():
            shown = reply if len(reply) <= 160 else f"{reply[:80]} ... {reply[-80:]}"
            print(f"    reference {reference!r}, parsed {parsed.answer!r}: {shown!r}")


if __name__ == "__main__":
    main()
