"""Beside the rows: cards, lmms-eval's task, shards, Qwen's lines, and every refusal in one line."""

import importlib.util
import json
import shutil

import pytest
import yaml
from PIL import Image
from support import cli, cli_json, write_jsonl

from evalkit.datasets.build import build
from evalkit.datasets.disk import DATASET_FILE, pixels_sha256, read_split
from evalkit.exporting import parquet
from evalkit.exporting.card import quoted

FORMATS = ("hf", "parquet", "qwen-jsonl", "lmms-tsv")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Grid Patch; RefCOCO of two boxes worked out by hand: 56 x 28 px are Qwen's 84 x 56 at 4 to 8 tokens."""
    folder = tmp_path_factory.mktemp("data")
    build("grid_patch", folder, n=12)
    target = folder / "refcoco/testA"
    (target / "images").mkdir(parents=True)
    image = Image.new("RGB", (56, 28), "navy")
    image.save(target / "images/a.png")
    row = {
        "file_name": "images/a.png", "image_id": "a", "split": "testA", "stratum": "small", "width": 56, "height": 28,
        "pixels_sha256": pixels_sha256(image.size, image.tobytes()), "geometry": {},
    }  # fmt: skip
    rows = [
        row | {"sample_id": "testA/a#0", "expression": "left <image> man", "gold": [0, 7, 14, 28]},
        row | {"sample_id": "testA/a#1", "expression": "<b>man</b>", "gold": [14, 7.5, 28, 21]},
    ]
    write_jsonl(target / "metadata.jsonl", rows)
    hostile = "x | `y`\n\n# Heading <script>alert(1)</script> [a](b)"
    info = {
        "dataset": "refcoco",
        "splits": {"testA": {"source": hostile, "licence": hostile, "made_by": {"seed": 7, "form": "qwen"}}},
    }
    (folder / "refcoco" / DATASET_FILE).write_text(json.dumps(info))
    return folder


def export(data, task, format_name, out, *words):
    return cli_json("data", "export", task, "--format", format_name, "--out", out, "--data", data, *words)


def card_of(folder):
    """(header, body) of README.md."""
    _, head, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_has_a_card_that_the_hub_reads(data, format_name, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    export(data, "grid_patch", format_name, tmp_path / "out")
    card = hub.DatasetCard.load(tmp_path / "out/README.md").data
    assert (card.pretty_name, card.license, card.size_categories) == (
        "Grid Patch (evalkit)",
        "apache-2.0",
        ["n<1K"],
    )
    head, body = card_of(tmp_path / "out")
    patterns = {entry["split"]: entry["path"] for entry in head["configs"][0]["data_files"]}
    assert set(patterns) == {"train", "test"}
    assert all(list((tmp_path / "out").glob(pattern)) for pattern in patterns.values())
    for split in ("train", "test"):
        assert read_split(data, "grid_patch", split).fingerprint in body
    assert "arXiv 2511.12738" in body
    assert "evalkit import --task grid_patch" in body
    assert str(tmp_path) not in body + "".join(
        path.read_text(encoding="utf-8") for path in (tmp_path / "out").rglob("*.json*")
    )


@pytest.mark.parametrize("format_name", ["qwen-jsonl", "lmms-tsv"])
def test_datasets_loads_the_text_formats_too(data, format_name, tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    export(data, "grid_patch", format_name, tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {
        name: len(read_split(data, "grid_patch", name).samples) for name in ("train", "test")
    }


def test_a_card_escapes_and_warns(data, tmp_path):
    export(data, "refcoco", "hf", tmp_path / "out")
    head, body = card_of(tmp_path / "out")
    assert (head["license"], head["license_name"]) == ("other", "see-the-card")
    assert "photographs of other people" in body
    assert "<script>" not in body
    assert "\n# Heading" not in body
    assert "made\\_by: seed 7, form qwen" in body


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a | b", r"a \| b"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("line\n- item\u2028x", "line - item x"),
        ("`x` *y* [z](u)", r"\`x\` \*y\* \[z\](u)"),
        ("half \ud800", "half ?"),
    ],
)
def test_quoted(text, safe):
    assert quoted(text) == safe


def test_shards_and_row_groups_are_bounded(data, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    pq = pytest.importorskip("pyarrow.parquet")
    datasets.disable_progress_bars()
    monkeypatch.setattr(parquet, "GROUP_ROWS", 2)
    monkeypatch.setattr(parquet, "SHARD_BYTES", 1)  # a row group a shard
    export(data, "grid_patch", "parquet", tmp_path / "out", "--split", "train")
    n = len(read_split(data, "grid_patch", "train").samples)
    shards = sorted(path.name for path in (tmp_path / "out/data").iterdir())
    assert shards == [f"train-{i:05d}-of-{-(-n // 2):05d}.parquet" for i in range(-(-n // 2))]
    assert pq.ParquetFile(tmp_path / "out/data" / shards[0]).metadata.num_rows == 2
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert len(loaded["train"]) == n


def utils_of(folder):
    spec = importlib.util.spec_from_file_location("exported_utils", folder / "lmms_eval/utils.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RIGHT, WRONG, UNREADABLE = (
    {"evalkit_accuracy": a, "evalkit_unreadable": u} for a, u in ((1.0, 0.0), (0.0, 0.0), (0.0, 1.0))
)


@pytest.mark.parametrize(
    ("task", "gold", "reply", "score"),
    [  # the middle of cell (2, 4) of a 48 x 24 px image is (5, 4.5) px
        ("grid_patch", [5.0, 4.5], "(2, 4)", RIGHT),
        ("grid_patch", [5.0, 4.5], "It is at (5, 4).", RIGHT),  # 3 cells away
        ("grid_patch", [5.0, 4.5], "(6, 4)", WRONG),
        ("grid_patch", [5.0, 4.5], "in the corner", UNREADABLE),
        ("refcoco", [0.0, 0.0, 10.0, 10.0], "[0, 0, 10, 10]", RIGHT),
        ("refcoco", [0.0, 0.0, 10.0, 10.0], "[0, 0, 10, 4]", WRONG),  # IoU 0.4
        ("refcoco", [0.0, 0.0, 10.0, 10.0], "", UNREADABLE),
    ],
)
def test_lmms_eval_scores_as_evalkit(data, tmp_path, task, gold, reply, score):
    export(data, task, "parquet", tmp_path / "out")
    utils = utils_of(tmp_path / "out")
    assert utils.process_results({"gold": gold, "width": 48, "height": 24}, [reply]) == score
    assert utils.doc_to_text({"question": "Where?"}) == "Where?"
    assert utils.doc_to_visual({"image": Image.new("L", (4, 3))})[0].mode == "RGB"
    for path in (tmp_path / "out/lmms_eval").glob("*.yaml"):
        text = path.read_text(encoding="utf-8").replace("!function ", "")
        spec = yaml.safe_load(text)
        assert spec["task"] == path.stem
        assert spec["generation_kwargs"]["until"] == []  # a default would cut replies at a blank line
        (pattern,) = spec["dataset_kwargs"]["data_files"].values()
        assert list((tmp_path / "out").glob(pattern))


def test_qwen_lines(data, tmp_path):
    """tiny-qwen resizes to 3,136 to 12,544 px: 56 x 28 becomes 84 x 56, so x grows by 1.5 and y by 2."""
    document = export(data, "refcoco", "qwen-jsonl", tmp_path / "out", "--model", "tiny-qwen")
    assert document["left_out"] == ["testA: testA/a#0"]  # Qwen's code would take its <image> for a picture
    (line,) = map(json.loads, (tmp_path / "out/testA.jsonl").read_text().splitlines())
    assert line["image"] == "testA/images/a.png"
    assert line["conversations"][0]["value"].startswith("<image>\nLocate <b>man</b> in this image")
    assert '"bbox_2d": [21, 15, 42, 42]' in line["conversations"][1]["value"]
    expressions = [json.loads(row) for row in (tmp_path / "out/rec_testA.jsonl").read_text().splitlines()]
    assert expressions[1] == {
        "image": "testA/images/a.png",
        "sent": "<b>man</b>",
        "bbox": [14, 7.5, 28, 21],
        "height": 28,
        "width": 56,
        "sample_id": "testA/a#1",
    }
    _, body = card_of(tmp_path / "out")
    assert "--min_pixels 3136 --max_pixels 12544" in body
    assert "1 questions hold `<image>`" in body


def test_wording_for_a_family(data, tmp_path):
    export(data, "grid_patch", "hf", tmp_path / "out", "--family", "molmo")
    sample = read_split(data, "grid_patch", "test").samples[0]
    row = json.loads((tmp_path / "out/test/metadata.jsonl").read_text().splitlines()[0])
    assert row["question"] == "Point to the red square."
    assert json.loads(row["answer"]) == sample.gold  # nobody trains on that wording: pixels
    assert "--frame percent" in card_of(tmp_path / "out")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["imagenet", "--format", "hf"], "No task named 'imagenet'"),
        (["line_tracing", "--format", "hf"], "No data of line_tracing in"),
        (["grid_patch", "--format", "hf", "--split", "dev"], "No split 'dev' of grid_patch"),
        (["grid_patch", "--format", "hf", "--model", "nobody"], "nobody"),
        (
            ["grid_patch", "--format", "hf", "--family", "nobody"],
            "No model of family 'nobody' in the registry",
        ),
        (["grid_patch", "--format", "qwen-jsonl", "--family", "molmo"], "nothing to train on"),
        (["grid_patch", "--format", "hf", "--out", "FILE"], "FILE is no folder"),
        (["grid_patch", "--format", "hf", "--out", "FILE/below"], "cannot be written"),
    ],
)
def test_refusals_are_one_line(data, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    result = cli("data", "export", *words, "--data", data)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


def test_an_empty_split_and_a_damaged_marker(data, tmp_path):
    shutil.copytree(data / "grid_patch", tmp_path / "data/grid_patch")
    (tmp_path / "data/grid_patch/test/metadata.jsonl").write_text("")
    words = (
        "data",
        "export",
        "grid_patch",
        "--format",
        "hf",
        "--data",
        tmp_path / "data",
        "--out",
        tmp_path / "out",
    )
    assert "no rows, nothing to export" in cli(*words).stderr
    assert cli(*words, "--split", "train").exit_code == 0
    for marker in ("{", "[]", '{"files": [1]}'):
        (tmp_path / "out/evalkit-export.json").write_text(marker)
        assert "no export of evalkit" in cli(*words, "--split", "train", "--force").stderr
