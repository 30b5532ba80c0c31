"""Exports read back by who they are for: every field and every pixel equals the set's."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support import cli, cli_json

from evalkit.datasets import DATASETS
from evalkit.datasets.build import build
from evalkit.datasets.disk import pixels_sha256, read_split
from evalkit.datasets.place import split_entry, write_metadata
from evalkit.prompts import make_answer, make_prompt, resolve_frame
from evalkit.task import load_task

SYNTHETIC = ("line_intersection", "line_tracing", "grid_patch")
TASKS = (*SYNTHETIC, "pixmo_points", "refcoco")
HOSTILE = 'a "tab\t" and\nnewline, =1+1 | <b>`x`</b> ünï \u2028 \ud800'


def photographs(folder, dataset, splits):
    """A small set as `data prepare` leaves it: three images, two questions each."""
    entries = {}
    for split in splits:
        target = folder / dataset / split
        (target / "images").mkdir(parents=True)
        rows = []
        for i in range(3):
            rng = np.random.default_rng([i, len(split)])
            pixels = rng.integers(0, 255, (20 + i, 30, 3), np.uint8)
            Image.fromarray(pixels).save(target / f"images/{i}.jpg", quality=95)
            with Image.open(target / f"images/{i}.jpg") as image:
                sha256 = pixels_sha256(image.size, image.convert("RGB").tobytes())
            for k in range(2):
                box = [1, 2 + k, 20.5, 15]
                point = dataset == "pixmo_points"
                rows.append(
                    {
                        "file_name": f"images/{i}.jpg",
                        "sample_id": f"{split}/{i}#{k}",
                        "image_id": f"{i}",
                        "split": split,
                        ("label" if point else "expression"): HOSTILE if k else "NA",
                        "gold": [3.25, 4] if point else box,
                        "stratum": "small",
                        "width": 30,
                        "height": 20 + i,
                        "pixels_sha256": sha256,
                        "geometry": {"point_xy": [3.25, 4]} if point else {"bbox_xyxy": box},
                    }
                )
        write_metadata(target, rows)
        entries[split] = split_entry(rows, "made | for <tests>", "CC BY 4.0")
    (folder / dataset / "dataset.json").write_text(json.dumps({"dataset": dataset, "splits": entries}))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for task in SYNTHETIC:
        build(task, folder, n=20)
    photographs(folder, "pixmo_points", ("train", "test"))
    photographs(folder, "refcoco", ("val", "testA", "testB"))
    return folder


def splits_of(data, task):
    names = sorted(path.parent.name for path in (data / task).glob("*/metadata.jsonl"))
    return {name: read_split(data, task, name) for name in names}


def clean(value):
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def same_pixels(image, sample):
    return pixels_sha256(image.size, image.convert("RGB").tobytes()) == sample.pixels_sha256


def check_row(task, sample, row, variant=None):
    """All fields of a row as exported, against the sample."""
    variant = variant or task.default_variant
    gold = [float(v) for v in sample.gold] if isinstance(sample.gold, list) else sample.gold
    expected = {
        "sample_id": sample.sample_id,
        "image_id": sample.image_id,
        "split": sample.split,
        "question": clean(make_prompt(task, variant, sample).text),
        "answer": clean(make_answer(task, variant, resolve_frame(variant, None, "any"), sample)),
        "gold": gold,
        "stratum": sample.stratum,
        "width": sample.image_size_wh[0],
        "height": sample.image_size_wh[1],
        "pixels_sha256": sample.pixels_sha256,
        **{key: clean(value) for key, value in sample.variables.items()},
    }
    geometry = json.loads(row["geometry"])
    assert {key: row[key] for key in expected} == expected
    assert geometry == json.loads(json.dumps(dict(sample.geometry)))
    assert set(row) == set(expected) | {"image", "geometry"}


@pytest.fixture
def load(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return lambda folder: datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))


def export(data, task, format_name, out, *words):
    return cli_json("data", "export", task, "--format", format_name, "--out", out, "--data", data, *words)


@pytest.mark.parametrize("task_name", TASKS)
@pytest.mark.parametrize("format_name", ["hf", "parquet"])
def test_datasets_loads_every_field_and_pixel(data, task_name, format_name, tmp_path, load):
    document = export(data, task_name, format_name, tmp_path / "out")
    task, splits = load_task(task_name), splits_of(data, task_name)
    loaded = load(tmp_path / "out")
    assert set(loaded) == set(splits) == set(document["splits"])
    for name, split in splits.items():
        assert document["splits"][name]["fingerprint"] == split.fingerprint
        rows = {row["sample_id"]: row for row in loaded[name]}
        assert len(rows) == len(loaded[name]) == len(split.samples)
        for sample in split.samples:
            check_row(task, sample, rows[sample.sample_id])
            assert same_pixels(rows[sample.sample_id]["image"], sample)


@pytest.mark.parametrize("task_name", TASKS)
def test_pandas_reads_the_tsv_as_vlmevalkit_does(data, task_name, tmp_path):
    pd = pytest.importorskip("pandas")
    export(data, task_name, "lmms-tsv", tmp_path / "out")
    task = load_task(task_name)
    for name, split in splits_of(data, task_name).items():
        table = pd.read_csv(tmp_path / f"out/evalkit_{task_name}_{name}_openended.tsv", sep="\t")
        assert list(table["index"]) == list(range(len(split.samples)))
        images = dict(zip(table["index"].astype(str), table["image"].astype(str), strict=True))
        for sample, row in zip(split.samples, table.to_dict("records"), strict=True):
            record = json.loads(row["record"])
            check_row(task, sample, record | {"image": None})
            assert row["question"] == record["question"]
            assert str(row["answer"]) == record["answer"]
            image = images[str(row["index"])]
            if len(image) <= 64:  # the index of the row that holds it
                image = images[image]
            with Image.open(io.BytesIO(base64.b64decode(image))) as picture:
                assert same_pixels(picture, sample)


@pytest.mark.parametrize("task_name", TASKS)
def test_conversations_are_what_training_learns(data, task_name, tmp_path):
    export(data, task_name, "qwen-jsonl", tmp_path / "out", "--model", "qwen-base")
    from model_adapters import get_entry

    task = load_task(task_name)
    variant = task.variant("qwen2_5_vl")
    frame = resolve_frame(variant, get_entry("qwen-base").frame.frame(), "qwen-base")
    for name, split in splits_of(data, task_name).items():
        lines = (tmp_path / f"out/{name}.jsonl").read_text(encoding="utf-8").splitlines()
        for sample, line in zip(split.samples, map(json.loads, lines), strict=True):
            asked, answered = line["conversations"]
            assert asked == {
                "from": "human",
                "value": f"<image>\n{clean(make_prompt(task, variant, sample).text)}",
            }
            assert answered == {"from": "gpt", "value": clean(make_answer(task, variant, frame, sample))}
            with Image.open(tmp_path / "out" / line["image"]) as picture:
                assert same_pixels(picture, sample)
    assert (tmp_path / "out/rec_testA.jsonl").exists() == (task_name == "refcoco")


def test_all_formats_are_known():
    assert set(TASKS) == set(DATASETS)
    assert "lmms-tsv" in cli("data", "export", "--help").stdout


def test_only_an_export_is_replaced(data, tmp_path):
    words = ("data", "export", "grid_patch", "--format", "hf", "--data", data, "--out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    for force in ((), ("--force",)):
        result = cli(*words, tmp_path / "mine", *force)
        assert result.exit_code == 1
        assert "no export of evalkit" in result.stderr
    assert cli(*words, tmp_path / "out").exit_code == 0
    assert "--force replaces it" in cli(*words, tmp_path / "out").stderr
    assert cli(*words, tmp_path / "out", "--force").exit_code == 0
    (tmp_path / "out/test/notes.txt").write_text("mine")
    result = cli(*words, tmp_path / "out", "--force")
    assert "did not write (test/notes.txt)" in result.stderr
    assert (tmp_path / "out/test/notes.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def test_damage_is_named_and_nothing_is_written(data, tmp_path):
    shutil.copytree(data / "grid_patch", tmp_path / "data/grid_patch")
    missing, broken, other = sorted((tmp_path / "data/grid_patch/train/images").glob("*.png"))[:3]
    missing.unlink()
    broken.write_bytes(broken.read_bytes()[:200])
    Image.new("RGB", (672, 672)).save(other)
    result = cli(
        "data",
        "export",
        "grid_patch",
        "--format",
        "parquet",
        "--data",
        tmp_path / "data",
        "--out",
        tmp_path / "out",
    )
    assert result.exit_code == 1
    for path, why in ((missing, "missing"), (broken, "cannot be decoded"), (other, "other pixels")):
        assert any(path.name in line and why in line for line in result.stderr.splitlines())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
