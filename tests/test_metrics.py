"""Metrics on values worked out by hand."""

import pytest

from evalkit.metrics import METRICS, iou

SIZE = (480, 240)  # a grid unit is 20 px wide and 10 px high


@pytest.mark.parametrize(
    ("answer", "gold", "correct"), [(3, 3, True), (3, 2, False), ("yes", "yes", True), ("no", "yes", False)]
)
def test_exact(answer, gold, correct):
    assert METRICS["exact"](answer, gold, SIZE).correct is correct


@pytest.mark.parametrize(
    ("answer", "gold", "distance", "correct", "floor_correct"),
    [
        ([250, 125], [250, 125], 0, True, True),
        ([310, 125], [250, 125], 3, True, True),  # 60 px are 3 units across: still in
        ([250, 155], [250, 125], 3, True, True),  # 30 px are 3 units down
        ([310.1, 125], [250, 125], 3.005, False, True),  # just out, while the cells are 3 apart
        ([259, 125], [321, 125], 3.1, False, False),  # cells 12 and 16
        ([259, 125], [300.5, 125], 2.075, True, True),  # cells 12 and 15
        ([241, 125], [301, 135], 3.16228, False, False),  # (3, 1) apart
        ([-20, 5], [30, 5], 2.5, True, True),  # off the image, as a model may say; cells -1 and 1
    ],
)
def test_within_3_grid_units(answer, gold, distance, correct, floor_correct):
    score = METRICS["within_3_grid_units"](answer, gold, SIZE)
    assert score.distance == pytest.approx(distance, abs=1e-4)
    assert (score.correct, score.correct_floor_cell) == (correct, floor_correct)


@pytest.mark.parametrize(
    ("answer", "gold", "overlap"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1),
        ([0, 0, 10, 10], [5, 0, 15, 10], 50 / 150),
        ([0, 0, 10, 10], [0, 0, 10, 5], 0.5),  # exactly one half is correct
        ([0, 0, 10, 10], [0, 0, 10, 4.99], 0.499),
        ([0, 0, 10, 10], [10, 0, 20, 10], 0),  # touching
        ([10, 10, 0, 0], [0, 0, 10, 10], 0),  # swapped corners are not put right
        ([10, 0, 0, 10], [0, 0, 10, 10], 0),  # nor when only x is swapped
        ([0, 10, 10, 0], [0, 0, 10, 10], 0),  # or only y
        ([5, 5, 5, 5], [5, 5, 5, 5], 0),  # no area
        ([0.5, 0.5, 1.5, 1.5], [0, 0, 2, 2], 0.25),  # continuous: with + 1 it would be 4 / 9
    ],
)
def test_iou(answer, gold, overlap):
    assert iou(answer, gold) == pytest.approx(overlap)
    assert iou(gold, answer) == pytest.approx(overlap)
    assert METRICS["iou_50"](answer, gold, SIZE).correct is (overlap >= 0.5)
