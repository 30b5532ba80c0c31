"""Agreement on real replies, file by file; the numbers are those that benchmarks.parser_agreement prints."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.parser_agreement import measure, sources
from evalkit.parsers import parse

pytestmark = pytest.mark.real

# agree with the reference, of so many that have one; no answer where the reference has none, of so many
AGREEMENT = {
    ("claude35_blindtest.jsonl", "LineIntersection"): (100, 100, 0, 0),
    ("claude35_blindtest.jsonl", "NestedSquares"): (100, 100, 0, 0),
    ("claude35_blindtest.jsonl", "TouchingCircle"): (100, 100, 0, 0),
    ("claude35_blindtest.jsonl", "CountingRowsAndColumns"): (0, 0, 100, 100),
    ("mathvista_integer_5models.jsonl", ""): (190, 202, 47, 48),
    ("mathv_smallint_4models.jsonl", ""): (148, 148, 10, 12),
    ("hallusionbench_gpt4v_yesno.jsonl", ""): (106, 106, 21, 21),
    ("gemini_box2d_cookbook.jsonl", ""): (0, 0, 4, 4),
    ("molmo_points_olmo_ui.jsonl", ""): (0, 0, 5, 5),
    ("qwen3vl_cookbook_outputs.jsonl", ""): (3, 3, 6, 6),
}

# Read by eye: the number of the row, the parser, and the answer or the reason.
BY_EYE: list[tuple[str, int, str, Any]] = [
    ("gemini_box2d_cookbook.jsonl", 0, "box", "13 different boxes where one was asked"),
    ("gemini_box2d_cookbook.jsonl", 1, "box", "2 different boxes where one was asked"),
    ("gemini_box2d_cookbook.jsonl", 2, "box", "13 different boxes where one was asked"),  # of 15, two twice
    ("gemini_box2d_cookbook.jsonl", 3, "box", "2 different boxes where one was asked"),
    ("qwen3vl_cookbook_outputs.jsonl", 1, "yes_no", "no"),
    ("qwen3vl_cookbook_outputs.jsonl", 3, "box", "no box, but a list of 9 numbers"),
    ("qwen3vl_cookbook_outputs.jsonl", 5, "box", [574, 301, 660, 468]),
    ("qwen3vl_cookbook_outputs.jsonl", 6, "box", [584, 496, 651, 660]),
    ("qwen3vl_cookbook_outputs.jsonl", 7, "box", [395, 276, 618, 740]),
    ("qwen3vl_cookbook_outputs.jsonl", 8, "box", "9 different boxes where one was asked"),  # broken JSON
    ("molmo_points_olmo_ui.jsonl", 0, "point", "5 different points where one was asked"),
    ("molmo_points_olmo_ui.jsonl", 0, "integer", 5),
    ("molmo_points_olmo_ui.jsonl", 1, "point", "5 different points where one was asked"),
    ("molmo_points_olmo_ui.jsonl", 2, "point", "no point"),  # cut off
    ("molmo_points_olmo_ui.jsonl", 3, "point", "5 different points where one was asked"),
    ("molmo_points_olmo_ui.jsonl", 4, "point", "11 different points where one was asked"),
    ("molmo_points_olmo_ui.jsonl", 4, "integer", 11),
]


@pytest.mark.parametrize("source", list(sources()), ids=lambda source: f"{source.file}-{source.part}")
def test_agreement(source: Any, real_data: Path) -> None:
    got = measure(real_data, source)
    measured = (got.agree, got.with_reference, got.both_none, got.without_reference)
    assert measured == AGREEMENT[source.file, source.part]


def test_no_number_is_read_that_the_source_reads_otherwise(real_data: Path) -> None:
    """What differs is left unread: ranges, lists, decimals, results that nobody states."""
    for source in sources():
        wrong = [
            (reference, parsed.answer, reply)
            for reference, parsed, reply in measure(real_data, source).differing
            if reference is not None and parsed.answer is not None
        ]
        assert wrong == []


@pytest.mark.parametrize(("file", "row", "parser", "expected"), BY_EYE)
def test_read_by_eye(file: str, row: int, parser: str, expected: Any, real_data: Path) -> None:
    lines = (real_data / "replies" / file).read_text(encoding="utf-8").splitlines()
    parsed = parse(parser, json.loads(lines[row])["raw_output"])
    assert (parsed.reason if parsed.answer is None else parsed.answer) == expected
