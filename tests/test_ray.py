"""`--engine ray`: the rows of the local engine, whatever dies on the way."""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from ray_cluster import cluster, evalkit, lines, start, until  # noqa: F401 - a fixture
from support import cli, cli_json, read_rows

from evalkit.datasets.build import build
from evalkit.datasets.disk import read_rows as split_rows
from evalkit.errors import AdapterError

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    build("grid_patch", folder, n=100)
    return folder


@pytest.fixture
def fake(data, tmp_path, cluster):  # noqa: F811
    """The command of a run of the scripted model on the cluster, which logs what it is asked."""

    def words(*more, replicas=2, latency_s=0.02):
        return [
            "run", "--model", "fake", "--task", "grid_patch", "--split", "train", "--json",
            "--data", data, "--results", tmp_path / "results", "--set", "reply=(3, 4)",
            "--set", f"latency_s={latency_s}", "--set", f"log={tmp_path / 'log.jsonl'}",
            "--engine", "ray", "--address", cluster, "--replicas", replicas, *more,
        ]  # fmt: skip

    return words


def asked(tmp_path):
    return [json.loads(line) for line in lines(tmp_path / "log.jsonl")]


def rows_of(tmp_path):
    (folder,) = (tmp_path / "results/runs/fake").iterdir()
    return read_rows(folder)


def comparable(run):
    """Rows without what differs from one run of the same to the next."""
    rows = {row["sample_id"]: row for row in read_rows(run)}
    return {key: {k: v for k, v in row.items() if k != "latency_s"} for key, row in sorted(rows.items())}


@pytest.mark.local
def test_two_replicas_answer_as_the_local_engine_does(data, cluster, tmp_path):  # noqa: F811
    """On two nodes: the images of the second one's samples travel as bytes."""
    pytest.importorskip("torch")
    words = ["run", "--model", "tiny-qwen", "--task", "grid_patch", "--split", "train", "--data", data]
    local = cli_json(*words, "--engine", "hf_local", "--results", tmp_path / "local")
    done = subprocess.run(
        evalkit(*words, "--engine", "ray:hf_local", "--address", cluster, "--replicas", 2,
                "--results", tmp_path / "ray", "--json"),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert Path(found["run"]).name == Path(local["run"]).name  # one run, whoever answers
    assert comparable(found["run"]) == comparable(local["run"])
    assert len(comparable(found["run"])) == 80
    ran_on = json.loads((Path(found["run"]) / "run.json").read_text())["ran_on"]
    assert (ran_on["engine"], ran_on["replicas"], ran_on["nodes"]) == ("transformers", "2", "2")


def test_a_replica_killed_in_the_middle(fake, tmp_path):
    process = start(*fake())
    victim = until(lambda: asked(tmp_path)[20:])[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    result = json.loads(stdout)
    assert result["status"] == "complete"
    assert "replica" in stderr
    assert "is lost" in stderr
    assert len(rows_of(tmp_path)) == len({row["sample_id"] for row in rows_of(tmp_path)}) == 80
    assert all(row["verdict"] != "failed" for row in rows_of(tmp_path))
    again = [
        count for count in Counter(entry["sample_id"] for entry in asked(tmp_path)).values() if count > 1
    ]
    assert len(again) <= 16  # what it was asked and had not answered, or whose answer died with it
    assert len({entry["pid"] for entry in asked(tmp_path)}) == 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_driver_stopped_in_the_middle(number, fake, tmp_path):
    process = start(*fake())
    until(lambda: len(asked(tmp_path)) > 25)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 3), stderr
    assert "Traceback" not in stderr
    stored = {row["sample_id"] for row in rows_of(tmp_path)}
    assert 0 < len(stored) < 80
    before = len(asked(tmp_path))
    done = subprocess.run(evalkit(*fake(latency_s=0)), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["status"] == "complete"
    assert len(rows_of(tmp_path)) == len({row["sample_id"] for row in rows_of(tmp_path)}) == 80
    late = {entry["sample_id"] for entry in asked(tmp_path)[before:]}
    # a replica may still ask while its driver is already gone; what is stored is never asked again
    assert not late & stored or number == signal.SIGKILL


def draw(sample_id):
    """As the scripted model draws whom a fault meets."""
    return random.Random(f"fake:{sample_id}").random()


def test_a_sample_that_kills_whoever_is_asked_it(fake, data, tmp_path):
    """It ends as one failed row; those that were asked beside it are answered."""
    process = start(*fake("--set", "faults={crash: 0.02}", latency_s=0))
    deadly = {
        row["sample_id"] for row in split_rows(data, "grid_patch", "train") if draw(row["sample_id"]) < 0.02
    }
    stdout, stderr = process.communicate(timeout=180)
    assert process.returncode == 3, stderr
    verdicts = Counter(row["verdict"] for row in rows_of(tmp_path))
    failed = [row for row in rows_of(tmp_path) if row["verdict"] == "failed"]
    assert {row["sample_id"] for row in failed} == deadly
    assert len(deadly) == 2
    assert sum(verdicts.values()) == 80
    assert all("3 replicas died while they were asked this" in row["error"] for row in failed)
    assert json.loads(stdout)["status"] == "unfinished"


def test_many_of_them_keep_nobody_from_an_answer(fake, data, tmp_path):
    """One after the other, and alone when they are asked again: each ends as a failed row, twice."""
    samples = [row["sample_id"] for row in split_rows(data, "grid_patch", "train")]
    words = fake("--set", "faults={crash: 0.1}", latency_s=0, replicas=1)
    deadly = {sample_id for sample_id in samples if draw(sample_id) < 0.1}
    assert len(deadly) > 4
    for _ in range(2):
        done = subprocess.run(evalkit(*words), capture_output=True, text=True, timeout=300)
        assert done.returncode == 3, done.stderr
        rows = rows_of(tmp_path)
        assert len(rows) == len(samples)
        assert {row["sample_id"] for row in rows if row["verdict"] == "failed"} == deadly


def test_copies_that_wait_for_room(monkeypatch):
    """It is said once; and an error, but only while no other copy is at work."""
    from model_adapters import replicas
    from model_adapters.replicas import RayReplicas, _Copy

    monkeypatch.setattr(replicas, "_ROOM_S", -1.0)
    found = object.__new__(RayReplicas)
    found._name, found._gpus, found._told_of_room = "m", 1, False
    waiting, at_work = (
        _Copy(1, None, None, lambda *_: iter(())),
        _Copy(2, None, None, lambda *_: iter(()), node="n"),
    )
    found._copies = [waiting, at_work]
    monkeypatch.setattr(replicas, "_PLACING_S", -1.0)
    found._look_for_room()
    assert found._told_of_room
    found._copies = [waiting]
    with pytest.raises(AdapterError, match="no node of the cluster has room"):
        found._look_for_room()


def test_a_model_that_cannot_be_loaded_is_one_line(data, cluster, tmp_path):  # noqa: F811
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text("{}")
    words = ["run", "--model", "qwen-base", "--checkpoint", tmp_path / "broken", "--task", "grid_patch"]
    words += ["--split", "train", "--data", data, "--results", tmp_path / "results"]
    done = subprocess.run(
        evalkit(*words, "--engine", "ray:hf_local", "--address", cluster), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("Error:")], done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results/runs/qwen-base").exists() or not list(
        tmp_path.glob("results/runs/*/*/run.json")
    )


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (
            ("--model", "gpt-4o", "--engine", "ray", "--base-url", "http://127.0.0.1:9/v1"),
            1,
            "leave --engine ray out",
        ),
        (("--model", "fake", "--replicas", "2"), 2, "go with --engine ray"),
        (("--model", "fake", "--engine", "ray", "--address", "127.0.0.1:9"), 1, "Ray at 127.0.0.1:9"),
        (("--model", "fake", "--engine", "ray", "--replicas", "20000"), 1, "20,000 workers on this machine"),
        (("--model", "fake", "--set", "reply=.nan"), 1, "no finite number"),
    ],
)
def test_what_cannot_be(words, status, said, data, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "1")
    command = ["run", "--task", "grid_patch", "--split", "train", "--data", data, "--results", tmp_path]
    result = cli(*command, *words)
    assert result.exit_code == status
    assert said in result.output
    assert not list(tmp_path.glob("runs/*/*/run.json"))


def test_data_are_the_same_wherever_they_are_drawn(data, cluster, tmp_path):  # noqa: F811
    """`data build --engine ray`: the pixels and rows of the local one; the lost work of a worker is done again."""
    words = [
        "data",
        "build",
        "grid_patch",
        "--n",
        100,
        "--data",
        tmp_path,
        "--engine",
        "ray",
        "--address",
        cluster,
    ]
    done = subprocess.run(evalkit(*words, "--json"), capture_output=True, text=True, check=True)
    (built,) = json.loads(done.stdout)
    assert (
        built["fingerprint"]
        == cli_json("data", "build", "grid_patch", "--n", 100, "--data", data)[0]["fingerprint"]
    )
    assert cli_json("data", "verify", "--data", tmp_path)["ok"]


SPREAD = """
import os, signal, sys
from functools import partial
from pathlib import Path
from evalkit.cluster import connect
from evalkit.errors import DataError

def deadly_once(marker, index):
    if index == 40 and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return index

def refusing(index):
    raise DataError("No such picture.")

cluster = connect(sys.argv[1], 1)
assert list(cluster.in_order(partial(deadly_once, sys.argv[2]), 100)) == list(range(100))
assert list(cluster.in_order(partial(deadly_once, sys.argv[2]), 0)) == []
try:
    list(cluster.in_order(refusing, 3))
except Exception as error:
    print(type(error).__name__, error)
cluster.close()
"""


def test_work_that_is_lost_is_done_again(cluster, tmp_path):  # noqa: F811
    done = subprocess.run(
        [sys.executable, "-c", SPREAD, cluster, str(tmp_path / "marker")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "DataError No such picture.\n", done.stderr
    assert (tmp_path / "marker").exists()
