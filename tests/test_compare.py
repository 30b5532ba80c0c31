"""evalkit compare: pairs on shared samples, counts worked out by hand."""

import pytest
from fixture_runs import mixed, write_run
from scipy import stats as scipy_stats
from support import cli, cli_json

TASK = ["--task", "line_intersection"]


def compare(tmp_path, *models, exit_code=0):
    return cli_json("compare", *models, *TASK, "--results", tmp_path, exit_code=exit_code)


def test_agreement_by_hand(tmp_path):
    #              both      only a     only b     neither
    first = mixed(4, 0) + mixed(5, 0) + mixed(0, 1) + mixed(0, 2)
    second = mixed(4, 0) + mixed(0, 5) + mixed(1, 0) + mixed(0, 2)
    write_run(tmp_path, first, model="a", latencies=[i / 10 for i in range(12)], cost_usd=0.5)
    write_run(tmp_path, second, model="b")
    document = compare(tmp_path, "a", "b")
    (pair,) = document["pairs"]
    assert [pair[k] for k in ("both_correct", "only_first", "only_second", "both_not")] == [4, 5, 1, 2]
    assert pair["difference"] == pytest.approx(4 / 12)
    assert pair["difference_ci95"][0] < 4 / 12 < pair["difference_ci95"][1]
    assert pair["mcnemar_p"] == pytest.approx(scipy_stats.binomtest(1, 6, 0.5).pvalue)
    a = document["models"][0]
    assert (a["correct"], a["cost_usd"]) == (9, 0.5)
    assert a["latency_p50_s"] == pytest.approx(0.55)
    assert a["latency_p95_s"] == pytest.approx(1.045)


def test_rows_are_joined_by_sample_not_by_place(tmp_path):
    write_run(tmp_path, ["correct", "wrong"], model="a", sample_ids=["x", "y"])
    write_run(tmp_path, ["wrong", "correct"], model="b", sample_ids=["y", "x"])
    (pair,) = compare(tmp_path, "a", "b")["pairs"]
    assert (pair["both_correct"], pair["both_not"]) == (1, 1)


def test_unfinished_runs_share_what_both_answered(tmp_path):
    write_run(tmp_path, mixed(3, 3, failed=1), model="a", status="unfinished")
    write_run(tmp_path, mixed(9, 0), model="b", n=20, status="unfinished")
    document = compare(tmp_path, "a", "b")
    assert document["n"] == 6
    assert [m["only_here"] for m in document["models"]] == [0, 3]
    assert {m["status"] for m in document["models"]} == {"unfinished"}
    assert "[unfinished]" in cli("compare", "a", "b", *TASK, "--results", tmp_path).stdout


def test_three_models_and_run_folders(tmp_path):
    folders = [write_run(tmp_path, mixed(i, 10 - i), model="m", hash8=f"{i:08d}") for i in (2, 5, 9)]
    document = compare(tmp_path, *folders)
    assert [m["model"] for m in document["models"]] == ["m@00000002", "m@00000005", "m@00000009"]
    assert [(p["first"][-1], p["second"][-1]) for p in document["pairs"]] == [
        ("2", "5"),
        ("2", "9"),
        ("5", "9"),
    ]


def test_clusters(tmp_path):
    clusters = [f"c{i // 5}" for i in range(50)]
    write_run(tmp_path, mixed(30, 20), model="a", clusters=clusters)
    write_run(tmp_path, mixed(20, 30), model="b", clusters=clusters)
    document = compare(tmp_path, "a", "b")
    assert document["n_images"] == 10
    assert document["pairs"][0]["clustered"]


def test_fine_tuned_models_stand_for_the_task_itself(tmp_path):
    """qwen-klal trained on the task, unless --trained-on says otherwise; the base model is trained on none."""
    write_run(tmp_path, mixed(1, 9), model="base")
    write_run(tmp_path, mixed(5, 5), model="klal", trained_on="line_intersection", date="2026-11-01")
    write_run(tmp_path, mixed(3, 7), model="klal", trained_on="grid_patch", date="2026-11-30")
    assert [m["correct"] for m in compare(tmp_path, "base", "klal")["models"]] == [1, 5]
    transfer = compare(tmp_path, "base", "klal", "--trained-on", "grid_patch")
    assert [m["correct"] for m in transfer["models"]] == [1, 3]


def test_only_transfer_runs_asks_for_a_choice(tmp_path):
    write_run(tmp_path, mixed(1, 9), model="base")
    write_run(tmp_path, mixed(3, 7), model="klal", trained_on="grid_patch")
    result = cli("compare", "base", "klal", *TASK, "--results", tmp_path)
    assert result.exit_code == 1
    assert "trained on grid_patch. Choose one: --trained-on grid_patch" in result.stderr


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["a", "nobody"], "No run of 'nobody' on line_intersection/test"),
        (["a", "other-data"], "different data"),
        (["a", "elsewhere"], "no answered sample in common"),
    ],
)
def test_errors_are_one_line(tmp_path, models, message):
    write_run(tmp_path, mixed(1, 1), model="a")
    write_run(tmp_path, mixed(1, 1), model="other-data", fingerprint="e" * 64)
    write_run(tmp_path, mixed(1, 1), model="elsewhere", sample_ids=["p", "q"])
    result = cli("compare", *models, *TASK, "--results", tmp_path)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_names_cannot_steer_the_terminal(tmp_path):
    folders = [
        write_run(tmp_path, mixed(i, 3), model=f"m{i}", model_block={"name": f"m{i}\u202e\x07", "title": "x"})
        for i in (1, 2)
    ]
    output = cli("compare", *folders, *TASK, "--results", tmp_path)
    assert "\u202e" not in output.stdout
    assert "m1\ufffd\ufffd against m2\ufffd\ufffd" in output.stdout


def test_one_model_is_a_usage_error(tmp_path):
    assert cli("compare", "a", *TASK, "--results", tmp_path).exit_code == 2
