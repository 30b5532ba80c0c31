"""Children of a run end with it; their output is in a log, and its last error in one line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model_adapters.child_processes import Guard, Log, environment, one_line, output_into, waiting

PARENT = """
import subprocess, sys, time
from model_adapters.child_processes import Guard
guard = Guard()
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
one = subprocess.Popen(["sleep", "300"], **quiet)
group = subprocess.Popen(["sh", "-c", "sleep 300 & sleep 300"], start_new_session=True, **quiet)
other = subprocess.Popen(["sleep", "300"], **quiet)
guard.watch([other.pid])
guard.watch([one.pid, -group.pid])
print(one.pid, group.pid, other.pid, flush=True)
if sys.argv[1] == "close":
    guard.close()
    print("closed", flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize("how", ["kill", "close"])
def test_a_guard_kills_what_a_killed_process_leaves_and_nothing_once_closed(how):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, how], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": "."}
    )  # fmt: skip
    one, group, other = map(int, parent.stdout.readline().split())
    if how == "close":
        parent.stdout.readline()
    parent.kill()
    parent.communicate()
    if how == "kill":
        until(lambda: not alive(one) and not group_alive(group))
    else:
        time.sleep(0.5)
        assert alive(one)
        assert group_alive(group)
        os.kill(one, signal.SIGKILL)
        os.killpg(group, signal.SIGKILL)
    assert alive(other)  # a later list replaces an earlier one
    os.kill(other, signal.SIGKILL)


def until(true):
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False


def group_alive(group):
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stats.append(path.read_text(encoding="utf-8").rpartition(") ")[2].split())
        except OSError:
            continue
    return any(fields[2] == str(group) and fields[0] != "Z" for fields in stats)


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([], None),
        (["INFO all is well", "0 errors: none"], None),
        (["ValueError: first", "KeyError: 'second'", "done"], "KeyError: 'second'"),
        (
            [
                "(EngineCore pid=7) ERROR 11-23 [core.py:1] torch.OutOfMemoryError: CUDA out of memory.",
                "(EngineCore pid=7) RuntimeError: Engine core initialization failed. See root cause above.",
            ],
            "torch.OutOfMemoryError: CUDA out of memory",
        ),
        (
            [
                "pydantic_core.ValidationError: 1 validation error for ModelConfig",
                "  Value error, 9 is too long. [type=value_error, input_value={...}]",
                "    For further information visit https://errors.pydantic.dev",
                "",
            ],
            "pydantic_core.ValidationError: 1 validation error for ModelConfig Value error, 9 is too long",
        ),
    ],
)
def test_the_last_error_of_a_log_that_does_not_pass_on_another(lines, error):
    log = Log("x")
    log.path.write_text("\n".join(lines), encoding="utf-8")
    assert log.error() == error
    assert log.last_line() == next((line.strip() for line in reversed(lines) if line), None)
    log.remove()
    assert not log.path.parent.exists()


def test_output_of_this_process_and_its_children_goes_to_a_file(tmp_path, capfd):
    print("before")
    with output_into(tmp_path / "log"):
        os.write(1, b"out ")
        os.write(2, b"err ")
        subprocess.run(["sh", "-c", "echo child; echo child >&2"], check=True)
    print("after")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "out err child\nchild\n"
    assert capfd.readouterr() == ("before\nafter\n", "")


def test_the_environment_is_lent_and_what_is_set_stands(monkeypatch):
    monkeypatch.setenv("EVALKIT_SET", "user's")
    monkeypatch.delenv("EVALKIT_UNSET", raising=False)
    with environment({"EVALKIT_SET": "ours", "EVALKIT_UNSET": "ours"}):
        assert (os.environ["EVALKIT_SET"], os.environ["EVALKIT_UNSET"]) == ("user's", "ours")
    assert os.environ["EVALKIT_SET"] == "user's"
    assert "EVALKIT_UNSET" not in os.environ


def test_one_line():
    assert one_line("a\n  b\tc") == "a b c"
    assert one_line("x" * 10, limit=5) == "xxxx…"


def test_waiting_says_nothing_where_there_is_no_terminal(capfd):
    with waiting("loading"):
        time.sleep(1.2)
    assert capfd.readouterr() == ("", "")


def test_closing_a_guard_whose_shell_is_gone(capfd):
    guard = Guard()
    guard._shell.kill()
    guard._shell.wait()
    guard.watch([1 << 30])
    guard.close()
