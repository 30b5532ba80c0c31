"""`evalkit suite`: several models on several tasks, each run as if it were alone."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from ray_cluster import cluster, evalkit, lines, start, until  # noqa: F401 - a fixture
from support import cli, cli_json, read_rows

from evalkit.datasets.build import build
from evalkit.errors import ConfigError
from evalkit.store import RunStore
from evalkit.suites import Run, read_suite

TASKS = ("line_intersection", "line_tracing", "grid_patch")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for task in TASKS:
        build(task, folder, n=24)
    return folder


def suite_file(folder, text):
    path = folder / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "models: [a, b]\ntasks: [t]",
            [{"model": "a", "task": "t"}, {"model": "b", "task": "t"}],
        ),
        (  # model by model
            "models: [a, b]\ntasks: [t, u]\nskip: [{model: a, task: u}]\nlimit: 5",
            [
                {"model": "a", "task": "t", "limit": 5},
                {"model": "b", "task": "t", "limit": 5},
                {"model": "b", "task": "u", "limit": 5},
            ],
        ),
        (  # the model's word wins over the task's, this over the suite's; settings key by key
            "limit: 1\nset: {x: 1, y: 1, z: 1}\nmodels: [{model: a, limit: 3, set: {x: 3}}]\n"
            "tasks: [{task: t, limit: 2, split: test, set: {x: 2, y: 2}}]",
            [{"model": "a", "task": "t", "limit": 3, "split": "test", "set": {"x": 3, "y": 2, "z": 1}}],
        ),
        (
            "engine: ray\nruns: [{model: a, task: t, engine: hf_local}, {model: a, task: u}]",
            [
                {"model": "a", "task": "t", "engine": "hf_local"},
                {"model": "a", "task": "u", "engine": "ray"},
            ],
        ),
    ],
)
def test_what_a_file_stands_for(text, expected, tmp_path):
    assert read_suite(suite_file(tmp_path, text)).settled() == [Run(**fields) for fields in expected]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [a]", "models and tasks go together"),
        ("limit: 3", "nothing to run"),
        ("models: [a]\ntasks: [t]\nskip: [{model: a}]", "leaves out every run"),
        ("models: [a]\ntasks: [t]\nskip: [{}]", "name a model, a task, or both"),
        ("models: [{model: a, limits: 3}]\ntasks: [t]", "limits"),
        ("models: [a]\ntasks: [t]\nengine: gpu", "engine"),
        ("models: [a]\ntasks: [t]\nlimit: 0", "limit"),
        ("- a", "expected a mapping"),
    ],
)
def test_what_is_wrong_with_a_file(text, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        read_suite(suite_file(tmp_path, text))


SUITE = """
models: [{model: fake, set: {reply: 3, latency_s: LATENCY, log: LOG}}, SECOND]
tasks: [{task: line_intersection, split: train}, line_tracing, {task: grid_patch, split: train, limit: 15}]
"""


def two_by_three(folder, latency_s=0.0, second="tiny-qwen"):
    text = SUITE.replace("LATENCY", str(latency_s)).replace("LOG", str(folder / "log.jsonl"))
    return suite_file(folder, text.replace("SECOND", second))


def comparable(run):
    rows = {row["sample_id"]: row for row in read_rows(run)}
    return {key: {k: v for k, v in row.items() if k != "latency_s"} for key, row in sorted(rows.items())}


@pytest.mark.local
def test_each_run_is_as_if_alone(data, tmp_path):
    """2 models x 3 tasks, with the rows that `evalkit run` stores; again, nothing is asked."""
    pytest.importorskip("torch")
    file = two_by_three(tmp_path)
    words = ["suite", file, "--data", data, "--results", tmp_path / "suite", "--engine", "hf_local"]
    plan = cli_json(*words, "--dry-run")
    assert not (tmp_path / "suite").exists()
    done = cli_json(*words)
    assert [(run["model"], run["task"]) for run in done["runs"]] == [
        (model, task) for model in ("fake", "tiny-qwen") for task in TASKS
    ]
    assert [run["to_ask"] for run in plan["runs"]] == [run["result"]["n"] for run in done["runs"]]
    alone = ["run", "--data", data, "--results", tmp_path / "alone"]
    for model, more in (("fake", ["--set", "reply=3"]), ("tiny-qwen", ["--engine", "hf_local"])):
        for task, options in zip(
            TASKS, (["--split", "train"], [], ["--split", "train", "--limit", 15]), strict=True
        ):
            result = cli_json(*alone, "--model", model, "--task", task, *options, *more)
            run = Path(result["run"])
            assert comparable(run) == comparable(tmp_path / "suite/runs" / model / run.name)
    before = (tmp_path / "log.jsonl").read_text()
    again = cli_json(*words)
    assert [run["to_ask"] for run in again["runs"]] == [0] * 6
    assert (tmp_path / "log.jsonl").read_text() == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_in_the_second_run_and_resumed(number, data, tmp_path):
    file = two_by_three(
        tmp_path, latency_s=0.03, second="{model: fake, task: 0}".replace(", task: 0", ', set: {reply: "No"}')
    )
    words = ["suite", file, "--data", data, "--results", tmp_path / "results"]
    n_first = cli_json(*words, "--dry-run")["runs"][0]["to_ask"]
    process = start(*words, "--json")
    until(lambda: len(lines(tmp_path / "log.jsonl")) > n_first + 3)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 3), stderr
    assert "Traceback" not in stderr
    if number != signal.SIGKILL:
        results = [run["result"] and run["result"]["status"] for run in json.loads(stdout)["runs"]]
        assert results == ["complete", "unfinished", None, None, None, None]
    asked = [json.loads(line)["sample_id"] for line in lines(tmp_path / "log.jsonl")]
    stored = [
        row["sample_id"] for path in (tmp_path / "results/runs/fake").iterdir() for row in read_rows(path)
    ]
    assert len(asked) - len(stored) <= 1  # the one in flight
    done = cli_json(*words)
    assert {run["result"]["status"] for run in done["runs"]} == {"complete"}
    assert len(lines(tmp_path / "log.jsonl")) - len(asked) == sum(run["to_ask"] for run in done["runs"][:3])


def test_one_that_cannot_be_run_does_not_keep_the_others(data, tmp_path):
    file = suite_file(
        tmp_path,
        "models: [qwen-klal, {model: fake, set: {script: nowhere.jsonl}}, {model: fake, set: {reply: 'Yes'}}]\n"
        "tasks: [line_tracing]\n",
    )
    result = cli("suite", file, "--data", data, "--results", tmp_path / "results")
    assert result.exit_code == 1
    assert "nowhere.jsonl" in result.output  # a mistake in the file stops it before the first question
    assert not (tmp_path / "results").exists()
    file.write_text("models: [qwen-klal, {model: fake, set: {reply: 'Yes'}}]\ntasks: [line_tracing]\n")
    result = cli("suite", file, "--data", data, "--results", tmp_path / "results", "--engine", "hf_local")
    assert result.exit_code == 1
    assert "qwen-klal on line_tracing: failed: qwen-klal: no checkpoint" in result.stdout
    assert "2 runs: 1 failed, 1 complete" in result.stdout


def test_one_that_breaks_does_not_keep_the_others(data, tmp_path):
    (tmp_path / "script.jsonl").write_text("not JSON\n")
    file = suite_file(
        tmp_path,
        f"models: [{{model: fake, set: {{script: {tmp_path}/script.jsonl}}}}, {{model: fake, set: {{reply: 'Yes'}}}}]\n"
        "tasks: [line_tracing]\n",
    )
    result = cli_json("suite", file, "--data", data, "--results", tmp_path / "results", exit_code=1)
    assert "expected lines" in result["runs"][0]["fault"]
    assert result["runs"][1]["result"]["status"] == "complete"


def test_a_run_that_another_process_writes_is_unfinished_and_not_failed(data, tmp_path):
    file = suite_file(
        tmp_path, "models: [{model: fake, set: {reply: 3}}]\ntasks: [line_tracing, grid_patch]\n"
    )
    words = ("suite", file, "--data", data, "--results", tmp_path / "results")
    (first, _) = cli_json(*words, "--dry-run")["runs"]
    with RunStore(Path(first["run"])):
        result = cli(*words)
    assert result.exit_code == 3
    assert "1 unfinished, 1 complete" in result.stdout or "1 complete, 1 unfinished" in result.stdout
    assert cli(*words).exit_code == 0


def test_two_runs_that_are_one_are_refused(data, tmp_path):
    file = suite_file(tmp_path, "models: [fake, fake]\ntasks: [line_tracing]\n")
    result = cli("suite", file, "--data", data, "--results", tmp_path / "results")
    assert result.exit_code == 1
    assert "Two runs of the suite are one: fake on line_tracing" in result.output


def test_the_plan_that_a_person_sees(data, tmp_path):
    file = suite_file(
        tmp_path, "models: [fake, gpt-4o]\ntasks: [line_tracing, grid_patch]\nlimit: 3\nmax_cost: 1\n"
    )
    result = cli("suite", file, "--data", data, "--results", tmp_path / "results", "--dry-run")
    assert result.exit_code == 0
    assert "gpt-4o on line_tracing: cannot be run: gpt-4o" in result.stdout
    assert result.stdout.splitlines()[0].split() == [
        *("model", "task", "split", "n", "to", "ask", "engine", "GPUs", "weights", "cost", "at", "most")
    ]


@pytest.mark.filterwarnings("ignore")
def test_a_suite_on_ray_joins_the_cluster_once(data, cluster, tmp_path):  # noqa: F811
    pytest.importorskip("ray")
    file = two_by_three(tmp_path, second='{model: fake, set: {reply: "No"}}')
    words = ["suite", file, "--data", data, "--json", "--results"]
    local = cli_json(*words[:-2], "--results", tmp_path / "local")
    done = subprocess.run(
        evalkit(*words, tmp_path / "ray", "--engine", "ray", "--address", cluster, "--replicas", 2),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert {run["engine"] for run in found["runs"]} == {"ray:fake"}
    for here, there in zip(local["runs"], found["runs"], strict=True):
        assert comparable(here["run"]) == comparable(there["run"])
    pids = {json.loads(line)["pid"] for line in lines(tmp_path / "log.jsonl")}
    assert len(pids) <= 3  # this process, and at most two replicas for all three tasks
