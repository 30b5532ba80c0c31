"""Files that were changed or made to harm: one clear line, nothing read or written outside, no traceback."""

import io
import json
import os
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image
from support import cli, cli_json

from evalkit.datasets.build import build
from evalkit.datasets.disk import read_rows
from evalkit.errors import AdapterError
from model_adapters.local_inputs import open_rgb


@pytest.fixture
def where(tmp_path):
    build("line_intersection", tmp_path / "data", n=30)
    return ["--data", tmp_path / "data", "--results", tmp_path / "results"]


def change_line(path: Path, **changes) -> None:
    """Change keys of the first line; None takes a key out."""
    first, *rest = path.read_text().splitlines(keepends=True)
    row = json.loads(first) | changes
    row = {key: value for key, value in row.items() if value is not None}
    path.write_text(json.dumps(row) + "\n" + "".join(rest))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file_name": "../../../etc/passwd"}, "lies outside the split's folder"),
        ({"file_name": "/etc/passwd"}, "lies outside the split's folder"),
        ({"file_name": 3}, "file_name must be text, found 3"),
        ({"width": "wide"}, "width and height must be whole numbers above 0"),
        ({"height": 0}, "width and height must be whole numbers above 0"),
        ({"gold": {"a": 1}}, "gold must be a whole number"),
        ({"gold": True}, "gold must be a whole number"),
        ({"gold": float("nan")}, "gold must be a whole number"),
        ({"geometry": []}, "geometry must be a mapping, found list"),
        ({"stratum": None}, "key 'stratum' is missing"),
        ({"geometry": {"a": [float("nan")]}}, "a number in it is not finite"),
        ({"variable": float("inf")}, "a number in it is not finite"),
    ],
)
def test_metadata(where, tmp_path, changes, message):
    change_line(tmp_path / "data/line_intersection/test/metadata.jsonl", **changes)
    result = cli("run", "--model", "fake", "--task", "line_intersection", *where)
    assert result.exit_code == 1
    assert "metadata.jsonl:1: " in result.stderr
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_line_separators_inside_a_text_end_no_line(where, tmp_path):
    path = tmp_path / "data/line_intersection/test/metadata.jsonl"
    change_line(path, stratum="a\u2028b")
    rows = map(json.loads, path.read_text().splitlines())
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert read_rows(tmp_path / "data", "line_intersection", "test")[0]["stratum"] == "a\u2028b"


@pytest.mark.parametrize("command", [["list"], ["verify"], ["export", "line_intersection", "--format", "hf"]])
@pytest.mark.parametrize("name", ["dataset.json", "test/metadata.jsonl"])
def test_deeply_nested_json(where, tmp_path, name, command):
    (tmp_path / "data/line_intersection" / name).write_text("[" * 100_000)
    result = cli("data", *command, *where)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert f"{name}" in result.output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": None}, "rows.jsonl:1: not a row"),
        ({"verdict": "magic"}, "rows.jsonl:1: not a row"),
        ({"sample_id": 7}, "rows.jsonl:1: not a row"),
        ({"gold": float("nan")}, "rows.jsonl:1: not a row"),
        ({"image_size_wh": None}, "has no 'image_size_wh'"),
    ],
)
def test_rows(where, tmp_path, changes, message):
    run = Path(cli_json("run", "--model", "fake", "--task", "line_intersection", *where)["run"])
    change_line(run / "rows.jsonl", **changes)
    result = cli("score", run, *where)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert cli("leaderboard", *where).exit_code == 0  # the others are still shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "expected schema 1, found 2"),
        ({"task": None}, "key 'task' is missing or no mapping"),
        ({"model": "tiny"}, "key 'model' is missing or no mapping"),
        ({"selection": {}}, "key 'selection.n' is missing"),
    ],
)
def test_run_json(where, changes, message):
    run = Path(cli_json("run", "--model", "fake", "--task", "line_intersection", *where)["run"])
    meta = json.loads((run / "run.json").read_text()) | changes
    meta = {key: value for key, value in meta.items() if value is not None or key not in changes}
    (run / "run.json").write_text(json.dumps(meta))
    for command in (["score", run], ["compare", run, run, "--task", "line_intersection"]):
        result = cli(*command, *where)
        assert result.exit_code == 1
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [["verify"], ["export", "line_intersection", "--format", "hf"], ["sheet", "line_intersection"]],
)
def test_no_file_starts_another_program(where, tmp_path, monkeypatch, command):
    """PostScript under the name of a PNG would be run by Ghostscript."""
    trace, programs = tmp_path / "trace", tmp_path / "bin"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\necho run >> {trace}\nexit 1\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    for path in (tmp_path / "data/line_intersection").glob("*/images/*.png"):
        Image.new("RGB", (8, 8)).save(path, "EPS")
    result = cli("data", *command, *where)
    with pytest.raises(AdapterError, match="the image cannot be opened"):
        open_rgb(path, (8, 8))
    assert not trace.exists()
    assert result.exit_code == 1
    assert "cannot" in result.output


def test_a_format_whose_decoder_raises_what_it_likes(where, tmp_path):
    path = next((tmp_path / "data/line_intersection/test/images").glob("*.png"))
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "DDS")
    torn = bytearray(picture.getvalue())
    torn[80:90] = bytes(10)
    path.write_bytes(torn)
    result = cli("data", "verify", *where)
    assert f"{path}: cannot be decoded" in result.output


def test_what_a_data_set_says_cannot_steer_the_terminal(tmp_path):
    cli("data", "build", "grid_patch", "--n", 10, "--data", tmp_path)
    path = tmp_path / "grid_patch/dataset.json"
    info = json.loads(path.read_text())
    for entry in info["splits"].values():
        entry |= {"source": "\x1b]0;evil\x07 \ud800", "licence": "\u202eMIT"}
    path.write_text(json.dumps(info))
    shown = cli("data", "list", "--data", tmp_path).stdout
    assert "evil" in shown
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_a_sample_without_pictures_is_not_drawn(tmp_path):
    cli("data", "build", "grid_patch", "--n", 10, "--data", tmp_path)
    path = tmp_path / "grid_patch/test/metadata.jsonl"
    rows = [json.loads(line) | {"pixels_sha256": None} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = cli("data", "show", "grid_patch", rows[0]["sample_id"], "--data", tmp_path)
    assert result.exit_code == 1
    assert "images" in result.stderr
