"""yes_no: which word, or which statement about two nodes, commits."""

import pytest

from evalkit.parsers import parse

ANSWERS = [
    ("Yes", "yes"),
    ("no.", "no"),
    ("ＹＥＳ", "yes"),
    ("YES!!", "yes"),
    (" \u00a0Yes, they are.", "yes"),
    ("**No**, they are separate.", "no"),
    ("<s> No</s>", "no"),
    ("\u201cYes\u201d", "yes"),
    ("Nope", "no"),
    ("Yeah, I think so.", "yes"),
    ("(B) No", "no"),
    ("A. Yes", "yes"),
    ("Yes, A meets B; there is no gap.", "yes"),  # the opening word wins
    ("No, in the picture the path from A leads to C, yes, but not to D.", "no"),
    ("No - the line from A ends at C.", "no"),
    ("No there is no line between them.", "no"),
    ("No path connects A and D.", "no"),
    ("No gap is visible. Node A is connected to node B.", "yes"),  # "no" belongs to the gap
    ("No node is isolated, so yes.", "yes"),
    ("The line from A goes to C. Therefore, no.", "no"),
    ("I think yes.", "yes"),
    ("Let me trace it. Yes, they are joined.", "yes"),
    ("A joins C, not D. So the answer is no.", "no"),
    ("Answer: Yes", "yes"),
    ("\\boxed{No}", "no"),
    ("{Yes}", "yes"),
    ('{"answer": "yes"}', "yes"),
    ("<answer>No</answer>", "no"),
    ("<think>Yes? Or no?</think>No", "no"),
    ("It may look as if they meet.\n\n**Final Answer**: **No**, they do not.", "no"),
    ("Yes. Tracing it again, the line from A ends at C. Final answer: No", "no"),  # marked as final
    ("The nodes are not connected.", "no"),
    ("Node A is not connected to node D.", "no"),
    ("Node A isn't directly connected to D.", "no"),
    ("A and D are disconnected.", "no"),
    ("There is no path between A and D.", "no"),
    ("There isn't a line from A to D.", "no"),
    ("Node A is connected to node B.", "yes"),
    ("Both nodes are directly connected by a curve.", "yes"),
    ("There is a red line connecting A and B.", "yes"),
    ("A path leads from A to B.", "yes"),
    ("Is node A connected to node D? Node A is not connected to node D.", "no"),
    ("A line runs near D. Therefore, node A is not connected to node D.", "no"),
    ("I'm sorry for the delay. Yes.", "yes"),
]

UNCOMMITTED = [
    "",
    "It could be yes or no.",
    "Yes or no.",
    "Yes and no.",
    "yes/no",
    "Nothing joins them.",
    "Not sure",
    "No doubt about it.",
    "No idea.",
    "Nothing can be said. None.",
    "Note the lines. Yesterday was the same.",
    "I cannot tell whether A is connected to D.",
    "A might be connected to D.",
    "Is A connected to D?",
    "The answer is 3.",
    "The vertical line and the horizontal line appear to be of equal length.",
    "The colors on tiles A and B are the same.",
    "the value of x is 5, not smaller than 5.",
    "Node A is connected to B. Node A is not connected to D.",  # which of them was asked is not known
    "<think>Yes",
]


@pytest.mark.parametrize(("reply", "answer"), ANSWERS)
def test_answers(reply: str, answer: str) -> None:
    parsed = parse("yes_no", reply)
    assert (parsed.answer, parsed.status, parsed.reason) == (answer, "parsed", None)


@pytest.mark.parametrize("reply", UNCOMMITTED)
def test_commits_to_nothing(reply: str) -> None:
    parsed = parse("yes_no", reply)
    assert (parsed.answer, parsed.status) == (None, "unparsed")
    assert parsed.reason
