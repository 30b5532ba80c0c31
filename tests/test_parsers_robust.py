"""All parsers: refusals, odd text, hostile text, and replies too long to be read whole."""

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.parser_fuzz import SEEDS, mutate, strings
from evalkit.errors import ConfigError
from evalkit.parsers import PARSERS, Parsed, parse
from evalkit.parsers.clean import MAX_CHARS

REFUSALS = [
    "I'm sorry, I can't assist with that request.",
    "I\u2019m sorry, but I can\u2019t help with that.",
    "Sorry, I can't help with images of people yet.",
    "I'm unable to assist with that.",
    "I cannot determine that from this picture.",
    "I'm sorry, but I cannot answer this question as it is not clear what the blue bar is.",
    "I'm sorry, but I can't identify the 2 people in this picture.",
    "Based on what you provided, I can't answer your question.",
    "抱歉，我无法回答这个问题。",
]

# One letter of noise more must not make the time explode; each of these once did in some parser.
HOSTILE = [
    "(", "[", "{", "[1,", "((1,2),", "<", "<point ", '<points x1="1" ', "</", "<|", "<answer>",
    "<think>", "```", "**", "*", "__", "#### ", "\\boxed{", "\\boxed{1} ", "\\left(", "{1}",
    "answer is ", "answer to ", "1, ", "1-", "1 + 1 ", "=1", "$(", "x1=1 ", "x: 1, y: 2 ", "not ",
    "n't ", "no a b c ", "cross ", "cross not a ", "one ", "twenty ", "there are a total of ", "so ",
    "yes or ", "sorry ", "\n", " ", "\xa0", "\x00", "9", "1,000,", "\ud800", "１", "😀", "(1,2),",
    "[1,2,3,4] ", "answer: (1, 2) ",
]  # fmt: skip


def is_whole(parsed: Parsed) -> bool:
    """An answer and no reason, or the reverse."""
    return (parsed.status == "parsed") == (parsed.answer is not None) == (parsed.reason is None)


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("reply", REFUSALS)
def test_a_refusal_is_blocked(parser: str, reply: str) -> None:
    assert parse(parser, reply) == Parsed(None, "blocked", "the reply is a refusal")


@pytest.mark.parametrize(
    ("parser", "reply", "answer"),
    [
        ("integer", "I'm sorry, it is hard to see and I can't be sure, but the answer is 3", 3),
        ("integer", "I can't help but count again. There are 3 crossings.", 3),
        ("yes_no", "Sorry, I cannot zoom in. Answer: no", "no"),
        ("point", "I'm sorry, I can't be exact: (3, 4)", [3, 4]),
    ],
)
def test_an_apology_with_an_answer_is_an_answer(parser: str, reply: str, answer: object) -> None:
    assert parse(parser, reply).answer == answer


def test_an_unknown_parser_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"No parser named 'float'.*integer, yes_no, point, box"):
        parse("float", "3")


@pytest.mark.parametrize(
    ("parser", "end", "answer"),
    [
        ("integer", "The answer is 4.", 4),
        ("integer", "So they cross twice.", 2),
        ("yes_no", "The answer is no.", "no"),
        ("point", "Answer: (3, 4)", [3, 4]),
        ("box", "[1, 2, 3, 4]", [1, 2, 3, 4]),
    ],
)
def test_the_end_of_a_huge_reply_is_read(parser: str, end: str, answer: object) -> None:
    assert parse(parser, "Let me think about it. " * 50_000 + end).answer == answer


def test_the_beginning_of_a_huge_reply_is_not_read_and_the_reason_says_so() -> None:
    parsed = parse("integer", "They cross 3 times. " + "The sky is blue. " * 1_000)
    assert parsed.status == "unparsed"
    assert "(only the last 5,9" in str(parsed.reason)
    assert parse("yes_no", "Yes. " + "The sky is blue. " * 1_000).answer is None


def test_what_is_thought_does_not_count_for_the_length() -> None:
    assert parse("yes_no", f"<think>{'No. ' * 10 * MAX_CHARS}</think>\nYes.").answer == "yes"


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    assert all(is_whole(read(text)) for read in PARSERS.values())


@given(st.integers(0, 10**6), st.sampled_from(SEEDS))
def test_any_mutation_is_read(seed: int, reply: str) -> None:
    mutated = mutate(reply, random.Random(seed))
    assert all(is_whole(read(mutated)) for read in PARSERS.values())


def test_random_strings_are_read() -> None:
    for text in strings(1_500, seed=7):
        assert all(is_whole(read(text)) for read in PARSERS.values())


@given(st.floats(-1e6, 1e6, allow_nan=False), st.floats(-1e6, 1e6, allow_nan=False))
def test_every_written_point_comes_back(x: float, y: float) -> None:
    x, y = round(x, 6), round(y, 6)
    expected = [float(f"{x:.6f}"), float(f"{y:.6f}")]
    assert parse("point", f"({x:.6f}, {y:.6f})").answer == expected
    assert parse("point", f'<point x="{x:.6f}" y="{y:.6f}" alt="1">').answer == expected


@given(st.integers(-(10**9), 10**9))
def test_every_written_integer_comes_back(value: int) -> None:
    for form in ("{}", "{{{}}}", "\\boxed{{{}}}", "The answer is **{}**.", "The number is {}."):
        assert parse("integer", form.format(value)).answer == value


def seconds(read: Callable[[str], Parsed], text: str) -> float:
    start = time.perf_counter()
    read(text)
    return time.perf_counter() - start


@pytest.mark.parametrize("parser", PARSERS)
def test_hostile_text_costs_no_more_than_it_is_long(parser: str) -> None:
    """A megabyte of each piece. The bound is loose, as machines differ: explosions take far longer."""
    read = PARSERS[parser]
    for piece in HOSTILE:
        text = piece * (1_000_000 // len(piece))
        assert min(seconds(read, text) for _ in range(2)) < 0.5, piece
