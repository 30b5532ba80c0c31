"""Runs -> rows: statuses, which run fills a cell, what is left out."""

import json

import pytest
from fixture_runs import mixed, write_run

from evalkit.leaderboard import COLUMNS, best_run, load_runs
from evalkit.report.board import build_board


def test_a_run_is_a_row(tmp_path):
    write_run(tmp_path, mixed(30, 50, unparsed=15, truncated=5), latencies=[i / 100 for i in range(100)])
    runs = load_runs(tmp_path)
    assert list(runs.columns) == list(COLUMNS)
    row = runs.iloc[0]
    assert (row["correct"], row["n"], row["accuracy"]) == (30, 100, 0.3)
    assert (row["unparsed"], row["truncated"], row["failed"]) == (15, 5, 0)
    assert row["latency_p50_s"] == pytest.approx(0.495)
    assert row["low"] < 0.3 < row["high"]
    assert row["hash"] == "0a1b2c3d"


def test_no_runs(tmp_path):
    assert load_runs(tmp_path).empty
    assert build_board(load_runs(tmp_path)) == {"newest": None, "sections": [], "runs": []}


def test_complete_is_not_believed_against_the_rows(tmp_path):
    write_run(tmp_path, mixed(30, 50, failed=2), hash8="1")
    write_run(tmp_path, mixed(30, 50), n=100, hash8="2")
    assert set(load_runs(tmp_path)["status"]) == {"unfinished"}


def test_damaged_runs_are_named_and_left_out(tmp_path, caplog):
    write_run(tmp_path, mixed(1, 1), hash8="good")
    (write_run(tmp_path, mixed(1, 1), hash8="meta") / "run.json").write_text("{")
    (write_run(tmp_path, mixed(1, 1), hash8="rows") / "rows.jsonl").write_text("nonsense\n")
    (write_run(tmp_path, mixed(1, 1), hash8="keys") / "run.json").write_text('{"schema": 1}')
    assert list(load_runs(tmp_path)["hash"]) == ["good"]
    assert len(caplog.records) == 3
    assert "left out" in caplog.text


def test_a_torn_last_row_is_ignored(tmp_path):
    folder = write_run(tmp_path, mixed(1, 1), n=3, status="running")
    with (folder / "rows.jsonl").open("a") as file:
        file.write('{"sample_id": "s2", "verd')
    row = load_runs(tmp_path).iloc[0]
    assert (row["n_rows"], row["status"]) == (2, "running")


def test_which_run_fills_a_cell(tmp_path):
    ordered = [
        {"verdicts": mixed(9, 1), "date": "2026-11-03", "hash8": "newest-full"},
        {"verdicts": mixed(8, 2), "date": "2026-11-01", "hash8": "older-full"},
        {"verdicts": mixed(5, 0), "n_split": 10, "date": "2026-11-09", "hash8": "sample-5"},
        {"verdicts": mixed(2, 0), "n_split": 10, "date": "2026-11-10", "hash8": "sample-2"},
        {"verdicts": mixed(9, 0), "n": 10, "status": "unfinished", "date": "2026-11-11", "hash8": "open"},
    ]
    for wanted in reversed(ordered):
        verdicts = wanted.pop("verdicts")
        hash8 = wanted["hash8"]
        write_run(tmp_path, verdicts, **wanted)
        chosen, others = best_run(load_runs(tmp_path))
        assert chosen["run"].endswith(hash8)
    assert others == 4


def test_average_only_over_all_tasks_complete(tmp_path):
    for task in ("line_intersection", "grid_patch"):
        write_run(tmp_path, mixed(5, 5), task=task, model="whole")
        write_run(tmp_path, mixed(9, 1), task=task, model="part", n_split=10 if task == "grid_patch" else 20)
        write_run(tmp_path, mixed(9, 0), task=task, model="open", n=10, status="unfinished")
    write_run(tmp_path, mixed(10, 0), task="grid_patch", model="one")
    (section,) = build_board(load_runs(tmp_path))["sections"]
    averages = {row["model"]: row["average"] for row in section["rows"]}
    assert averages == {"whole": 0.5, "part": None, "open": None, "one": None}
    assert section["rows"][0]["model"] == "whole"


def test_tiny_models_stand_apart(tmp_path):
    write_run(tmp_path, mixed(5, 5), model="big")
    write_run(tmp_path, mixed(9, 1), model="tiny-x", scale="tiny")
    write_run(tmp_path, mixed(9, 1), model="mine", scale=None)
    sections = build_board(load_runs(tmp_path))["sections"]
    assert [(s["scale"], [r["model"] for r in s["rows"]]) for s in sections] == [
        ("full", ["big"]),
        ("unknown", ["mine"]),
        ("tiny", ["tiny-x"]),
    ]


def test_transfer_is_a_row_of_its_own(tmp_path):
    write_run(tmp_path, mixed(5, 5), model="qwen-klal", task="grid_patch", trained_on="grid_patch")
    write_run(tmp_path, mixed(1, 9), model="qwen-klal", task="grid_patch", trained_on="pixmo_points")
    (section,) = build_board(load_runs(tmp_path))["sections"]
    assert sorted((r["trained_on"] or "", r["cells"][0]["correct"]) for r in section["rows"]) == [
        ("", 5),
        ("pixmo_points", 1),
    ]


def test_the_document_is_json(tmp_path):
    write_run(tmp_path, mixed(5, 5), model="a", cost_usd=0.25)
    write_run(tmp_path, [], model="empty", n=0)  # no number to show: left out
    document = build_board(load_runs(tmp_path))
    assert json.loads(json.dumps(document, allow_nan=False))["runs"][0]["cost_usd"] == 0.25
    assert [run["model"] for run in document["runs"]] == ["a"]
