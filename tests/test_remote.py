"""A run on shared storage: every row arrives once, whatever fails, and one process at a time writes it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from remote_fixture import ASKED, SECRET, another_machine, asked, killed_run, row, wait_for, words
from support import cli, cli_json

from evalkit.errors import InUse, StoreError, Unsent
from evalkit.remote import lease as leases
from evalkit.remote import objects, uploading
from evalkit.remote.folders import fetched, local_folder
from evalkit.remote.lease import Lease
from evalkit.remote.mirror import mirror_of
from evalkit.remote.run import open_run
from evalkit.store import read_rows

# A run


def test_a_run_has_the_plain_layout_and_any_machine_goes_on_with_it(s3, grid_data, tmp_path, monkeypatch):
    first = cli_json(*words(grid_data, s3.url, tmp_path / "log"))
    assert (first["status"], first["n"]) == ("complete", ASKED)
    run = f"shared/runs/fake/{Path(first['run']).name}"
    assert s3.names() == [f"{run}/rows.jsonl", f"{run}/run.json"]
    assert sorted(s3.samples()) == sorted(set(asked(tmp_path / "log")))
    assert s3.get(f"{run}/rows.jsonl") == (Path(first["run"]) / "rows.jsonl").read_bytes()
    assert json.loads(s3.get(f"{run}/run.json"))["status"] == "complete"

    another_machine(monkeypatch, tmp_path)
    s3.proxy.seen.clear()
    again = cli_json(*words(grid_data, s3.url, tmp_path / "log-2"))
    assert {**again, "run": None} == {**first, "run": None}
    assert asked(tmp_path / "log-2") == []
    assert [path for path in s3.proxy.asked("PUT") if "lease.json" not in path] == []
    assert "machine-2" in again["run"]


def test_dry_run_knows_what_is_stored_elsewhere(s3, grid_data, tmp_path, monkeypatch):
    cli_json(*words(grid_data, s3.url))
    another_machine(monkeypatch, tmp_path)
    plan = cli_json(*words(grid_data, s3.url, None, "--dry-run"))
    assert (plan["stored"], plan["to_ask"]) == (ASKED, 0)
    assert not s3.names("lease")


@pytest.mark.parametrize("fault", ["refuse", "lose", "503", "stall"])
def test_storage_down_in_mid_run(s3, grid_data, tmp_path, monkeypatch, fault):
    if fault == "stall":
        monkeypatch.setitem(objects._S3_CALLS, "read_timeout", 1)
    log = tmp_path / "log"

    def trouble():
        wait_for(lambda: len(s3.samples()) > 3)
        s3.proxy.fail(fault)
        before = len(asked(log))
        wait_for(lambda: len(asked(log)) >= min(before + 6, ASKED) and s3.proxy.failed)  # the run goes on
        s3.proxy.fail(None)

    thread = threading.Thread(target=trouble)
    thread.start()
    result = cli_json(*words(grid_data, s3.url, log, latency=0.08))
    thread.join()
    assert result["status"] == "complete"
    assert s3.proxy.failed
    assert len(asked(log)) == ASKED
    assert sorted(s3.samples()) == sorted(asked(log))
    assert [key.rpartition("/")[2] for key in s3.names()] == ["rows.jsonl", "run.json"]


def test_storage_down_to_the_end(s3, grid_data, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(uploading, "PATIENCE_S", 1.0)
    log = tmp_path / "log"

    def trouble():
        wait_for(lambda: len(s3.samples()) > 3)
        s3.proxy.fail("refuse")

    thread = threading.Thread(target=trouble)
    thread.start()
    result = cli(*words(grid_data, s3.url, log, latency=0.1))
    thread.join()
    assert result.exit_code == 3
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Unfinished:")]
    there = len(set(s3.samples()))
    assert f"{ASKED - there} rows could not be sent" in line
    assert "The same command sends what is missing and asks nothing again." in line
    folder = Path(line.partition("local mirror, at ")[2].partition(". The same")[0])
    assert len((folder / "rows.jsonl").read_text().splitlines()) == ASKED
    assert len([r for r in caplog.records if "The run goes on" in r.getMessage()]) == 1
    assert SECRET not in line

    s3.proxy.fail(None)
    again = cli_json(*words(grid_data, s3.url, log))
    assert again["status"] == "complete"
    assert len(asked(log)) == ASKED  # nothing more
    assert sorted(s3.samples()) == sorted(asked(log))
    assert len(s3.names()) == 2


def test_kill_and_go_on_elsewhere(s3, grid_data, tmp_path, monkeypatch):
    log = tmp_path / "log"
    stored = killed_run(s3, grid_data, log)
    assert 5 < len(stored) < ASKED
    assert any("/rows/" in key for key in s3.names())
    another_machine(monkeypatch, tmp_path)
    refused = cli(*words(grid_data, s3.url, log))
    assert refused.exit_code == 1
    assert "is writing this run" in refused.stderr
    assert "its lease ends in" in refused.stderr

    s3.end_lease()
    before = len(asked(log))
    result = cli_json(*words(grid_data, s3.url, log))
    assert result["status"] == "complete"
    assert not set(stored) & set(asked(log)[before:])
    assert sorted(s3.samples()) == sorted({*asked(log)})
    assert [key.rpartition("/")[2] for key in s3.names()] == ["rows.jsonl", "run.json"]


def test_kill_and_go_on_in_the_same_place(s3, grid_data, tmp_path):
    """At once, and with the rows that were durable here and not yet sent."""
    log = tmp_path / "log"
    killed_run(s3, grid_data, log)
    (path,) = (tmp_path / "machine-1").rglob("rows.jsonl")
    kept = [json.loads(line)["sample_id"] for line in path.read_bytes().split(b"\n")[:-1]]
    assert set(s3.samples()) <= set(kept)
    before = len(asked(log))
    assert cli_json(*words(grid_data, s3.url, log))["status"] == "complete"
    assert not set(kept) & set(asked(log)[before:])
    assert sorted(s3.samples()) == sorted({*asked(log)})


def test_interrupted_run_is_sent(s3, grid_data, tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-m", "evalkit", *map(str, words(grid_data, s3.url, log, latency=0.05))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(asked(log)) > 5)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 3, stderr
    assert "Traceback" not in stderr
    rows = s3.samples()
    assert len(rows) >= len(asked(log)) - 1
    assert len(rows) == len(set(rows))
    assert [key.rpartition("/")[2] for key in s3.names()] == ["rows.jsonl", "run.json"]


def test_failed_rows_are_asked_again_elsewhere(s3, grid_data, tmp_path, monkeypatch):
    log = tmp_path / "log"
    first = cli_json(*words(grid_data, s3.url, log, "--set", "faults={failed: 0.3}"), exit_code=3)
    failed = first["verdicts"]["failed"]
    assert failed
    another_machine(monkeypatch, tmp_path)
    second = cli_json(*words(grid_data, s3.url, log, "--set", "faults={failed: 0.3}"))
    assert second["status"] == "complete"
    assert len(asked(log)) == ASKED + failed
    assert sorted(s3.samples()) == sorted(set(asked(log)))


def test_segments_are_put_together_in_the_middle_of_a_long_run(s3, grid_data, tmp_path, monkeypatch):
    monkeypatch.setattr(uploading, "_MOST_SEGMENTS", 2)
    log = tmp_path / "log"
    asked_then = []

    def watch():
        wait_for(lambda: s3.names("/rows.jsonl"))
        asked_then.append(len(asked(log)))

    thread = threading.Thread(target=watch)
    thread.start()
    result = cli_json(*words(grid_data, s3.url, log, latency=0.1))
    thread.join()
    assert result["status"] == "complete"
    assert asked_then[0] < ASKED
    assert not s3.names("/rows/")
    assert len(s3.samples()) == len(set(s3.samples())) == ASKED


# One writer


def test_a_second_machine_is_refused_in_one_line(s3, grid_data, tmp_path, monkeypatch):
    name = Path(cli_json(*words(grid_data, s3.url))["run"]).name
    with open_run(local_folder(f"{s3.url}/runs/fake/{name}")):
        another_machine(monkeypatch, tmp_path)
        result = cli(*words(grid_data, s3.url))
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert f"{s3.url}/runs/fake/{name}: another process (pid {os.getpid()} on " in line
        assert "Wait for it, or stop it and start again: nothing finished is lost." in line
    assert cli(*words(grid_data, s3.url)).exit_code == 0


def test_of_two_machines_that_start_at_once_one_is_refused(s3, grid_data, tmp_path):
    command = [
        sys.executable,
        "-m",
        "evalkit",
        *map(str, words(grid_data, s3.url, tmp_path / "log", latency=0.15)),
    ]
    processes = [
        subprocess.Popen(
            command, env=os.environ | {"EVALKIT_CACHE": str(tmp_path / name)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for name in ("machine-1", "machine-2")
    ]  # fmt: skip
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1]
    (line,) = "".join(errors).splitlines()
    assert "another process" in line
    assert len(asked(tmp_path / "log")) == ASKED
    assert sorted(s3.samples()) == sorted(asked(tmp_path / "log"))


def test_a_reader_leaves_a_run_alone_that_its_machine_is_writing(s3):
    folder = local_folder(f"{s3.url}/runs/m/t-0a1b2c3d")
    with open_run(folder) as store:
        store.append(row("a"))
        fetched(local_folder(s3.url), "runs")
        store.append(row("b"))
        assert [one["sample_id"] for one in read_rows(folder)] == ["a", "b"]
    assert s3.samples() == ["a", "b"]


def test_a_second_process_of_the_machine_is_refused(s3):
    folder = local_folder(f"{s3.url}/runs/m/t-0a1b2c3d")
    with open_run(folder), pytest.raises(StoreError, match=r"another process \(pid .* is writing this run"):
        open_run(folder)
    with open_run(folder):  # and free again
        pass


def test_of_two_that_take_over_one_succeeds(s3, tmp_path, monkeypatch):
    taken, refused = [], []
    mirrors = []
    for name in ("a", "b", "c", "d"):
        monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / name))
        mirrors.append(mirror_of(local_folder(s3.url)))
    s3.put("shared/runs/m/t-0a1b2c3d/lease.json", json.dumps({"owner": "x", "expires": 1.0}).encode())
    start = threading.Barrier(len(mirrors))

    def take(lease):
        start.wait()
        try:
            lease.take()
            taken.append(lease)
        except StoreError as error:
            refused.append(str(error))

    threads = [
        threading.Thread(target=take, args=(Lease(mirror, "shared/runs/m/t-0a1b2c3d"),)) for mirror in mirrors
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (1, 3)
    taken[0].release()
    assert not s3.names()


def test_a_lease_is_renewed_also_when_answers_are_lost(s3, monkeypatch):
    monkeypatch.setattr(leases, "TERM_S", 0.3)
    lease = Lease(mirror_of(local_folder(s3.url)), "shared/runs/m/t-0a1b2c3d")
    lease.take()
    (key,) = s3.names()
    before = s3.get(key)
    wait_for(lambda: s3.get(key) != before)
    s3.proxy.fail("lose", "PUT")
    failed = s3.proxy.failed
    wait_for(lambda: s3.proxy.failed > failed + 2)
    s3.proxy.fail(None)
    before = s3.get(key)
    wait_for(lambda: s3.get(key) != before)
    lease.check()
    lease.release()
    assert not s3.names()


def test_who_lost_the_lease_stops_and_loses_no_row(s3, monkeypatch):
    monkeypatch.setattr(leases, "TERM_S", 0.3)
    folder = local_folder(f"{s3.url}/runs/m/t-0a1b2c3d")

    def write_on():
        with open_run(folder) as store:
            store.append(row("a", reply="1"))
            wait_for(lambda: s3.samples() == ["a"])
            thief = {
                "owner": "t",
                "mirror": "m",
                "host": "h2",
                "pid": 7,
                "since": 1.0,
                "expires": time.time() + 60,
            }
            s3.put("shared/runs/m/t-0a1b2c3d/lease.json", json.dumps(thief).encode())
            for i in range(500):
                time.sleep(0.02)
                store.append(row(f"b{i}", reply="1"))

    with pytest.raises(Unsent, match="took it") as caught:
        write_on()
    assert "pid 7 on h2" in str(caught.value)
    (lease,) = s3.names("lease.json")
    assert json.loads(s3.get(lease))["owner"] == "t"  # not given back: it is another's
    assert "shared/runs/m/t-0a1b2c3d/rows.jsonl" not in s3.names()  # and not ours to write
    parts = s3.names("/rows/")
    with pytest.raises(InUse):
        open_run(folder)
    assert s3.names("/rows/") == parts
    s3.end_lease()
    with open_run(folder) as store:
        ours = set(store.rows)
    assert ours == set(s3.samples())
    assert {"a", "b0"} <= ours


def test_a_server_that_ignores_conditions(s3, tmp_path, monkeypatch):
    """A holder is seen all the same, and of two that begin at once the later one stands."""
    s3.proxy.conditions = False
    with open_run(local_folder(f"{s3.url}/runs/m/t-0a1b2c3d")) as store:
        another_machine(monkeypatch, tmp_path)
        with pytest.raises(StoreError, match="is writing this run"):
            open_run(local_folder(f"{s3.url}/runs/m/t-0a1b2c3d"))
        store.append(row("a"))
    assert s3.samples() == ["a"]
    first = Lease(mirror_of(local_folder(s3.url)), "shared/runs/m/t-0a1b2c3d")
    other = json.dumps(
        {"owner": "x", "mirror": "", "host": "h", "pid": 7, "since": 1.0, "expires": time.time() + 60}
    )
    monkeypatch.setattr(
        time, "sleep", lambda _: s3.put("shared/runs/m/t-0a1b2c3d/lease.json", other.encode())
    )
    with pytest.raises(StoreError, match="another process began to write this run just now"):
        first.take()


def test_a_damaged_lease_has_run_out(s3):
    s3.put("shared/runs/m/t-0a1b2c3d/lease.json", b"\xff not JSON")
    with open_run(local_folder(f"{s3.url}/runs/m/t-0a1b2c3d")) as store:
        store.append(row("a"))
    assert s3.samples() == ["a"]
