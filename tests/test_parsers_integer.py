"""integer: what counts as the one count of a reply. Real replies are shortened to what is hard in them."""

import pytest

from evalkit.parsers import parse

MARKED = [
    ("{3}", 3),
    ("{ 3 }", 3),
    ("{two}", 2),
    ("{3: intersections}", 3),
    ("\\boxed{two}", 2),
    ("$\\boxed{21} \\text{ jumps}$", 21),
    ("\\boxed{\\text{4}}", 4),
    ("$XA=\\boxed{\\sqrt{\\frac{145}{29}}=11}$.", 11),
    ("{0} - The lines never meet. They form 2 similar shapes.", 0),
    ("I can count {4} squares of different sizes: 3 smaller squares nested and 1 larger square", 4),
    ("There are four red and four blue lines. Counting each crossing, I count {16} points.", 16),
    ("It could be {2}. Looking again, {3}.", 3),  # the last marked answer wins
    ("We get 20-16=\\boxed{4}, so the question mark stands for \\boxed{8}.", 8),
    ("Write it as e.g., {5}. My answer: {2}", 2),  # the prompt's example is no answer
    ("The answer is 3.", 3),
    ("the answer is **4**", 4),
    ("**Answer:** 5", 5),
    ("Final Answer: **two**", 2),
    ("The correct answer should be 75", 75),
    ('So the answer to the question "What number is shown?" is **1**.', 1),
    ("#### 12", 12),
    ("Multiple choice.\n\nA) 1\nB) 2\nC) 3\n\nAnswer: C) 3", 3),
    ("<s> A) 5", 5),
    ("（C）0", 0),
    ("(B) 12 times", 12),
    ('```json\n{"answer": 3}\n```', 3),
    ("{'count': 3}", 3),
    ("Answer: There are 5 objects left after subtracting the rest.", 5),
    ("The answer is not 3 but 4.", 4),
    ("<think>2, no, 5 points</think>\n\n3", 3),
    ("<think>2 or 3?</think><answer>2</answer>", 2),
    ("The answer is 1.\n\nQuestion: How many bars are there?\n\nAnswer: 7", 1),  # asks itself on
    ("I'm sorry, the picture is small, but the answer is 3.", 3),
    ("So it is **2**.\n```python\nprint(35)\n```\n```\n35\n```", 2),
]

BRIEF = [
    ("3", 3),
    ("3.", 3),
    ("001", 1),
    ("\u00a04", 4),
    ("３", 3),
    ("\u200b5\ufeff", 5),
    ("٣", 3),
    ("2</s>", 2),
    ("answer: \ufffd 3", 3),  # a byte that was no UTF-8
    ("2<|im_end|>", 2),
    ("3.0", 3),
    ("9.00", 9),
    ("1,000", 1000),
    ("-1", -1),
    ("six", 6),
    ("Twenty-one.", 21),
    ("thirty", 30),
    ("3 times.", 3),
    ("About 20 years", 20),
    ("None.", 0),
    ("Never", 0),
    ("Zero", 0),
    ("once", 1),
    ("Twice.", 2),
    ("**Two**", 2),
]

STATED = [
    ("The lines in this image do not intersect at any point. They are two separate, bent lines.", 0),
    ("The lines intersect 2 times. They cross each other once near the top left and once at the right.", 2),
    ("They cross 2 times: once near the top left and once near the bottom right.", 2),
    ("The lines touch each other **four** times.", 4),
    ("There are no intersections between the two lines.", 0),
    ("There is no point where they meet.", 0),
    ("The lines never cross.", 0),
    ("The two lines cross at three points.", 3),
    ("They never touch each other.", 0),
    ("They don't actually touch each other.", 0),
    ("They don\u2019t touch.", 0),
    ("The lines do not have any points in common.", 0),
    ("There are none.", 0),
    ("None of the lines cross.", 0),
    ("They do not cross even once.", 0),
    ("The two lines run parallel without touching.", 0),
    ("They intersect once and do not cross again.", 1),
    ("They intersect once, with no other crossing.", 1),
    ("The lines do not touch on the left, but they cross twice on the right.", 2),
    ("The blue and red lines intersect only once near the bottom.", 1),
    ("The lines meet at a single point.", 1),
    ("The lines touch each other at one point.", 1),
    ("There is one intersection point, in the middle of the two lines.", 1),
    ("I can see 3 distinct crossing points.", 3),
    ("The number of intersection points is 3.", 3),
    ("Intersections: 3", 3),
    ("The lines intersect at (3, 4), (5, 6) and (7, 8), so 3 times.", 3),
    ("There are three bars with values smaller than 6.", 3),
    ("There are 17 flocks with at least 17 birds but fewer than 33 birds.", 17),
    ("The sum is 8 + 10 = **18**.\n\nDo you have other questions?", 18),
    ("4 - 4 = 0\n\nTherefore, there are 0 objects left.", 0),
    ("So the cost is $8 + $10 = $18. Therefore, Chase will spend $18.", 18),
    ("The best has 10 and the worst 8. Therefore, the best is 10 - 8 = 2 more accurate.", 2),
    ("There are 7 objects.\n\n* 4 balls\n* 3 cubes", 7),
    ("1. One at the left.\n2. One at the right.\n\nIn total, they cross 2 times.", 2),
    ("I see 2 crossings. Wait, there are 3 crossings.", 3),
    ('Counting the <points coords="1 1 073 160 2 173 600">boats</points> shows a total of 2.', 2),
    ("The bus has 30 passengers on board.", 30),
    ("In the image, there are two windows without color.", 2),
]  # fmt: skip

UNCOMMITTED = [
    "",
    "   \n",
    "It might be 2 or 3.",
    "2 or 3",
    "two or three times",
    "between 1 and 3",
    "They cross between 1 and 3 times.",
    "0 to 10",
    "2-3",
    "The range of the numbers is 0 to 10.",
    "4000 and 5000",
    "1, 2, 3, 4, 5",
    "10, 20, 30",
    "1,2,3",
    "(10,10)",
    "rows={10} columns={10}",
    "rows={4} columns={3}",
    "\\boxed{0 or 2}",
    "\\boxed{0.6}",
    "\\boxed{2 1/2}",
    "\\boxed{20 \\pi}",
    "\\boxed{54+54}",
    "\\boxed{G}. The 3 animals stand in a row.",
    "The answer is B.",
    "0.6",
    "The sum is 83.13%.",
    "The city bus gets **3.4** miles per gallon.",
    "10²",
    "1/2",
    "They cross at least 2 times.",
    "They cross more than once.",
    "The lines do not cross 3 times.",
    "They do not only cross once.",
    "It is not clear how many times the lines cross.",
    "I cannot see where the lines cross.",
    "The picture shows a blue line and a red line.",
    "There are two lines, one blue and one red.",
    "I can see two zig-zagging lines - one blue and one red - that form a pattern.",
    "The two lines meet in the middle.",
    "They cross once at the left and again at the right.",  # two crossings, but no count of them
    "Once the lines reach the top, they bend.",
    "The 2nd line is longer.",
    "The image is 384 by 384 pixels and the lines are 2 points wide.",
    "The highest value is 90 and the lowest is 1. The difference is 89.",
    "<think>There are 3 crossings",
    "<think>There are 3 crossings</think>",
    "{",
    "\\boxed{",
    "\\boxed{3",
    "9" * 400,
    "The answer is " + "9" * 400,
]


@pytest.mark.parametrize(("reply", "answer"), MARKED + BRIEF + STATED)
def test_answers(reply: str, answer: int) -> None:
    parsed = parse("integer", reply)
    assert (parsed.answer, parsed.status, parsed.reason) == (answer, "parsed", None)
    assert type(parsed.answer) is int


@pytest.mark.parametrize("reply", UNCOMMITTED)
def test_commits_to_nothing(reply: str) -> None:
    parsed = parse("integer", reply)
    assert (parsed.answer, parsed.status) == (None, "unparsed")
    assert parsed.reason


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty reply"),
        ("2 or 3", "offers several numbers, or none that is whole"),
        ("rows={4} columns={3}", "numbers for columns, rows: which one is the answer is not said"),
        ("\\boxed{0.6}", "offers several numbers, or none that is whole"),
        ("<think>2", "the reasoning never ends"),
        ("It is hard to say.", "no number"),
    ],
)
def test_reasons(reply: str, reason: str) -> None:
    assert parse("integer", reply).reason == reason
