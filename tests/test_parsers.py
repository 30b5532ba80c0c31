"""Parsers: what real models write, what trips naive readers, and what commits to nothing."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.parser_agreement import measure, sources
from benchmarks.parser_fuzz import SEEDS, mutate, slowest
from evalkit.parsers import PARSERS, parse

INTEGER = [
    ("The two lines do not touch at any point. They are two separate lines.", 0),
    ("The two lines cross at three points.", 3),
    (
        "The blue and red lines in this image do not intersect at any point. They are two separate, non-intersecting line segments.",
        0,
    ),
    (
        "The blue and red lines intersect 2 times in this image. They cross each other once near the top left, and again.",
        2,
    ),
    ("I can count {4} squares of different sizes: 3 smaller squares nested and 1 larger square", 4),
    ("\\boxed{two}", 2),
    ("<s> A) 5", 5),
    ("（C）0", 0),
    ("001", 1),
    ("\xa04", 4),
    ("", None),
    ("I'm sorry, I can't assist with that request.", None),
    ("I'm sorry, but the answer is 3.", 3),
    ("There are two lines: a blue and a red one.", None),
    ("There are two lines. They cross once.", 1),
    ("２", 2),
    ("The lines cross three times.", 3),
    ("0.6", None),
    ("3.0", 3),
    ("between 1 and 3", None),
    ("They never touch each other.", 0),
    ("There are none.", 0),
    ("They don't touch.", 0),
    ("The lines touch at two points.", 2),
    ("<think>maybe 2, or 5</think>The answer is **4**.", 4),
    ("<think>maybe 2", None),
    ("2 or 3", None),
    ("Zero.", 0),
    ("The blue and red lines touch each other at one point.", 1),
    ("They touch twice.", 2),
    ("The lines intersect at (3, 4), (5, 6) and (7, 8), so 3 times.", 3),
    ("Intersections: 3", 3),
    ("Count: **5**", 5),
    ("The first intersection is at the left. The second is on the right. In total, they cross 2 times.", 2),
    ("12 times", 12),
    ("1,2,3", None),
    ("-1", -1),
    ("The two lines meet in the middle.", None),
    ("No, they do not touch. 0", 0),
    ("{'count': 3}", 3),
    ('{"answer": 3}', 3),
    ('```json\n{"count": 2}\n```', 2),
    ("The lines intersect at exactly 4 distinct points in the image", 4),
    ("It is not possible to say.", None),
]

YES_NO = [
    ("**No**, they are separate.", "no"),
    ("Yes, A meets B; there is no gap.", "yes"),
    ("It could be yes or no.", None),
    ("Nothing joins them.", None),
    ("Node A is not connected to node D.", "no"),
    ("There is no path between A and D.", "no"),
    ("Answer: Yes", "yes"),
    ("No node is isolated, so yes.", "yes"),
    ("Yes and no.", None),
    ("Yes/No", None),
    ("I cannot determine that.", None),
    ("ＹＥＳ", "yes"),
    ("A is connected to C, not to D. So the answer is no.", "no"),
    ("Node E is connected to node B.", "yes"),
    ("Let me trace. The line from A goes to C. Therefore, no.", "no"),
    ("yes.", "yes"),
    ("Not sure", None),
    ("Nope", "no"),
    ("I'm sorry, I can't help with that.", None),
    ("<answer>No</answer>", "no"),
    ('{"answer": "yes"}', "yes"),
]

POINT = [
    ('<point x="42.0" y="27.0" alt="a">a</point>', [42, 27]),
    ('<points x1="154" y1="104" alt="a">a</points>', [154, 104]),
    ('<points coords="1 1 199 239 2 279 307">', None),
    ('<points coords="1 1 199 239" alt="x">', [199, 239]),
    ("There are none.", None),
    ("(12, 12)", [12, 12]),
    ("x: 12, y: 7", [12, 7]),
    ('{"point_2d": [394, 105], "label": "x"}', [394, 105]),
    ('```json\n[{"point_2d": [394, 105]}]\n```', [394, 105]),
    ("[[470,]]", None),
    ("12, 7", [12, 7]),
    ("(3,4) or (5,6)", None),
    ("The grid coordinates (x, y) are (3, 4).", [3, 4]),
    ("The red square is at (x=3, y=4)", [3, 4]),
    ("Grid is 24 x 24. Answer: (3, 4)", [3, 4]),
    ("column 12, row 7", [12, 7]),
    ('{"x": 3, "y": 4}', [3, 4]),
    ("[12.5,3.0]", [12.5, 3]),
    ("(3, 4). So the cell is (3, 4).", [3, 4]),
    ("[10, 20, 110, 220]", None),
]

BOX = [
    ("[[0.33,0.56,0.45,0.65]] is not the solution.\nThe correct output is: []", None),
    ("[(284, 572), (410, 572), (410, 829), (284, 829)]", [284, 572, 410, 829]),
    ("```\n[633, 388, 749, 424]\n```", [633, 388, 749, 424]),
    ("284, 572, 410, 572, 410, 829, 284, 829", [284, 572, 410, 829]),
    ("[284, 572, 410, 572, 410, 829, 284, 829]", [284, 572, 410, 829]),
    ('```json\n[\n{"bbox_2d": [10, 20, 110, 220], "label": "dish"}\n]\n```', [10, 20, 110, 220]),
    ("[[470,]]", None),
    ("<|box_start|>(10,20),(30,40)<|box_end|>", [10, 20, 30, 40]),
    ("(10,20),(30,40)", [10, 20, 30, 40]),
    ("[0.61, 0.36, 0.92, 0.83]", [0.61, 0.36, 0.92, 0.83]),
    ('{"box_2d": [1, 2, 3', None),
    ("{<10><20><30><40>}", [10, 20, 30, 40]),
    ("x1=1, y1=2, x2=3, y2=4", [1, 2, 3, 4]),
    ("[1,2,3,4] and [5,6,7,8]", None),
    ("The image is 640x480. The box is [1, 2, 3, 4].", [1, 2, 3, 4]),
    ("1 2 3 4", [1, 2, 3, 4]),
    ('{"bbox_2d": [[1,2],[3,4]]}', [1, 2, 3, 4]),
    ("<box>1 2 3 4</box>", [1, 2, 3, 4]),
    ("[\uff11\uff10\uff0c\uff12\uff10\uff0c\uff13\uff10\uff0c\uff14\uff10]", [10, 20, 30, 40]),
    ('{"x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4}', [1, 2, 3, 4]),
]

CASES = [
    (parser, reply, answer)
    for parser, table in (("integer", INTEGER), ("yes_no", YES_NO), ("point", POINT), ("box", BOX))
    for reply, answer in table
]


@pytest.mark.parametrize(("parser", "reply", "answer"), CASES)
def test_reads(parser, reply, answer):
    parsed = parse(parser, reply)
    assert parsed.answer == answer
    assert (parsed.status == "parsed") == (answer is not None)
    assert (parsed.reason is None) == (answer is not None)


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, I can't assist with that request.",
        "Sorry, I can't help with images of people yet.",
        "I\u2019m unable to assist with that.",
        "I cannot determine that from this picture.",
    ],
)
def test_refusals_are_blocked(parser, reply):
    assert parse(parser, reply).status == "blocked"


@pytest.mark.parametrize(
    ("parser", "reply", "reason"),
    [
        ("integer", "2 or 3", "more than one number"),
        ("integer", "rows={4} columns={3}", "several quantities, each with a number of its own"),
        ("integer", "\\boxed{0.6}", "what is marked as the answer is no whole number"),
        ("yes_no", "Yes and no.", "says yes and no"),
        ("point", "(3,4) or (5,6)", "2 different points where one was asked for"),
        ("box", "[1,2,3,4] and [5,6,7,8]", "2 different boxes where one was asked for"),
        ("box", "", "empty"),
    ],
)
def test_reasons(parser, reply, reason):
    assert parse(parser, reply).reason == reason


def test_answers_are_typed():
    assert type(parse("integer", "3.0").answer) is int
    assert all(type(v) is float for v in parse("box", "[1, 2, 3, 4]").answer)


def test_the_end_of_a_huge_reply_counts():
    assert parse("integer", "Let me think about it. " * 50_000 + "The answer is 4.").answer == 4


def test_the_order_of_the_text_is_kept():
    """Gemini's box_2d names y first: which axis is which, the model's declared frame says."""
    assert parse("box", '{"box_2d": [393, 67, 574, 206]}').answer == [393, 67, 574, 206]


@given(st.text(max_size=300))
def test_any_text_is_read_without_an_exception(text):
    for parser in PARSERS:
        parsed = parse(parser, text)
        assert (parsed.answer is None) == (parsed.reason is not None)


@given(st.integers(0, 10**6), st.sampled_from(SEEDS))
def test_mutated_replies_are_read_without_an_exception(seed, reply):
    mutated = mutate(reply, random.Random(seed))
    for parser in PARSERS:
        parse(parser, mutated)


@pytest.mark.parametrize("parser", PARSERS)
def test_hostile_lengths_end(parser):
    """Not a timed test: a regular expression that explodes would run into the suite's time-out."""
    worst, _ = slowest(parser, n=2_000, seed=1)
    assert worst < 5
    for piece in (
        "not ",
        "one ",
        "(",
        "[1,",
        "<point ",
        "1 ",
        "x1=1 ",
        '"bbox": [',
        "{",
        "**",
        "answer is ",
        "\\boxed{",
    ):
        parse(parser, piece * 20_000)


# agree with the reference, of so many with one; no answer where the reference has none, of so many
AGREEMENT = {
    ("claude35_blindtest.jsonl", "LineIntersection"): (100, 100, 0, 0),
    ("claude35_blindtest.jsonl", "NestedSquares"): (100, 100, 0, 0),
    ("claude35_blindtest.jsonl", "TouchingCircle"): (100, 100, 0, 0),
    ("claude35_blindtest.jsonl", "CountingRowsAndColumns"): (0, 0, 100, 100),
    ("mathvista_integer_5models.jsonl", ""): (176, 203, 45, 47),
    ("mathv_smallint_4models.jsonl", ""): (147, 148, 10, 12),
    ("hallusionbench_gpt4v_yesno.jsonl", ""): (106, 106, 21, 21),
    ("gemini_box2d_cookbook.jsonl", ""): (0, 0, 4, 4),
    ("molmo_points_olmo_ui.jsonl", ""): (0, 0, 5, 5),
    ("qwen3vl_cookbook_outputs.jsonl", ""): (3, 3, 6, 6),
}


@pytest.mark.real
@pytest.mark.parametrize("source", list(sources()), ids=lambda s: f"{s.file}-{s.part}")
def test_agreement_on_real_replies(source, real_data: Path):
    got = measure(real_data, source)
    agree, with_reference, none, without = AGREEMENT[source.file, source.part]
    assert (got.with_reference, got.without_reference) == (with_reference, without)
    assert got.agree >= agree
    assert got.both_none >= none
