"""Runs -> rows: statuses, which run fills a cell, what is left out."""

import json

import pytest
from fixture_runs import mixed, write_run

from evalkit.leaderboard import COLUMNS, best_run, load_runs
from evalkit.report.board import build_board
from evalkit.scores import ScoreBook


def board(results):
    book = ScoreBook(results)
    return build_board(load_runs(results, book), book)


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
    assert board(tmp_path) == {"newest": None, "sections": [], "runs": []}


def test_complete_is_not_believed_against_the_rows(tmp_path):
    write_run(tmp_path, mixed(30, 50, failed=2), hash8="1")
    write_run(tmp_path, mixed(30, 50), n=100, hash8="2")
    assert set(load_runs(tmp_path)["status"]) == {"unfinished"}


def test_damaged_runs_are_named_and_left_out(tmp_path, caplog):
    write_run(tmp_path, mixed(1, 1), hash8="good")
    (write_run(tmp_path, mixed(1, 1), hash8="meta") / "run.json").write_text("{")
    (write_run(tmp_path, mixed(1, 1), hash8="rows") / "rows.jsonl").write_text("nonsense\n")
    (write_run(tmp_path, mixed(1, 1), hash8="keys") / "run.json").write_text('{"schema": 1}')
    write_run(tmp_path, mixed(1, 1), hash8="list", task_block=["a list"])
    write_run(tmp_path, mixed(3, 0), n=2, hash8="more")
    assert list(load_runs(tmp_path)["hash"]) == ["good"]
    assert len(caplog.records) == 5
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
    assert [name.rpartition("-")[2] for name in others] == ["full", "5", "2", "open"]


def test_the_newest_of_a_day_fills_a_cell(tmp_path):
    write_run(tmp_path, mixed(1, 9), hash8="a", started="2026-11-20T08:00:00+00:00", ended=None)
    write_run(tmp_path, mixed(2, 8), hash8="b", started="2026-11-20T09:00:00+00:00", ended=None)
    write_run(tmp_path, mixed(3, 7), hash8="c", started="2026-11-20T07:00:00+00:00", ended=None)
    chosen, _ = best_run(load_runs(tmp_path))
    assert chosen["hash"] == "b"


def test_data_unlike_the_others_are_marked_and_not_averaged(tmp_path):
    for task in ("line_intersection", "grid_patch"):
        for model in ("one", "two", "three"):
            write_run(tmp_path, mixed(5, 5), task=task, model=model)
        write_run(tmp_path, mixed(9, 1), task=task, model="odd", fingerprint="e" * 64, date="2026-11-30")
    # of two runs of a model, the one on the usual data stands, although it is older
    write_run(tmp_path, mixed(10, 0), model="two", fingerprint="e" * 64, hash8="newer", date="2026-11-30")
    (section,) = board(tmp_path)["sections"]
    rows = {row["model"]: row for row in section["rows"]}
    assert [cell["other_data"] for cell in rows["odd"]["cells"]] == [True, True]
    assert rows["odd"]["average"] is None
    assert (rows["two"]["average"], rows["two"]["cells"][0]["correct"]) == (0.5, 5)
    assert section["unshown"] == [
        {
            "row": "two",
            "column": "Line Intersection, test",
            "runs": ["runs/two/line_intersection-test-newer"],
        }
    ]


def test_chance_stands_below_each_column(tmp_path):
    write_run(tmp_path, mixed(5, 5), task="grid_patch")
    write_run(tmp_path, mixed(5, 5), task="own", model="b")
    (section,) = board(tmp_path)["sections"]
    assert [(column["task"], column["chance"]) for column in section["columns"]] == [
        ("grid_patch", 0.1667),
        ("own", 0.1667),
    ]


def test_scores_that_only_points_and_boxes_have(tmp_path):
    """Both over all selected samples: what has no readable answer counts as 0."""
    rows = [{"correct_floor_cell": True, "iou": 0.75}, {"correct_floor_cell": False, "iou": 0.25}, {}, {}]
    write_run(tmp_path, mixed(1, 1, unparsed=2), scores=rows)
    run = load_runs(tmp_path).iloc[0]
    assert (run["floor_cell_accuracy"], run["mean_iou"]) == (0.25, 0.25)


def test_average_only_over_all_tasks_complete(tmp_path):
    for task in ("line_intersection", "grid_patch"):
        write_run(tmp_path, mixed(5, 5), task=task, model="whole")
        write_run(tmp_path, mixed(9, 1), task=task, model="part", n_split=10 if task == "grid_patch" else 20)
        write_run(tmp_path, mixed(9, 0), task=task, model="open", n=10, status="unfinished")
    write_run(tmp_path, mixed(10, 0), task="grid_patch", model="one")
    (section,) = board(tmp_path)["sections"]
    averages = {row["model"]: row["average"] for row in section["rows"]}
    assert averages == {"whole": 0.5, "part": None, "open": None, "one": None}
    assert section["rows"][0]["model"] == "whole"


def test_average_is_over_tasks_not_splits(tmp_path):
    for split, right in (("val", 9), ("testA", 8), ("testB", 7)):
        write_run(tmp_path, mixed(right, 10 - right), task="refcoco", split=split)
    write_run(tmp_path, mixed(2, 8), task="grid_patch")
    (section,) = board(tmp_path)["sections"]
    assert section["rows"][0]["average"] == pytest.approx((0.2 + 0.8) / 2)


def test_tiny_models_stand_apart(tmp_path):
    write_run(tmp_path, mixed(5, 5), model="big")
    write_run(tmp_path, mixed(9, 1), model="tiny-x", scale="tiny")
    write_run(tmp_path, mixed(9, 1), model="mine", scale=None)
    sections = board(tmp_path)["sections"]
    assert [(s["scale"], [r["model"] for r in s["rows"]]) for s in sections] == [
        ("full", ["big"]),
        ("unknown", ["mine"]),
        ("tiny", ["tiny-x"]),
    ]


def test_transfer_is_a_row_of_its_own(tmp_path):
    write_run(tmp_path, mixed(5, 5), model="qwen-klal", task="grid_patch", trained_on="grid_patch")
    write_run(tmp_path, mixed(1, 9), model="qwen-klal", task="grid_patch", trained_on="pixmo_points")
    (section,) = board(tmp_path)["sections"]
    assert sorted((r["trained_on"] or "", r["cells"][0]["correct"]) for r in section["rows"]) == [
        ("", 5),
        ("pixmo_points", 1),
    ]


def test_the_document_is_json(tmp_path):
    write_run(tmp_path, mixed(5, 5), model="a", cost_usd=0.25)
    write_run(tmp_path, [], model="empty", n=0)  # no number to show: left out
    document = board(tmp_path)
    assert json.loads(json.dumps(document, allow_nan=False))["runs"][0]["cost_usd"] == 0.25
    assert [run["model"] for run in document["runs"]] == ["a"]


def test_ranks_say_what_cannot_be_told_apart(tmp_path):
    """Two that are alike share their places, one that is better and one that is worse have their own."""
    write_run(tmp_path, mixed(190, 10), model="best")
    write_run(tmp_path, mixed(120, 80), model="one")
    write_run(tmp_path, ["wrong"] * 2 + mixed(119, 79), model="other")
    write_run(tmp_path, mixed(10, 190), model="worst")
    write_run(tmp_path, mixed(9, 1), model="sample", n_split=200)
    rows = {row["model"]: row["cells"][0]["rank"] for row in board(tmp_path)["sections"][0]["rows"]}
    assert rows == {"best": [1, 1], "one": [2, 3], "other": [2, 3], "worst": [4, 4], "sample": None}


def test_ranks_of_averages_need_all_tasks(tmp_path):
    for i, task in enumerate(("line_intersection", "grid_patch")):
        for model, right in (("a", 180), ("b", 178), ("c", 40)):
            write_run(tmp_path, mixed(right - 5 * i, 200 - right + 5 * i), model=model, task=task)
    write_run(tmp_path, mixed(200, 0), model="d")
    rows = {row["model"]: row["rank"] for row in board(tmp_path)["sections"][0]["rows"]}
    assert rows["c"] == [3, 3]
    assert rows["d"] is None
    assert rows["a"][0] == 1


def test_an_odd_run_does_not_name_a_column(tmp_path):
    for model in ("a", "b"):
        write_run(tmp_path, mixed(5, 5), model=model)
    write_run(
        tmp_path,
        mixed(5, 5),
        model="A",
        task_block={"name": "line_intersection", "title": "Win a prize", "chance": 0.1},
    )
    assert board(tmp_path)["sections"][0]["columns"][0]["title"] == "Line Intersection"


def test_pages_are_the_same_from_many_processes(tmp_path, monkeypatch):
    from support import cli

    from evalkit.report import boardfiles

    for i in range(4):
        write_run(tmp_path, mixed(6, 4), model=f"m{i}", date="2026-11-20")
    found = []
    for least in (10**9, 0):
        monkeypatch.setattr(boardfiles, "_WORTH_WORKERS", least)
        cli("leaderboard", "--results", tmp_path, "--out", tmp_path / "board")
        found.append({p.name + p.parent.name: p.read_bytes() for p in (tmp_path / "board/runs").glob("*/*")})
    assert len(found[0]) == 4
    assert found[0] == found[1]


def test_pages_of_runs_that_are_gone_go(tmp_path):
    import shutil

    from support import cli

    write_run(tmp_path, mixed(6, 4), model="a")
    gone = write_run(tmp_path, mixed(6, 4), model="b")
    cli("leaderboard", "--results", tmp_path)
    pages = tmp_path / "leaderboard/runs"
    assert len(list(pages.glob("*/*.html"))) == 2
    shutil.rmtree(gone)
    cli("leaderboard", "--results", tmp_path)
    assert [p.parent.name for p in pages.glob("*/*.html")] == ["a"]
    cli("leaderboard", "--results", tmp_path, "--no-pages")


def test_a_run_cannot_name_data_elsewhere(tmp_path, monkeypatch):
    from evalkit.report import shelf

    monkeypatch.setattr(shelf, "read_split", lambda *_: pytest.fail("was read"))
    found = shelf.Shelf(tmp_path / "data", tmp_path / "out")
    for dataset, split in (("../../etc", "test"), ("grid_patch", "../../test"), ("/etc", "test"), ("", "")):
        assert found.pictures(dataset, split, "f" * 64) == {}


def test_damaged_probes_are_named_and_left_out(tmp_path, caplog):
    from pages_fixture import write_pictured
    from support import cli

    write_pictured(tmp_path / "results", tmp_path / "data", n=12)
    probes = tmp_path / "results/probes"
    (probes / "tiny-qwen-base/grid_patch-test-00000000/probe.json").write_text("{")
    (probes / "tiny-qwen-ntp/grid_patch-test-00000000/maps.npz").write_bytes(b"no maps")
    meta = json.loads((probes / "tiny-qwen-klal/grid_patch-test-00000000/probe.json").read_text())
    other = probes / "tiny-qwen-klal/grid_patch-test-other"
    other.mkdir()
    (other / "probe.json").write_text(json.dumps(meta | {"summary": {"n": 3, "ratio": {"value": "high"}}}))
    for command in ("leaderboard", "tables"):
        assert cli(command, "--results", tmp_path / "results", "--data", tmp_path / "data").exit_code == 0
    assert len(list((tmp_path / "results/leaderboard/runs").glob("*/*.html"))) == 3
    assert caplog.text.count("left out") >= 3


@pytest.mark.parametrize(
    "odd",
    [{"distance": 10**400}, {"latency_s": "long"}, {"cluster": ["a"]}, {"answer": {"a": 1}, "gold": 1}, {"usage": [1]},
     {"gold": {"a": [1]}}, {"image_size_wh": "big", "gold": [1, 2]}, {"iou": 10**400, "gold": [1, 2, 3, 4]}],
)  # fmt: skip
def test_an_odd_run_costs_the_others_nothing(tmp_path, odd):
    from support import cli

    write_run(tmp_path, mixed(3, 1), model="good", date="2026-11-20")
    write_run(tmp_path, mixed(2, 2), model="odd", scores=[{}, {}, odd, {}])
    for command in ("leaderboard", "tables"):
        assert cli(command, "--results", tmp_path).exit_code == 0
    assert "good" in (tmp_path / "leaderboard/leaderboard.md").read_text()
    assert list((tmp_path / "leaderboard/runs/good").glob("*.html"))
