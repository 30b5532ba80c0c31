"""The pipeline runs what its needs allow, remembers what is done, and says which command failed and why."""

import json

import pytest

from evalkit.cli.pipeline import Command, Pipeline, StepFailed


def pipeline(folder, said, jobs=2):
    return Pipeline(folder, jobs, 1, said.append)


def command(key, *words, needs=(), always=False):
    return Command(key, words or ("tasks",), tuple(needs), always)


def test_order_state_and_a_second_call(tmp_path):
    said = []
    plan = [command("a"), command("b", "models", needs=["a"]), command("c", needs=["a", "b"])]
    seconds = pipeline(tmp_path, said).run(plan)
    assert list(seconds) == ["a", "b", "c"]
    assert [line.split()[1] for line in said] == ["a", "b", "c"]
    assert "left" in said[0]
    assert "left" not in said[-1]
    assert "grid_patch" in (tmp_path / "logs" / "a.log").read_text()
    again = []
    pipeline(tmp_path, again).run(plan)
    assert again == ["3 of 3 steps are done already."]


def test_a_command_that_changed_and_one_that_always_runs_are_run_again(tmp_path):
    said = []
    pipeline(tmp_path, said).run([command("a"), command("b", always=True)])
    said.clear()
    pipeline(tmp_path, said).run([command("a", "models"), command("b", always=True)])
    assert sorted(line.split()[1] for line in said) == ["a", "b"]


def test_a_failure_stops_what_follows_and_names_the_command(tmp_path):
    said = []
    plan = [
        command("good"),
        command("bad", "run", "--model", "joke", "--task", "grid_patch"),
        command("after", needs=["bad"]),
    ]
    with pytest.raises(StepFailed, match="No model named 'joke'") as raised:
        pipeline(tmp_path, said).run(plan)
    assert "step 'bad' ended with status 1: evalkit run --model joke" in str(raised.value)
    assert "after" not in json.loads((tmp_path / "state.json").read_text())
    assert not (tmp_path / "logs" / "after.log").exists()


def test_a_damaged_state_starts_over(tmp_path):
    (tmp_path / "state.json").write_text("{")
    said = []
    pipeline(tmp_path, said).run([command("a")])
    assert len(said) == 1
