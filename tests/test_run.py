"""evalkit run with the scripted model: verdicts, resume, budget, exit status, what is printed."""

import json
from pathlib import Path

import pytest
from support import cli, cli_json, read_rows, write_jsonl

from evalkit.datasets.disk import read_split


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    assert cli("data", "build", "line_intersection", "--n", 60, "--data", folder).exit_code == 0
    assert cli("data", "build", "grid_patch", "--n", 50, "--data", folder).exit_code == 0
    return folder


@pytest.fixture
def where(data, tmp_path):
    return ["--data", data, "--results", tmp_path / "results"]


def run(where, *words, exit_code=0):
    return cli_json(
        "run", "--model", "fake", "--task", "line_intersection", *where, *words, exit_code=exit_code
    )


def test_summary(where, data):
    result = run(where, "--set", "reply={3}")
    samples = read_split(data, "line_intersection", "test").samples
    correct = sum(sample.gold == 3 for sample in samples)
    assert result["n"] == len(samples) == 12
    assert result["correct"] == correct == 2
    assert result["accuracy"] == pytest.approx(2 / 12)
    assert result["ci95"][0] < 2 / 12 < result["ci95"][1]
    assert result["verdicts"] == {
        "correct": 2, "wrong": 10, "unparsed": 0, "blocked": 0, "truncated": 0, "failed": 0,
    }  # fmt: skip
    assert result["status"] == "complete"
    assert {"model", "task", "split", "run"} <= result.keys()


def test_run_folder(where, tmp_path):
    folder = Path(run(where)["run"])
    assert folder.parent == tmp_path / "results" / "runs" / "fake"
    assert folder.name.startswith("line_intersection-test-")
    assert len(folder.name.rpartition("-")[2]) == 8
    meta = json.loads((folder / "run.json").read_text())
    assert meta["dataset"]["fingerprint"]
    assert meta["versions"]["evalkit"]
    assert meta["selection"] == {"limit": None, "n": 12, "seed": 0}
    row = read_rows(folder)[0]
    assert row.keys() >= {
        "sample_id", "cluster", "prompt_sha256", "reply", "answer", "gold", "verdict",
        "latency_s", "usage", "finish_reason", "answered_by", "attempts",
    }  # fmt: skip


def test_same_command_does_nothing(where, tmp_path):
    log = tmp_path / "log"
    first = run(where, "--set", f"log={log}")
    written = {p.name: p.stat().st_mtime_ns for p in Path(first["run"]).iterdir() if p.name != ".lock"}
    again = run(where, "--set", f"log={log}")
    assert again == first
    assert len(log.read_text().splitlines()) == 12
    assert {
        p.name: p.stat().st_mtime_ns for p in Path(first["run"]).iterdir() if p.name != ".lock"
    } == written


def test_what_changes_answers_changes_the_run(where):
    runs = {
        run(where, *words)["run"]
        for words in (
            [],
            ["--set", "reply=2"],
            ["--split", "train"],
            ["--limit", "6"],
            ["--limit", "6", "--seed", "1"],
            ["--set", "latency_s=0.0001"],  # this one does not
        )
    }
    assert len(runs) == 5


def test_limit_is_stratified(where):
    result = run(where, "--limit", 6)
    assert result["n"] == 6
    assert result["sample_of"] == 12
    assert sorted(row["gold"] for row in read_rows(result["run"])) == [0, 1, 2, 3, 4, 5]


def test_each_ending_has_its_verdict(where, tmp_path):
    faults = "{failed: 0.25, blocked: 0.25, truncated: 0.25, empty: 0.25}"
    words = ["--set", f"faults={faults}", "--set", f"log={tmp_path / 'log'}", "--split", "train"]
    first = run(where, *words, exit_code=3)
    assert first["status"] == "unfinished"
    counts = first["verdicts"]
    assert counts["correct"] == counts["wrong"] == 0
    assert min(counts[v] for v in ("failed", "blocked", "truncated", "unparsed")) > 0
    assert sum(counts.values()) == first["n"] == 48
    for row in read_rows(first["run"]):
        assert (row["reply"] is None) == (row["verdict"] == "failed")

    second = run(where, *words)  # a failed sample is asked again, and only it
    assert second["status"] == "complete"
    assert second["verdicts"]["failed"] == 0
    assert sum(second["verdicts"].values()) == 48
    asked = (tmp_path / "log").read_text().splitlines()
    assert len(asked) == 48 + counts["failed"]
    assert len({row["sample_id"] for row in read_rows(second["run"])}) == 48


def test_a_truncated_reply_is_never_correct(where, data):
    result = run(where, "--set", "faults={truncated: 1.0}", "--set", "reply={3}")
    assert result["verdicts"]["truncated"] == result["n"]
    assert result["correct"] == 0


def test_budget_asks_nothing_that_could_exceed_it(where, data, tmp_path):
    models = tmp_path / "models.yaml"
    models.write_text(
        "priced: {title: P, adapter: fake, prices: "
        "{input_usd: 1, output_usd: 1, date: '2026-01-01', source: test}}"
    )
    words = ["run", "--model", "priced", "--models", models, "--task", "line_intersection", *where]
    result = cli_json(*words, "--max-cost", 0, exit_code=3)
    assert result["status"] == "unfinished"
    assert sum(result["verdicts"].values()) == 0
    result = cli_json(*words, "--max-cost", 1)  # the fake uses no tokens: nothing is spent
    assert result["status"] == "complete"
    assert result["cost_usd"] == 0


def test_coordinates_are_converted_by_the_declared_frame(where, data):
    samples = read_split(data, "grid_patch", "test").samples
    script = [{"sample_id": s.sample_id, "reply": "({}, {})".format(*s.geometry["cell_xy"])} for s in samples]
    path = write_jsonl(Path(where[3]).parent / "script.jsonl", script)
    result = cli_json("run", "--model", "fake", "--task", "grid_patch", *where, "--set", f"script={path}")
    assert result["accuracy"] == 1.0
    row = read_rows(result["run"])[0]
    assert row["distance"] == pytest.approx(0, abs=1e-9)
    assert row["answer_px"] == pytest.approx(row["gold"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "line_trace"], "No task named 'line_trace'"),
        (["--model", "gpt-5"], "No model named 'gpt-5'"),
        (["--split", "dev"], "dev"),
        (["--trained-on", "grid_patch"], "leave --trained-on out"),
        (["--set", "temperature=1"], "no setting 'temperature'"),
        (["--set", "faults={melted: 1}"], "no fault 'melted'"),
        (["--set", "latency_s=soon"], "latency_s must be int or float, found 'soon'"),
        (["--set", "latency_s=-1"], "latency_s must be a number of seconds"),
        (["--set", "log=/nonexistent/log"], "cannot be written"),
        (["--model", "tiny-qwen", "--set", "batch_size=many"], "batch_size must be int, found 'many'"),
        (["--model", "tiny-qwen", "--set", "batch_size=0"], "batch_size must be at least 1"),
        (["--task", "pixmo_points"], "pixmo_points"),
        (["--model", "gpt-6-luna"], "gpt-6-luna cannot be run here"),
        (["--model", "glamm-fs-7b", "--task", "refcoco"], "glamm-fs-7b is not made for refcoco"),
        (["--model", "gpt-6-luna", "--engine", "vllm"], "is not a local checkpoint: leave --engine out"),
        (["--model", "instructblip-7b", "--engine", "vllm"], "vLLM has no instructblip"),
        (["--model", "gpt-6-luna", "--set", "timeout_s=0"], "timeout_s must be a number of seconds above 0"),
        (["--model", "gemini-2.0-flash"], "retired since 2026-06-01"),
        (["--model", "qwen-klal", "--trained-on", "line_trace"], "No task named 'line_trace'"),
    ],
)
def test_user_errors_are_one_line(where, words, message):
    base = {"--model": "fake", "--task": "line_intersection"}
    merged = [w for key in base if key not in words for w in (key, base[key])]
    result = cli("run", *where, *merged, *words)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(Path(where[3]).rglob("run.json"))  # nothing half-made is left behind


def test_missing_data_say_what_to_type(tmp_path):
    result = cli("run", "--model", "fake", "--task", "line_tracing", "--data", tmp_path)
    assert result.exit_code == 1
    assert "evalkit data build line_tracing" in result.stderr


def test_dry_run_asks_nothing(where, tmp_path):
    result = run(where, "--dry-run", "--set", f"log={tmp_path / 'log'}")
    assert result["to_ask"] == result["n"] == 12
    assert "blue and red lines" in result["first_prompt"]
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "log").exists()


def test_usage_errors(where):
    assert cli("run", "--task", "grid_patch").exit_code == 2
    assert cli("run", "--model", "fake", "--task", "grid_patch", "--limit", 0).exit_code == 2
