"""Runs in the forms of other projects: valid by their own schemas and readers, honest about what a number is."""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from fixture_runs import mixed, write_run
from sharing_fixture import make_results
from support import cli, cli_json, read_rows

from evalkit.leaderboard import run_row


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("formats"), models=("gpt-4o", "qwen-base", "tiny-qwen"))


def export(results, out, kind, *more):
    return [
        Path(p)
        for p in cli_json(
            "results", "export", "--all", "--results", results, "--out", out, "--format", kind, *more
        )["files"]
    ]


def run_of(results, model):
    (folder,) = (results / "runs" / model).iterdir()
    return folder


def same_again(results, tmp_path, kind, *more):
    first = {
        p.relative_to(tmp_path / "a"): p.read_bytes() for p in export(results, tmp_path / "a", kind, *more)
    }
    second = {
        p.relative_to(tmp_path / "b"): p.read_bytes() for p in export(results, tmp_path / "b", kind, *more)
    }
    assert first == second
    return first


def schema(name):
    """The published schema of Every Eval Ever, where its package is installed (it needs Python 3.12)."""
    spec = find_spec("every_eval_ever")
    if spec is None or spec.origin is None:
        pytest.skip("the package every-eval-ever, which has the schema, is not installed")
    return json.loads((Path(spec.origin).parent / "schemas" / f"{name}.schema.json").read_text())


def test_every_eval_ever(results, tmp_path):
    same_again(results, tmp_path, "every-eval-ever")
    paths = list((tmp_path / "a").rglob("*.json"))
    assert len(paths) == 3
    by_model = {json.loads(p.read_text())["model_info"]["id"]: p for p in paths}
    assert by_model.keys() == {
        "gpt-4o-2024-08-06",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        "tiny-qwen",
    } or "gpt-4o" in str(by_model.keys())
    path = by_model["Qwen/Qwen2.5-VL-7B-Instruct"]
    assert path.parent.relative_to(tmp_path / "a").as_posix() == "data/grid_patch/Qwen/qwen-base"
    document = json.loads(path.read_text())
    expected = run_row(run_of(results, "qwen-base"))
    (result,) = document["evaluation_results"]
    assert result["score_details"]["score"] == expected["accuracy"]
    interval = result["score_details"]["uncertainty"]["confidence_interval"]
    assert (interval["lower"], interval["upper"], interval["confidence_level"]) == (
        expected["low"],
        expected["high"],
        0.95,
    )
    detail = document["detailed_evaluation_results"]
    samples = (tmp_path / "a" / detail["file_path"]).read_bytes()
    assert hashlib.sha256(samples).hexdigest() == detail["checksum"]
    lines = [json.loads(line) for line in samples.splitlines()]
    assert len(lines) == detail["total_rows"] == 24
    rows = read_rows(run_of(results, "qwen-base"))
    assert [line["evaluation"]["is_correct"] for line in lines] == [
        row["verdict"] == "correct" for row in rows
    ]
    assert [line["output"]["raw"] for line in lines] == [[row["reply"]] for row in rows]
    assert {line["evaluation_id"] for line in lines} == {document["evaluation_id"]}
    tiny = json.loads(by_model["tiny-qwen"].read_text())
    assert "tiny scale" in tiny["evaluation_results"][0]["score_details"]["details"]["remarks"]


@pytest.mark.parametrize("name", ["eval", "instance_level_eval"])
def test_every_eval_ever_by_its_own_schema(results, tmp_path, name):
    import jsonschema

    rules = jsonschema.Draft7Validator(schema(name))
    paths = export(results, tmp_path, "every-eval-ever", "--dataset", "grid_patch=me/grid-patch")
    checked = 0
    for path in paths:
        if (path.suffix == ".jsonl") == (name == "instance_level_eval"):
            for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
                assert [error.message for error in rules.iter_errors(json.loads(line))] == []
                checked += 1
    assert checked >= 3


def test_the_hub(results, tmp_path):
    from huggingface_hub import parse_eval_result_entries

    result = cli("results", "export", "--all", "--results", results, "--out", tmp_path, "--format", "hub")
    assert result.exit_code == 1
    assert "--dataset grid_patch=OWNER/NAME" in result.stderr
    files = same_again(results, tmp_path, "hub", "--dataset", "grid_patch=me/grid-patch")
    name = next(n for n in files if n.as_posix().startswith("qwen-base/.eval_results/grid_patch-test-"))
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[name]))
    expected = run_row(run_of(results, "qwen-base"))
    assert (entry.dataset_id, entry.task_id) == ("me/grid-patch", "grid_patch-test")
    assert entry.value == round(100 * expected["accuracy"], 2)
    assert f"{expected['correct']}/24 correct, 95% CI" in entry.notes
    tiny = next(n for n in files if n.as_posix().startswith("tiny-qwen/"))
    assert "tiny scale: a test of the harness" in files[tiny].decode()


def test_a_model_card(results, tmp_path):
    from huggingface_hub import ModelCardData
    from huggingface_hub.repocard_data import model_index_to_eval_results

    files = same_again(results, tmp_path, "model-index")
    assert sorted(n.as_posix() for n in files) == ["gpt-4o.md", "qwen-base.md", "tiny-qwen.md"]
    _, front, rest = files[Path("qwen-base.md")].decode().split("---\n")
    assert rest == ""
    name, found = model_index_to_eval_results(yaml.safe_load(front)["model-index"])
    assert name == "qwen-base"
    assert found[0].metric_value == round(100 * run_row(run_of(results, "qwen-base"))["accuracy"], 2)
    assert (found[0].dataset_split, found[0].metric_args["n"]) == ("test", 24)
    assert ModelCardData(model_name=name, eval_results=found).to_dict()["model-index"]


def test_inspect_reads_its_log(results, tmp_path):
    log = pytest.importorskip("inspect_ai.log", reason="the `inspect` extra is not installed")
    paths = export(results, tmp_path, "inspect")
    assert len(paths) == 3
    read = log.read_eval_log(str(next(p for p in paths if "qwen-base" in p.name)))
    rows = read_rows(run_of(results, "qwen-base"))
    expected = run_row(run_of(results, "qwen-base"))
    assert read.status == "success"
    assert read.results.scores[0].metrics["accuracy"].value == expected["accuracy"]
    assert [s.id for s in read.samples] == [row["sample_id"] for row in rows]
    assert [s.scores["evalkit"].value for s in read.samples] == [
        "C" if row["verdict"] == "correct" else "I" for row in rows
    ]
    assert [s.output.completion for s in read.samples] == [row["reply"] for row in rows]
    assert json.loads(read.samples[0].target) == rows[0]["gold"]


@pytest.mark.parametrize("kind", ["every-eval-ever", "hub", "model-index", "inspect"])
def test_an_unfinished_run_is_not_given_to_others(tmp_path, kind):
    if kind == "inspect" and find_spec("inspect_ai") is None:
        pytest.skip("the `inspect` extra is not installed")
    write_run(tmp_path, mixed(5, 4), n=10, status="unfinished", model="gpt-4o")
    result = cli(
        "results", "export", "--all", "--results", tmp_path, "--out", tmp_path / "out", "--format", kind
    )
    assert result.exit_code == 1
    assert "unfinished: 9 of 10 samples are answered" in result.stderr
    assert not list((tmp_path / "out").rglob("*.*")) if (tmp_path / "out").exists() else True


@pytest.mark.parametrize("kind", ["every-eval-ever", "model-index"])
def test_a_key_stops_every_format(results, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("GEMINI_API_KEY", "No idea." + "x" * 8)
    import shutil

    copy = shutil.copytree(results, tmp_path / "copy")
    rows = read_rows(run_of(copy, "gpt-4o"))
    rows[0]["reply"] = "No idea." + "x" * 8
    (run_of(copy, "gpt-4o") / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = cli("results", "export", "--all", "--results", copy, "--out", tmp_path / "out", "--format", kind)
    assert result.exit_code == 1
    assert "looks like a key" in result.stderr
    assert "xxxx" not in result.output


def test_hostile_names_stay_names(tmp_path):
    write_run(
        tmp_path, mixed(5, 5), model="m", date="2026-11-20", scores=[{"reply": "a: [b\n---\n", "gold": 1, "answer": 1}] * 10,
        model_block={"name": "../../evil\n---\nx: !!python/object", "title": "---\n<b>", "scale": "full", "checkpoint": "../../x/y"},
    )  # fmt: skip
    for kind in ("every-eval-ever", "model-index", "hub"):
        paths = export(tmp_path, tmp_path / "out" / kind, kind, "--dataset", "line_intersection=a/b")
        for path in paths:
            assert path.resolve().is_relative_to((tmp_path / "out" / kind).resolve())
        if kind == "model-index":
            text = paths[0].read_text()
            assert yaml.safe_load(text.split("---\n", 1)[1].rsplit("---\n", 1)[0])["model-index"][0][
                "name"
            ].startswith("../../evil")


def test_datasets_are_named_as_the_hub_has_them(results, tmp_path):
    result = cli(
        "results",
        "export",
        "--all",
        "--results",
        results,
        "--out",
        tmp_path,
        "--format",
        "hub",
        "--dataset",
        "x",
    )
    assert result.exit_code == 2
    assert "expected TASK=OWNER/NAME" in result.output
