"""`evalkit run` through vLLM, as typed: the rows of transformers, and nothing but JSON on standard output."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import read_rows
from vllm_support import MARKS

from evalkit.datasets.build import build
from evalkit.paths import cache_dir
from model_adapters.tiny import tiny_checkpoint
from model_adapters.vllm_server import VllmServer

pytest.importorskip("openai")

pytestmark = MARKS
ROOT = Path(__file__).resolve().parent.parent
LIMIT = 20


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    build("line_intersection", folder, n=200)
    return folder


def run(data, results, model, *more):
    """(what --json printed, {sample_id: what of its row an engine decides}, standard error)."""
    words = ["run", "--model", model, "--task", "line_intersection", "--limit", str(LIMIT), "--json",
             "--data", str(data), "--results", str(results), *more]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "evalkit", *words], capture_output=True, text=True, cwd=results.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "complete"
    kept = ("prompt_sha256", "reply", "finish_reason", "usage", "verdict", "answer")
    rows = {row["sample_id"]: [row[name] for name in kept] for row in read_rows(result["run"])}
    return result, rows, done.stderr


def ran_on(result):
    return json.loads((Path(result["run"]) / "run.json").read_text())["ran_on"]


def test_offline_is_what_is_taken_where_vllm_is_installed(data, tmp_path):
    _, ours, _ = run(data, tmp_path / "r", "tiny-qwen", "--engine", "hf_local")
    result, theirs, said = run(data, tmp_path / "r", "tiny-qwen")
    assert "tiny-qwen runs in vLLM (version 0.32" in said
    assert ran_on(result)["engine"] == "vllm"
    assert theirs == ours
    assert len(ours) == LIMIT


def test_a_server_started_for_the_run_and_one_that_runs_already(data, tmp_path):
    _, ours, _ = run(data, tmp_path / "r", "tiny-llava", "--engine", "hf_local")
    result, theirs, said = run(data, tmp_path / "r", "tiny-llava", "--engine", "vllm_server")
    assert "tiny-llava runs in a vLLM server (as asked)" in said
    assert ran_on(result)["engine"] == "vllm server"
    assert theirs == ours
    with VllmServer(tiny_checkpoint("llava", cache_dir()), "llava", dtype="float32") as server:
        url = server.start()
        result, theirs, _ = run(data, tmp_path / "other", "tiny-llava", "--base-url", url)
    assert ran_on(result)["engine"] == "vllm server"
    assert theirs == ours
