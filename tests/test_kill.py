"""SIGKILL at random moments loses no stored reply and asks for none twice; Ctrl-C ends in good order."""

import json
import signal
import subprocess
import time
from functools import partial

from benchmarks.kill_resume import command, kill_and_resume, lines
from evalkit.datasets.build import build


def test_kill_and_resume(tmp_path):
    outcome = kill_and_resume(tmp_path, kills=6, latency_s=0.01, n=100)
    assert outcome.status == "complete"
    assert outcome.rows == outcome.distinct == outcome.samples == 80
    assert outcome.asked_again == 0
    assert outcome.in_flight_repeated <= outcome.kills


def test_interrupt_leaves_an_unfinished_run(tmp_path):
    build("grid_patch", tmp_path / "data", n=100)
    process = subprocess.Popen(
        command(tmp_path, latency_s=0.05),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts background jobs with Ctrl-C ignored, and children inherit that
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while len(list(lines(tmp_path / "log.jsonl"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 3
    assert json.loads(stdout)["status"] == "unfinished"
    assert "Interrupted." in stderr
    assert "The same command asks them again" in stderr
    assert "Traceback" not in stderr
    (run_file,) = tmp_path.glob("results/runs/fake/*/run.json")
    assert json.loads(run_file.read_text())["status"] == "unfinished"

    done = subprocess.run(command(tmp_path, latency_s=0.0), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["status"] == "complete"
