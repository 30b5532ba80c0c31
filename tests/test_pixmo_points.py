"""PixMo-Points from its parquet: which rows, which pictures, what became of each, the same set for a colleague."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from support import cli, cli_json

pytest.importorskip("pyarrow", reason="the `data` extra is not installed")
pytest.importorskip("aiohttp", reason="the `data` extra is not installed")

import pixmo_fixture as fixture
import pyarrow as pa
import pyarrow.parquet as pq
from picture_server import HAZARDS, PictureServer, sha256

from evalkit.datasets.disk import read_split
from evalkit.datasets.fetching import Fate, Wanted
from evalkit.datasets.pixmo_choice import choose, rank, split_names
from evalkit.datasets.pixmo_gathering import Gathering, Need, Ranked
from evalkit.datasets.pixmo_manifest import Log, read_manifest
from evalkit.datasets.pixmo_source import (
    NOTHING_HELD_OUT,
    PointRow,
    eligible_rows,
    normalised,
    open_source,
    read_held_out,
)
from evalkit.errors import DataError

ROOT = Path(__file__).resolve().parent.parent
A, B = "a" * 64, "b" * 64
URL = "https://pictures.example/1.jpg"


@pytest.mark.parametrize("label", ["label", "annotation"])
def test_which_rows_may_be_asked(tmp_path, label):
    good = fixture.row(URL, A, "  Red   KITE ", [(0.0, 100.0)])
    bad = [
        fixture.row(URL, A, "kite", [(1.0, 1.0), (2.0, 2.0)]),
        fixture.row(URL, A, "kite", [(1.0, 1.0)], count=2),
        fixture.row(URL, A, "kite", [], count=1),
        fixture.row(URL, A, "kite", method="counting"),
        fixture.row(URL, A, "kite", [(100.5, 1.0)]),
        fixture.row(URL, A, "kite", [(float("nan"), 1.0)]),
        fixture.row(URL, A, " \t"),
        fixture.row(URL, A, "kite \x1b[2J"),
        fixture.row(URL, A, "k" * 300),
        fixture.row(URL, "xyz", "kite"),
        fixture.row("ftp://pictures.example/1.jpg", A, "kite"),
        fixture.row("https://held.example/1.jpg", A, "kite"),
        fixture.row(URL, B, "kite"),
    ]
    source = open_source(str(fixture.write(tmp_path / "data", [good, *bad], label)))
    held = fixture.eval_set(
        tmp_path / "pixmo-points-eval",
        [
            fixture.row("https://held.example/1.jpg", "c" * 64, ""),
            fixture.row("https://other.example", B, ""),
        ],
    )
    held_out, words = read_held_out("auto", str(tmp_path / "data"))
    assert words == "allenai/pixmo-points-eval, 2 rows"
    assert read_held_out(str(held), "hub")[0] == held_out
    rejected = Counter()
    assert list(eligible_rows(source, held_out, rejected)) == [PointRow(URL, A, "red kite", (0.0, 100.0))]
    assert +rejected == {
        "not one point": 3,
        "not by pointing": 1,
        "point outside the picture": 2,
        "no label": 1,
        "label not fit to print": 2,
        "no sha256": 1,
        "no http address": 1,
        "held out for pixmo-points-eval": 2,
    }


def picture(name, label, point=(1.0, 2.0)):
    return PointRow(f"https://x.example/{name}", name.rjust(64, "0"), label, point)


def test_categories_and_ranks():
    rows = [
        picture(str(i), label)
        for label, n in (("dog", 5), ("cat", 5), ("ant", 7), ("owl", 2))
        for i in range(n)
    ]
    rows += [picture("77", "dog"), picture("77", "dog", (9.0, 9.0))]  # ambiguous
    rows += [picture("0", "owl")] * 9  # one picture, however often
    categories, n_ambiguous = choose(lambda: rows, 5, 3, seed=1)
    assert [(c.label, c.n_pictures, c.need) for c in categories] == [
        ("ant", 7, 2),
        ("dog", 6, 2),
        ("cat", 5, 1),
    ]
    assert n_ambiguous == 1
    used = [row.sha256 for c in categories for row in c.candidates]
    assert sorted(used) == [str(i).rjust(64, "0") for i in range(7)]  # each picture serves one of its labels
    for category in categories:
        ranks = [rank(1, category.label, row.sha256) for row in category.candidates]
        assert ranks == sorted(ranks)
        for row, place in zip(category.candidates, ranks, strict=True):
            others = [
                c.label
                for c in categories
                if any(r.sha256 == row.sha256 and r.label == c.label for r in rows)
            ]
            assert place == min(rank(1, label, row.sha256) for label in others)
    assert choose(lambda: reversed(rows), 5, 3, seed=1) == (categories, 1)  # the order of rows is no matter
    with pytest.raises(DataError, match="only 4 labels"):
        choose(lambda: rows, 5, 5, seed=1)


def test_the_split_is_one_in_five():
    assert split_names([10, 10]) == [["train"] * 8 + ["test"] * 2] * 2
    for sizes in ([10] * 150, [1] * 7, [3, 4, 9, 1], [10] * 149 + [4]):
        names = split_names(sizes)
        assert [len(group) for group in names] == sizes
        n_test = sum(group.count("test") for group in names)
        assert abs(n_test - sum(sizes) / 5) <= 0.5


def _torn_text():
    offsets = pa.py_buffer((0).to_bytes(4, "little") + (2).to_bytes(4, "little"))
    return pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"\xff\xfe"))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("image_url", _torn_text(), "cannot be read ('utf-8' codec can't decode"),
        ("label", _torn_text(), "cannot be read ('utf-8' codec can't decode"),
        ("label", pa.array([2**62], pa.timestamp("us")), "cannot be read (date value out of range)"),
        ("collection_method", pa.array([["pointing"]]), "column 'collection_method' is of type list"),
        (None, pa.array(["kite"]), "column 'label' stands there twice"),
    ],
)
def test_hostile_columns_are_one_line(tmp_path, column, values, message):
    table = pa.Table.from_pylist([fixture.row(URL, A, "kite")], schema=fixture.schema())
    if column is None:
        table = pa.Table.from_arrays([*table.columns, values], names=[*table.column_names, "label"])
    else:
        table = table.set_column(table.column_names.index(column), column, values)
    pq.write_table(table, tmp_path / "x.parquet")
    words = ("--source", tmp_path, "--holdout", "none", "--n", "1", "--categories", "1")
    result = said("data", "prepare", "pixmo_points", "--data", tmp_path / "data", *words, exit_code=1)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_whole_numbers_beyond_int64_are_no_count_of_one(tmp_path):
    table = pa.Table.from_pylist([fixture.row(URL, A, "kite")], schema=fixture.schema())
    counts = pa.array([2**64 - 1], pa.uint64())
    pq.write_table(table.set_column(3, "count", counts), tmp_path / "x.parquet")
    rejected = Counter()
    assert list(eligible_rows(open_source(str(tmp_path)), NOTHING_HELD_OUT, rejected)) == []
    assert rejected["not one point"] == 1


@pytest.mark.parametrize("label", ["\u0386\u0345", "\u03aa\u0301", "\u1fbb\u0345", "  Red  KITE ", "\u0130"])
def test_a_normalised_label_stays_as_it_is(label):
    """Else the log of a preparation, which takes normalised labels alone, could not be read again."""
    assert normalised(normalised(label)) == normalised(label)


@pytest.mark.parametrize("order", [1, -1])
def test_the_set_does_not_depend_on_which_download_ends_first(tmp_path, order):
    rows = [PointRow(f"https://x.example/{i}", f"{i:064d}", "dog", (1.0, 1.0)) for i in range(9)]
    dead = {0, 2, 3}
    log = Log(tmp_path / "log", {"of": order})
    gathering = Gathering([Need("dog", 4, [Ranked(i, row) for i, row in enumerate(rows)])], log, retry=False)
    pending, drawn, wanted = [], 0, gathering.wanted()
    while True:
        item = next(wanted, "end")
        if isinstance(item, Wanted):
            pending.append(item)
            drawn += 1
            continue
        if item == "end":
            break
        one = pending.pop(0 if order == 1 else -1)
        gathering.ended(Fate(one, "http_status" if int(one.sha256) in dead else "ok", attempts=1))
    assert sorted(entry.rank for entry in gathering.alive["dog"]) == [1, 4, 5, 6]
    assert drawn == 7  # no more than were needed


def said(*words, exit_code=0):
    result = cli(*words)
    assert result.exit_code == exit_code, result.output
    return result


def prepare(where, server, *words, exit_code=0, as_json=True):
    base = ["data", "prepare", "pixmo_points", "--data", where / "data", "--timeout", "1", "--per-host", "64"]
    base += [f"--allow-private=127.0.0.1:{server.port}", *words]
    return (cli_json if as_json else said)(*base, exit_code=exit_code)


@pytest.fixture
def web(tmp_path):
    """40 pictures of 4 labels on a server; the first turn of each label is dead."""
    with PictureServer() as server:
        rows, kinds = fixture.web_rows(server.url, 40, 4, bad_turns=(0,), kinds=("404", "changed"))
        fixture.write(tmp_path / "source", rows)
        fixture.eval_set(tmp_path / "pixmo-points-eval", rows[-1:])
        yield server, kinds


SMALL = ("--n", "20", "--categories", "4")


def test_from_parquet_to_two_splits(tmp_path, web):
    server, _ = web
    document = prepare(tmp_path, server, "--source", tmp_path / "source", *SMALL)
    assert {name: entry["samples"] for name, entry in document["splits"].items()} == {"train": 16, "test": 4}
    assert document["rejected"]["held out for pixmo-points-eval"] == 1
    train, test = (read_split(tmp_path / "data", "pixmo_points", name) for name in ("train", "test"))
    assert not {s.image_id for s in train.samples} & {s.image_id for s in test.samples}
    for sample in (*train.samples, *test.samples):
        i = next(i for i in range(40) if sha256("ok", i).startswith(sample.sample_id))
        assert sample.variables == {"label": f"thing {i % 4}"}
        assert sample.gold == [round((i * 7 % 1000) / 1000 * 64, 2), round((i * 13 % 1000) / 1000 * 48, 2)]
        assert sample.image_size_wh == (64, 48)
    header, entries = read_manifest(tmp_path / "data/pixmo_points/manifest.jsonl")
    assert header["made_by"] == {"n": 20, "categories": 4, "seed": 0, "source": "source", "holdout": "auto"}
    assert Counter(entry.outcome for entry in entries) == document["tried"]
    assert sum(entry.split is not None for entry in entries) == 20
    asked = len(server.log)
    again = prepare(tmp_path, server, "--source", tmp_path / "source", *SMALL)
    assert (again["fresh"], again["fingerprint"], len(server.log)) == (False, document["fingerprint"], asked)
    other = prepare(
        tmp_path, server, "--source", tmp_path / "source", *SMALL, "--seed", "1", as_json=False, exit_code=1
    )
    assert "another set (n 20, categories 4, seed 0" in other.stderr
    assert cli_json("data", "verify", "pixmo_points", "--data", tmp_path / "data")["ok"]
    assert not list((tmp_path / "data/pixmo_points").glob(".*"))


def test_a_colleague_gets_the_same_set_or_is_told_what_is_missing(tmp_path, web):
    server, _ = web
    document = prepare(tmp_path, server, "--source", tmp_path / "source", *SMALL)
    manifest = tmp_path / "data/pixmo_points/manifest.jsonl"
    same = prepare(tmp_path / "b", server, "--manifest", manifest)
    assert same["fingerprint"] == document["fingerprint"]
    lines = manifest.read_text().splitlines()
    number, line = next((i, line) for i, line in enumerate(lines) if '"split": "test"' in line)
    dead = json.loads(line)
    dead["url"] = dead["url"].replace("/ok/", "/404/")
    (tmp_path / "rotten.jsonl").write_text(
        "\n".join([*lines[:number], json.dumps(dead), *lines[number + 1 :]]) + "\n"
    )
    words = ("--manifest", tmp_path / "rotten.jsonl")
    short = prepare(tmp_path / "c", server, *words, exit_code=3)
    assert not short["in_place"]
    assert short["lost"] == [
        {"url": dead["url"], "label": dead["label"], "outcome": "http_status", "detail": "HTTP 404"}
    ]
    assert not (tmp_path / "c/data/pixmo_points/test").exists()
    told = prepare(tmp_path / "c", server, *words, as_json=False, exit_code=3)
    assert f"{dead['label']}: {dead['url']}: HTTP 404" in told.stderr
    part = prepare(tmp_path / "c", server, *words, "--partial", exit_code=3)
    assert sum(entry["samples"] for entry in part["splits"].values()) == 19
    assert part["missing"] == {dead["label"]: 1}


def test_a_label_that_runs_out_is_short_until_a_retry_finds_more(tmp_path):
    with PictureServer() as server:
        rows, _ = fixture.web_rows(server.url, 8, 2, bad_turns=(0,), kinds=("503-once", "404"))
        fixture.write(tmp_path / "source", rows)
        words = ("--source", tmp_path / "source", "--holdout", "none", "--n", "8", "--categories", "2")
        short = prepare(tmp_path, server, *words, exit_code=3)
        assert short["missing"] == {"thing 1": 1}
        asked = len(server.log)
        assert prepare(tmp_path, server, *words, exit_code=3)["fresh"] is False
        assert len(server.log) == asked  # a failure is not tried again by itself
        prepare(tmp_path, server, *words, "--retry", exit_code=3)
        assert server.paths()[asked:] == ["/404/1.jpg"]


HEADER = json.dumps({"schema": "evalkit-pixmo-points-manifest-1"})
LINE = {
    "url": URL, "sha256": A, "label": "kite", "point_xy_percent": [1, 2], "rank": 0, "outcome": "ok", "attempts": 1,
    "split": "test",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "file:///etc/passwd"}, ":2: not a line of a manifest (url 'file:///etc/passwd')"),
        ({"sha256": "../../x"}, "sha256 '../../x'"),
        ({"sha256": None}, "sha256 'None'"),
        ({"split": "../up"}, "split '../up'"),
        ({"outcome": "fine"}, "outcome 'fine'"),
        ({"outcome": "timeout"}, "outcome of a picture in the set 'timeout'"),
        ({"point_xy_percent": [1, 101]}, "point_xy_percent '[1, 101]'"),
        ({"point_xy_percent": [1, float("nan")]}, "point_xy_percent '[1, nan]'"),
        ({"point_xy_percent": [10**400, 1]}, "point_xy_percent '[1000"),
        ({"label": "Kite"}, "label 'Kite'"),
        ({"label": "kite \x1b[31m"}, "label 'kite \\x1b[31m'"),
        ({"label": "k" * 201}, "label 'kkk"),
        ({"label": "\ud800"}, "label '\\ud800'"),
        ({"url": "http://x.example/\x07"}, "url 'http://x.example/\\x07'"),
        ({"rank": -1}, "rank '-1'"),
        ({"split": None}, "no picture in it is of the set"),
    ],
)
def test_a_hostile_manifest_is_one_line(tmp_path, change, message):
    file = tmp_path / "m.jsonl"
    file.write_text(f"{HEADER}\n{json.dumps(LINE | change)}\n")
    result = said("data", "prepare", "pixmo_points", "--data", tmp_path, "--manifest", file, exit_code=1)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("header", [{"source": float("nan")}, {"held_out": float("inf")}])
def test_a_manifest_whose_header_is_no_json_is_one_line(tmp_path, header):
    file = tmp_path / "m.jsonl"
    file.write_text(f"{json.dumps(json.loads(HEADER) | header)}\n{json.dumps(LINE)}\n")
    result = said("data", "prepare", "pixmo_points", "--data", tmp_path, "--manifest", file, exit_code=1)
    assert "m.jsonl: cannot be read as a manifest" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_manifests_words_are_printable_in_the_list(tmp_path, web):
    server, _ = web
    header = json.loads(HEADER) | {"held_out": "all \x1b[2J\ud800\nof it"}
    line = LINE | {"url": f"{server.url}/ok/1.jpg", "sha256": sha256("ok", 1)}
    (tmp_path / "m.jsonl").write_text(f"{json.dumps(header)}\n{json.dumps(line)}\n")
    prepare(tmp_path, server, "--manifest", tmp_path / "m.jsonl")
    (entry,) = cli_json("data", "list", "--data", tmp_path / "data")
    assert entry["source"].endswith("; all ?[2J??of it")


def test_another_folder_of_the_same_name_is_another_set(tmp_path, web):
    server, _ = web
    words = ("--holdout", "none", "--n", "2", "--categories", "2")
    rows, _ = fixture.web_rows(server.url, 60, 2)
    fixture.write(tmp_path / "a/source", rows[:40])
    prepare(tmp_path, server, "--source", tmp_path / "a/source", *words)
    assert not prepare(tmp_path, server, "--source", tmp_path / "a/source", *words)["fresh"]
    fixture.write(tmp_path / "b/source", rows[20:50])
    other = prepare(tmp_path, server, "--source", tmp_path / "b/source", *words, as_json=False, exit_code=1)
    assert "holds a set of other files than those in" in other.stderr
    prepare(tmp_path, server, "--source", tmp_path / "b/source", *words, "--force")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--source", "nowhere"), "no folder with *.parquet below it"),
        (("--source", "SOURCE"), "there is no pixmo-points-eval in or beside"),
        (
            ("--source", "SOURCE", "--holdout", "none", "--n", "3", "--categories", "4"),
            "1 <= categories <= n",
        ),
        (("--source", "SOURCE", "--holdout", "none"), "--categories 150: only 1 labels"),
        (("--source", "TORN", "--holdout", "none"), "not a parquet file"),
        (("--source", "TYPES", "--holdout", "none"), "column 'count' is of type string"),
        (
            ("--source", "OTHER", "--holdout", "none"),
            "no column 'annotation', as allenai/pixmo-points has; there is: image_sha256, image_url",
        ),
    ],
)
def test_errors_are_one_line(tmp_path, words, message):
    fixture.write(tmp_path / "a/source", [fixture.row(URL, A, "kite")])
    fixture.eval_set(tmp_path / "b/other", [fixture.row(URL, A, "kite")])
    (tmp_path / "c").mkdir()
    (tmp_path / "c/x.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "d").mkdir()
    texts = [fixture.row(URL, A, "kite") | {"count": "1"}]
    pq.write_table(pa.Table.from_pylist(texts), tmp_path / "d/x.parquet")
    places = {
        "TYPES": tmp_path / "d",
        "SOURCE": tmp_path / "a/source",
        "OTHER": tmp_path / "b/other",
        "TORN": tmp_path / "c",
    }
    words = [places.get(word, word) for word in words]
    result = said("data", "prepare", "pixmo_points", "--data", tmp_path / "data", *words, exit_code=1)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_two_thousand_pictures_on_a_bad_web(tmp_path):
    """Every hazard, a kill -9 half-way: 1,500 in 150 categories, nothing fetched twice, the log bears it out."""
    with (tmp_path / "log").open("w") as log, PictureServer(0.002, log) as server:
        rows, kinds = fixture.web_rows(server.url, 2000, 150, bad_turns=(1, 5, 9))
        fixture.write(tmp_path / "source", rows[:1000])
        fixture.write(tmp_path / "source", rows[1000:], name="train-00001-of-00002.parquet")
        command = [
            *(
                sys.executable,
                "-m",
                "evalkit",
                "data",
                "prepare",
                "pixmo_points",
                "--data",
                tmp_path / "data",
            ),
            *("--source", tmp_path / "source", "--holdout", "none", "--jobs", "64", "--per-host", "64"),
            *("--timeout", "3", "--max-mb", "1", f"--allow-private=127.0.0.1:{server.port}", "--json"),
        ]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while len(server.paths(200)) < 700:
            assert first.poll() is None
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        downloads = tmp_path / "data/pixmo_points/.downloads"
        finished = {path.name for path in downloads.glob("??/*")}
        asked = len(server.log)
        second = subprocess.run(command, env=environment, capture_output=True, check=True)
        document = json.loads(second.stdout)
        after = Counter(server.paths()[asked:])
        third = subprocess.run(command, env=environment, capture_output=True, check=True)
        assert json.loads(third.stdout)["fresh"] is False
        assert len(server.log) == asked + after.total()  # the third run asked for nothing
    assert {name: entry["samples"] for name, entry in document["splits"].items()} == {
        "train": 1200,
        "test": 300,
    }
    assert len(finished) > 400
    by_sha = {sha256(kind, i): f"/{kind}/{i}.jpg" for i, kind in kinds.items()}
    assert not {by_sha[sha] for sha in finished} & after.keys()
    _, entries = read_manifest(tmp_path / "data/pixmo_points/manifest.jsonl")
    asked_for = set(server.paths()) - {f"/ok/{i}.jpg" for i, kind in kinds.items() if kind == "hop"}
    assert {entry.row.url.removeprefix(server.url) for entry in entries} == asked_for
    expected = Counter(HAZARDS.get(path.split("/")[1], "ok") for path in asked_for)
    assert document["tried"] == expected
    assert expected["ok"] == 1500
    labels = Counter(entry.row.label for entry in entries if entry.split)
    assert set(labels.values()) == {10}
    assert len(labels) == 150


@pytest.mark.real
def test_real_rows_are_held_out(real_data):
    held_out, words = read_held_out(str(real_data / "pixmo_points/pixmo_points_eval_viewer_rows.json"), "hub")
    assert words == "allenai/pixmo-points-eval, 4 rows"
    assert "e9b453c0faaa1e156b73a96033be40a86875f1c94e863124b03ea608899da56b" in held_out.sha256s


def test_the_hub_gives_a_commit_or_one_line(tmp_path, monkeypatch):
    """The Hub's folder is named by its commit, which is recorded; without a network there is one line."""
    hub = pytest.importorskip("huggingface_hub", reason="the `data` extra is not installed")
    asked = []
    fixture.write(tmp_path / "0123abcd", [fixture.row(URL, A, "kite")])

    def answered(repo, repo_type, allow_patterns):
        asked.append((repo, repo_type, allow_patterns))
        return str(tmp_path / "0123abcd")

    monkeypatch.setattr(hub, "snapshot_download", answered)
    source = open_source("hub")
    assert (source.name, source.revision, source.n_rows) == ("allenai/pixmo-points", "0123abcd", 1)
    assert asked == [("allenai/pixmo-points", "dataset", ["**/*.parquet"])]

    def unreachable(*_, **__):
        raise OSError("Name or service not known\nmore lines")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    message = said("data", "prepare", "pixmo_points", "--data", tmp_path / "data", exit_code=1).stderr
    assert (
        "allenai/pixmo-points: cannot be fetched from the Hub (OSError: Name or service not known)" in message
    )
    assert message.count("\n") == 1
