"""Contact sheets of target maps: drawn for every synthetic task and family, and what cannot be drawn is one line."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from evalkit.cli import main
from evalkit.datasets.build import build
from evalkit.datasets.disk import read_split
from evalkit.datasets.sheet import Target, draw_target

TASKS = ("line_intersection", "line_tracing", "grid_patch")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for task in TASKS:
        build(task, folder, n=10)
    return folder


def sheet(data_dir, *words):
    return CliRunner().invoke(main, ["data", "sheet", *words, "--data", str(data_dir)])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava"])
def test_targets_are_drawn(task, family, data_dir):
    result = sheet(data_dir, task, "--targets", "--family", family)
    assert result.exit_code == 0, result.output
    path = data_dir / task / f"targets-{family}.png"
    assert str(path) in result.output
    with Image.open(path) as drawn:
        green = np.asarray(drawn.convert("RGB")).astype(int)
    assert ((green[..., 1] - green[..., 0]) > 40).any()


def test_a_plain_sheet_and_bad_options(data_dir):
    assert sheet(data_dir, "grid_patch").exit_code == 0
    for words, message in (
        (("joke",), "No data set named 'joke'"),
        (("grid_patch", "--targets", "--family", "molmo"), "No local family named 'molmo'"),
        (("grid_patch", "--targets", "--layout", "crop"), "--layout is of llava alone"),
        (
            ("grid_patch", "--targets", "--family", "llava", "--max-pixels", "9"),
            "--max-pixels is of qwen2_5_vl",
        ),
    ):
        result = sheet(data_dir, *words)
        assert result.exit_code == 1
        assert message in result.output


def test_a_target_lies_where_its_tokens_do(data_dir):
    """One token of 2 x 2 over an image of 672 px, padded on the left by as much as it is wide."""
    sample = read_split(data_dir, "grid_patch", "train").samples[0]
    patches = np.array([[False, False], [False, True]])
    drawn = draw_target(sample, Target(patches, patches.ravel().astype(float), (-672.0, 0.0, 672.0, 672.0)))
    assert drawn.size == (1344, 672)
    pixels = np.asarray(drawn).astype(int)
    greenish = (pixels[..., 1] - pixels[..., 0]) > 60
    rows, cols = np.nonzero(greenish)
    assert rows.min() >= 336
    assert cols.min() >= 672
    assert greenish[336:, 672:].mean() > 0.9
