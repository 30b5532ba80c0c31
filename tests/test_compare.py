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
    pair = document["pairs"][0]
    assert pair["clustered"]
    # the ten that only a has right lie on two images: heads or tails twice
    assert (pair["only_first"], pair["p_by_image"]) == (10, 0.5)
    assert pair["mcnemar_p"] < 0.01


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


PRICED = {
    "title": "x",
    "scale": "full",
    "prices": {"input_usd": 1.0, "output_usd": 10.0, "batch_factor": 0.5},
}


def told(gold, answer, stratum, **more):
    return {"gold": gold, "answer": answer, "stratum": stratum, "usage": {"input_tokens": 1000}, **more}


def test_where_models_differ_what_they_cost_and_how_long_they_took(tmp_path):
    golds, strata = [0, 0, 1, 1], ["none", "none", "one", "one"]
    answers = {"a": [0, 0, 1, 2], "b": [0, 1, 1, None], "c": [1, 1, 2, 2]}
    for name, given in answers.items():
        verdicts = [
            "unparsed" if x is None else "correct" if x == gold else "wrong"
            for x, gold in zip(given, golds, strict=True)
        ]
        batched = {"batched": True} if name == "c" else {}
        write_run(
            tmp_path, verdicts, model=name, model_block={"name": name, **PRICED}, cost_usd=0.004,
            latencies=[0.1, 0.2, 0.3, 9.0],
            scores=[told(*row, **batched) for row in zip(golds, given, strata, strict=True)],
        )  # fmt: skip
    document = compare(tmp_path, "a", "b", "c")
    assert [row["sample_id"] for row in document["differ"]] == ["s0", "s1", "s2"]  # nobody knew s3
    assert document["differ"][1] == {
        "sample_id": "s1", "gold": 0, "correct": ["a"], "answers": {"a": 0, "b": 1, "c": 1},
        "verdicts": {"a": "correct", "b": "wrong", "c": "wrong"},
    }  # fmt: skip
    assert document["strata"] == [
        {"stratum": "none", "n": 2, "correct": {"a": 2, "b": 1, "c": 0}},
        {"stratum": "one", "n": 2, "correct": {"a": 1, "b": 1, "c": 0}},
    ]
    pairs = {(p["first"], p["second"]): p for p in document["pairs"]}
    assert {names: p["same_answer"] for names, p in pairs.items()} == {
        ("a", "b"): 2, ("a", "c"): 1, ("b", "c"): 1,
    }  # fmt: skip
    a, b, c = document["models"]
    assert (a["cost_usd_per_1000"], c["cost_usd_per_1000"]) == (pytest.approx(1.0), pytest.approx(0.5))
    assert a["latency_p95_s"] == pytest.approx(0.3 + 0.85 * 8.7)
    assert c["latency_p50_s"] is None  # a batch has no latency of its own
    assert b["verdicts"] == {"correct": 2, "wrong": 1, "unparsed": 1}
    text = cli("compare", "a", "b", "c", *TASK, "--results", tmp_path, "--show", 1).stdout
    assert "They differ on 3 of 4 samples, the first 1 of them; all in --json" in text
    assert "s0  gold 0  a 0 (correct) · b 0 (correct) · c 1 (wrong)" in text
    assert "s1" not in text
    assert "none       2   100.0 %    50.0 %     0.0 %" in text


def test_many_pairs_are_corrected_together(tmp_path):
    for name, correct in {"a": 30, "b": 22, "c": 10}.items():
        write_run(tmp_path, mixed(correct, 30 - correct), model=name)
    pairs = compare(tmp_path, "a", "b", "c")["pairs"]
    p = [pair["mcnemar_p"] for pair in pairs]  # a-b: 8 lost, a-c: 20, b-c: 12
    assert p == [pytest.approx(2 * 0.5**k) for k in (8, 20, 12)]
    assert [pair["mcnemar_p_holm"] for pair in pairs] == [
        pytest.approx(v) for v in (2 * 0.5**8, 3 * 2 * 0.5**20, 2 * 2 * 0.5**12)
    ]
    assert "(Holm, 3 pairs: " in cli("compare", "a", "b", "c", *TASK, "--results", tmp_path).stdout
