"""What a model is trained to reply is what the harness reads as correct, in every frame."""

from pathlib import Path

import pytest

from evalkit.datasets.build import build
from evalkit.datasets.disk import read_split
from evalkit.errors import ConfigError
from evalkit.frames import Frame
from evalkit.prompts import make_answer, resolve_frame
from evalkit.records import Sample
from evalkit.scoring import Scorer
from evalkit.task import PromptVariant, load_task

QWEN, LLAVA = Frame("resized_pixel"), Frame("padded_unit")


@pytest.mark.parametrize("name", ["line_intersection", "line_tracing", "grid_patch"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava"])
def test_every_trained_answer_scores_as_correct(name, family, tmp_path):
    build(name, tmp_path, n=30)
    task = load_task(name)
    variant = task.variant(family)
    frame = resolve_frame(variant, None, family)
    for sample in read_split(tmp_path, name, "train").samples:
        answer = make_answer(task, variant, frame, sample)
        scored = Scorer(task.parser, task.metric, frame).score(
            answer, "stop", sample.gold, sample.image_size_wh
        )
        assert scored["verdict"] == "correct", (answer, sample.gold)


def sample(gold, variables, size_wh=(640, 480)):
    return Sample("s1", "i1", "train", Path("x.png"), size_wh, "0", gold, "", variables, {})


@pytest.mark.parametrize(
    ("family", "frame", "expected"),
    [
        # 640 x 480 is resized to 644 x 476: x * 1.00625, y * 0.99167
        (
            "qwen2_5_vl",
            QWEN,
            '```json\n[\n\t{"bbox_2d": [101, 50, 402, 397], "label": "the \'big\' dog"}\n]\n```',
        ),
        # padded to 640 x 640 with 80 px above: y is (50 + 80) / 640
        ("llava", LLAVA, "[0.16, 0.20, 0.62, 0.75]"),
        (None, Frame("pixel"), "[100, 50, 400, 400]"),
    ],
)
def test_boxes(family, frame, expected):
    task, one = load_task("refcoco"), sample([100, 50, 400, 400], {"expression": 'the "big" dog'})
    variant = task.variant(family)
    settled = resolve_frame(variant, frame, "m")
    answer = make_answer(task, variant, settled, one)
    assert answer == expected
    scored = Scorer(task.parser, task.metric, settled).score(answer, "stop", one.gold, one.image_size_wh)
    assert scored["verdict"] == "correct"
    assert scored["iou"] > 0.97


@pytest.mark.parametrize(
    ("point", "expected"),
    [([13.3, 10], "(0, 0)"), ([26.7, 20], "(1, 1)"), ([640, 480], "(23, 23)"), ([0, 0], "(0, 0)")],
)
def test_points_are_named_by_the_cell_that_holds_them(point, expected):
    task = load_task("pixmo_points")
    variant = task.variant("llava")
    answer = make_answer(task, variant, Frame("grid_24"), sample(point, {"label": "dog"}))
    assert answer == expected


@pytest.mark.parametrize(("kind", "expected"), [("percent", "(50.0, 25.0)"), ("per_mille", "(500, 250)")])
def test_other_frames_speak_x_first(kind, expected):
    task = load_task("pixmo_points")
    variant = PromptVariant(prompt="?", frame=kind, answer="({{ x }}, {{ y }})")
    assert make_answer(task, variant, Frame(kind, "yx"), sample([320, 120], {"label": "dog"})) == expected


def test_a_wording_without_an_answer_cannot_be_trained_on():
    task = load_task("pixmo_points")
    with pytest.raises(ConfigError, match="'pixmo_points' has no `answer:`"):
        make_answer(task, task.variant("molmo"), Frame("percent"), sample([1, 1], {"label": "dog"}))
