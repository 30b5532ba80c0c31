"""point and box: the forms that models write, and replies that give several places or half of one."""

import pytest

from evalkit.parsers import parse

POINTS = [
    ("(12, 12)", [12, 12]),
    ("The red square is at **(1, 4)**.", [1, 4]),
    ("[12.5,3.0]", [12.5, 3]),
    ("12, 7", [12, 7]),
    ("12 7", [12, 7]),
    ("`12,7`", [12, 7]),
    ("（１２，７）", [12, 7]),
    ("\\boxed{(3, 4)}", [3, 4]),
    ("\\left( 3, 4 \\right)", [3, 4]),
    ("{3, 4}", [3, 4]),
    ("(-1, 4)", [-1, 4]),
    ("(.5, 0.25)", [0.5, 0.25]),
    ("(007, 023)", [7, 23]),
    ("(42%, 27%)", [42, 27]),
    ("(120px, 80 px)", [120, 80]),
    ("[[470, 12]]", [470, 12]),
    ("x: 12, y: 7", [12, 7]),
    ("x = 12 and y = 7", [12, 7]),
    ("(x=12, y=7)", [12, 7]),
    ("column 12, row 7", [12, 7]),
    ("It is in row 7, column 12.", [12, 7]),  # names beat order
    ("The grid coordinates (x, y) are (3, 4).", [3, 4]),
    ('{"x": 3, "y": 4}', [3, 4]),
    ('{"point_2d": [394, 105], "label": "cup"}', [394, 105]),
    ('```json\n[{"point_2d": [394, 105]}]\n```', [394, 105]),
    ('{"bbox_2d": [1, 2, 3, 4], "point": [2, 3]}', [2, 3]),
    ('<point x="42.0" y="27.0" alt="a (left)">a</point>', [42, 27]),
    ("<point y='27' x='42'/>", [42, 27]),
    ('<points x1="154" y1="104" alt="a">a</points>', [154, 104]),
    ('<points coords="1 1 199 039" alt="x">', [199, 39]),
    ("<|point_start|>(12,7)<|point_end|>", [12, 7]),
    ("(3, 4). So the cell is (3, 4).", [3, 4]),  # the same point twice is one point
    ("Not (1, 2) but (3, 4).", [3, 4]),
    ("(1, 2) is not the answer; look at (3, 4).", [3, 4]),
    ("The corners are (0, 0) and (23, 23).\nAnswer: (3, 4)", [3, 4]),
    ("The answer is (1, 2). No, the final answer is (3, 4).", [3, 4]),  # the last marked answer
    ("Answer: (3, 4)\nAnother candidate would be (5, 6).", [3, 4]),
    ("<think>(1, 2)? (3, 4)?</think>(5, 6)", [5, 6]),
    ('[{"point_2d": [1, 2]}, {"point_2d": [3,', [1, 2]),  # one complete point is given
]

NO_POINT = [
    "",
    "There are none.",
    "[[470,]]",
    "470",
    "[10, 20, 110, 220]",
    '{"x": 10, "y": 20, "width": 5, "height": 5}',
    '<point x="42.0" y="27',
    '<points x1="9.1" y1="11.7" x2="17.2" y2="41.3" x6="34.1"',
    '<points coords="1 1 199">',
    "(3, 4",
    "(3.5)",
    "(1, 2, 3)",
    "(about 3, maybe 4)",
    "It is near the middle of the 24 x 24 grid.",
    "Answer: []",
    "(3, 4) is not the answer.",
    "The red square is in the 12th column.",
    f"({'9' * 400}, 1)",
]

BOXES = [
    ("[468.3, 0.9, 640, 117]", [468.3, 0.9, 640, 117]),
    ("```\n[633, 388, 749, 424]\n```", [633, 388, 749, 424]),
    ('```json\n[\n\t{"bbox_2d": [10, 20, 110, 220], "label": "dish"}\n]\n```', [10, 20, 110, 220]),
    ('{"box_2d": [393, 67, 574, 206]}', [393, 67, 574, 206]),  # the order of the text, y first here
    ("[30, 40, 10, 20]", [30, 40, 10, 20]),  # never put right
    ("{'bbox': (1, 2, 3, 4)}", [1, 2, 3, 4]),
    ("[[1, 2, 3, 4]]", [1, 2, 3, 4]),
    ("[[[1, 2], [3, 4]]]", [1, 2, 3, 4]),
    ("1 2 3 4", [1, 2, 3, 4]),
    ("[１０，２０，３０，４０]", [10, 20, 30, 40]),
    ("<|box_start|>(10,20),(30,40)<|box_end|>", [10, 20, 30, 40]),
    ("<|object_ref_start|>cup<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|><|im_end|>", [1, 2, 3, 4]),
    ("<box>(10,20),(30,40)</box>", [10, 20, 30, 40]),
    ("<ref>cup</ref><box>[[10, 20, 30, 40]]</box>", [10, 20, 30, 40]),
    ("<box>(30,40),(10,20)</box>", [10, 20, 30, 40]),  # two corners in any order
    ("<quad>(10,20),(30,18),(32,40),(11,42)</quad>", [10, 18, 32, 42]),
    ("{<10><20><30><40>}", [10, 20, 30, 40]),
    ("(10,20),(30,40)", [10, 20, 30, 40]),
    ("from (10, 20) to (30, 40)", [10, 20, 30, 40]),
    ("top-left (10, 20), bottom-right (30, 40)", [10, 20, 30, 40]),
    ("[(284, 572), (410, 572), (410, 829), (284, 829)]", [284, 572, 410, 829]),
    ("[[284, 572], [410, 572], [410, 829], [284, 829]]", [284, 572, 410, 829]),
    ("[284, 572, 410, 572, 410, 829, 284, 829]", [284, 572, 410, 829]),
    ("284, 572, 410, 572, 410, 829, 284, 829", [284, 572, 410, 829]),
    ("x1=1, y1=2, x2=3, y2=4", [1, 2, 3, 4]),
    ('{"x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4}', [1, 2, 3, 4]),
    ('{"x1": 1, "x2": 3, "y1": 2, "y2": 4}', [1, 2, 3, 4]),
    ("ymin: 2, xmin: 1, ymax: 4, xmax: 3", [2, 1, 4, 3]),
    ("The image is 640x480 (640, 480). The box is [1, 2, 3, 4].", [1, 2, 3, 4]),
    ("[1, 2, 3, 4] and once more [1.0, 2.0, 3.0, 4.0]", [1, 2, 3, 4]),
    ("[1, 2, 3, 4]? No.\nThe correct output is: [5, 6, 7, 8]", [5, 6, 7, 8]),
    ('[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6,', [1, 2, 3, 4]),
    ('{\n{"bbox_2d": [1, 2, 3, 4]}, {', [1, 2, 3, 4]),
]  # fmt: skip

NO_BOX = [
    "",
    "There is no such object.",
    "[[470,]]",
    "(10, 20)",
    '{"point_2d": [10, 20]}',
    "[0.33, 0.56, 0.45",
    '{"box_2d": [1, 2, 3',
    '{"bbox_2d": [1, 2, 3, 4',
    "<|box_start|>(10,20),(30,",
    "[1, 2, 3, 4, 5, 6, 7, 8]",  # eight numbers that are no rectangle
    "[(1, 2), (5, 9), (7, 3), (4, 4)]",
    "[[1, 2], [3, 4], [5, 6]]",
    "[2.88, 0.56, 6.28, 4.45, 1.7, 1.84, 0.75, 0.49, 0.75]",
    "[[0.33,0.56,0.45,0.65]] is not the solution.\nThe correct output is: []",
    "[[0.33,0.56,0.45,0.65]] is not the solution.",
]

TWO_POINTS = "2 different points where one was asked"
THREE_POINTS = "3 different points where one was asked"
TWO_BOXES = "2 different boxes where one was asked"
SEVERAL = [
    ("point", "(3,4) or (5,6)", TWO_POINTS),
    ("point", "[[3, 4], [5, 6], [3, 4]]", TWO_POINTS),
    ("point", '<points coords="1 1 199 239 2 279 307 3 348 335">', THREE_POINTS),
    ("point", '<points coords="0.0 1 221 754 2 514 485\t1.5 9 899 089">', THREE_POINTS),
    ("point", '<point x="1" y="2">a</point> <point x="3" y="4">b</point>', TWO_POINTS),
    ("point", '<points x1="9.1" y1="11.7" x2="17.2" y2="41.3">', TWO_POINTS),
    ("point", "[10, 20, 110, 220]", "no point, but a list of 4 numbers"),
    ("point", "[[470,]]", "no point, but a list of 1 number"),
    ("box", "[1,2,3,4] and [5,6,7,8]", TWO_BOXES),
    ("box", "[[1, 2, 3, 4], [5, 6, 7, 8]]", TWO_BOXES),
    ("box", '[{"box_2d": [1, 2, 3, 4]}, {"box_2d": [5, 6, 7, 8]}, {"box_2d"', TWO_BOXES),
    ("box", "<|box_start|>(1,2),(3,4)<|box_end|>, <|box_start|>(5,6),(7,8)<|box_end|>", TWO_BOXES),
    ("box", "[1, 2, 3, 4] is not it.\nThe correct output is: []", "the marked answer holds no box"),
    ("box", "(10, 20)", "no box, but a list of 2 numbers"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("parser", "reply", "values"),
    [("point", *row) for row in POINTS] + [("box", *row) for row in BOXES],
)
def test_answers(parser: str, reply: str, values: list[float]) -> None:
    parsed = parse(parser, reply)
    assert (parsed.answer, parsed.status, parsed.reason) == (values, "parsed", None)
    assert all(type(value) is float for value in parsed.answer)


@pytest.mark.parametrize(
    ("parser", "reply"), [("point", reply) for reply in NO_POINT] + [("box", reply) for reply in NO_BOX]
)
def test_no_answer(parser: str, reply: str) -> None:
    parsed = parse(parser, reply)
    assert (parsed.answer, parsed.status) == (None, "unparsed")
    assert parsed.reason


@pytest.mark.parametrize(("parser", "reply", "reason"), SEVERAL)
def test_reasons(parser: str, reply: str, reason: str) -> None:
    parsed = parse(parser, reply)
    assert (parsed.status, parsed.reason) == ("unparsed", reason)
