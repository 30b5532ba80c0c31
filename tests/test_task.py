"""Task files: those that come with evalkit are sound; broken ones get one clear line each."""

from pathlib import Path

import pytest
import yaml

from evalkit.errors import ConfigError
from evalkit.metrics import METRICS
from evalkit.parsers import PARSERS
from evalkit.task import METRIC_NAMES, PARSER_NAMES, load_task, task_files
from evalkit.validate import task_faults

FAMILIES = {"qwen2_5_vl", "llava", "molmo", "gemini", "gpt", "glamm", "instructblip"}
NAMES = ["grid_patch", "line_intersection", "line_tracing", "pixmo_points", "refcoco"]


def test_five_tasks():
    assert [path.stem for path in task_files()] == NAMES


@pytest.mark.parametrize("path", task_files(), ids=lambda p: p.stem)
def test_shipped_tasks_are_sound(path):
    assert task_faults(path, FAMILIES) == []


def test_names_are_those_of_the_functions():
    assert set(METRIC_NAMES) == set(METRICS)
    assert set(PARSER_NAMES) == set(PARSERS)


def test_the_papers_question():
    assert (
        load_task("line_intersection").prompt == "How many times do the blue and red lines touch each other?"
    )


def test_families_have_their_wording():
    task = load_task("refcoco")
    assert "JSON" in task.variant("qwen2_5_vl").prompt
    assert task.variant("qwen2_5_vl").frame == "model"
    assert task.variant("gpt").frame == "pixel"  # no wording of its own: the default's
    assert task.variant(None) == task.default_variant


def test_unknown_task_names_the_known():
    with pytest.raises(ConfigError, match=r"No task named 'line_trace' .* grid_patch, line_intersection"):
        load_task("line_trace")


def broken(tmp_path, base="grid_patch", **changes):
    data = yaml.safe_load(next(p for p in task_files() if p.stem == base).read_text())
    for key, value in changes.items():
        if value is ...:
            del data[key]
        else:
            data[key] = value
    path = tmp_path / f"{data.get('name', base)}.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"promt": "x"}, "unknown key 'promt'. Known keys: name, title"),
        ({"metric": ...}, "key 'metric' is missing"),
        ({"parser": "points"}, "no parser named 'points'; known: "),
        ({"metric": "accuracy"}, "no metric named 'accuracy'; known: exact, within_3_grid_units, iou_50"),
        ({"metric": "exact"}, "metric 'exact' does not fit parser 'point'"),
        (
            {"parser": "integer"},
            "parser 'integer' cannot answer data set 'grid_patch', whose gold is point_xy_px",
        ),
        ({"dataset": "imagenet"}, "no data set named 'imagenet'"),
        ({"prompt": "Where is {{ colour }}?"}, "prompt: no sample has a variable 'colour'; allowed: "),
        ({"prompt": "Where {{ is"}, "prompt: not a valid template"),
        ({"frame": None}, "the wording 'prompt' of a task with parser 'point' needs a frame"),
        ({"frame": "pixels"}, "no frame named 'pixels'; known: model, pixel"),
        ({"chance": 4.52}, "chance: Input should be less than or equal to 1 (found 4.52)"),
        ({"max_new_tokens": "64"}, "max_new_tokens: Input should be a valid integer (found '64')"),
        ({"examples": []}, "examples: "),
        (
            {"examples": [{"reply": "(3, 4)", "answer": [4, 3]}]},
            "examples.1: parser point reads [3.0, 4.0] in '(3, 4)', expected [4, 3]",
        ),
        ({"examples": [{"reply": "here", "answer": None, "answr": None}]}, "unknown key 'examples.0.answr'"),
        (
            {"family_prompts": {"mollmo": {"prompt": "Point.", "frame": "model"}}},
            "family_prompts.mollmo: no model of the registry has this family; known: gemini",
        ),
    ],
)
def test_one_line_a_fault(tmp_path, changes, fault):
    path = broken(tmp_path, **changes)
    lines = task_faults(path, FAMILIES)
    assert len(lines) == 1, lines
    assert fault in lines[0]
    assert lines[0].startswith(str(path))
    assert "\n" not in lines[0]


def test_name_must_match_the_file(tmp_path):
    path = broken(tmp_path).rename(tmp_path / "other.yaml")
    assert "does not match the file's name" in task_faults(path, FAMILIES)[0]


def test_a_task_of_ones_own(tmp_path):
    path = broken(tmp_path, name="my_grid", title="Mine", family_prompts={})
    assert load_task(str(path)).name == "my_grid"
    assert load_task("my_grid", tmp_path).title == "Mine"
    assert Path(path).exists()
