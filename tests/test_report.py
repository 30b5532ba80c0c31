"""The paper's tables and the pages: right numbers in the right cells, nothing executes, same bytes."""

import html.parser
import json
import re
from pathlib import Path

import pytest
from fixture_runs import mixed, write_run
from support import cli, cli_json

from evalkit.errors import ConfigError
from evalkit.leaderboard import load_runs
from evalkit.report.pages import asset, markdown, plain
from evalkit.report.paper import load_paper
from evalkit.report.tables import build_tables
from evalkit.scores import ScoreBook
from model_adapters import load_registry


def cells(document, number):
    """(group, row label) -> [(paper, ours), ...] of one table."""
    table = next(t for t in document["tables"] if t["number"] == number)
    return {
        (group["name"], row["label"]): [(cell["paper"], cell["ours"]) for cell in row["cells"]]
        for group in table["groups"]
        for row in group["rows"]
    }


def tables(results):
    book = ScoreBook(results)
    return build_tables(load_paper(), load_runs(results, book), book)


QWEN = "Qwen2.5-VL-7B-Instruct"


def test_printed_numbers(tmp_path):
    document = tables(tmp_path)
    assert [t["number"] for t in document["tables"]] == [1, 2, 3, 4, 5]
    assert cells(document, 1)[QWEN, "NTP + KLAL"] == [(70.23, None), (62.21, None)]
    assert cells(document, 2)["SOTA", "InstructBLIP"] == [(6.44, None), (8.31, None)]
    assert cells(document, 3)[QWEN, "NTP"] == [(11.16, None), (16.05, None)]
    assert cells(document, 4)[QWEN, "Base model"] == [(90.05, None), (93.75, None), (86.7, None)]
    assert cells(document, 5)["LLaVA-1.5-7B", "NTP + KLAL"] == [(1.19, None)]
    assert sum(len(row) for n in range(1, 6) for row in cells(document, n).values()) == 22 + 20 + 6 + 9 + 4


def test_every_row_is_a_registry_entry():
    names = {row.model for table in load_paper().tables for group in table.groups for row in group.rows}
    assert names <= load_registry().keys()


def test_runs_fill_their_cells(tmp_path):
    write_run(
        tmp_path, mixed(7, 3), model="qwen-klal", task="line_intersection", trained_on="line_intersection"
    )
    write_run(tmp_path, mixed(1, 9), model="qwen-klal", task="line_intersection", trained_on="grid_patch")
    write_run(tmp_path, mixed(2, 8), model="qwen-klal", task="grid_patch", trained_on="pixmo_points")
    write_run(tmp_path, mixed(4, 6), model="qwen-klal", task="grid_patch", trained_on="grid_patch")
    write_run(tmp_path, mixed(6, 4), model="qwen-base", task="refcoco", split="testA")
    write_run(tmp_path, mixed(9, 1), model="qwen-base", task="line_intersection", scale="tiny")
    write_run(
        tmp_path, mixed(8, 2), model="gpt-4o", task="grid_patch", trained_on="grid_patch"
    )  # no base model
    document = tables(tmp_path)
    right = {
        (number, key, column): ours["correct"]
        for number in range(1, 6)
        for key, row in cells(document, number).items()
        for column, (_, ours) in enumerate(row)
        if ours
    }
    assert right == {
        (1, (QWEN, "NTP + KLAL"), 0): 7,
        (2, (QWEN, "NTP + KLAL"), 0): 4,
        (3, (QWEN, "NTP + KLAL"), 0): 2,
        (4, (QWEN, "Base model"), 1): 6,
    }
    assert [row["model"] for row in document["tiny"]["rows"]] == ["qwen-base"]


TABLE_FILES = ["md", "html", "tex", *["tex", "csv"] * 5, "csv"]


def test_commands_write_pages(tmp_path):
    write_run(tmp_path, mixed(7, 3), model="gpt-4o")
    for command, kinds in (("tables", TABLE_FILES), ("leaderboard", ["md", "html", "json", "html"])):
        paths = cli(command, "--results", tmp_path).stdout.split()
        assert [Path(p).suffix[1:] for p in paths] == kinds
        assert "7/10" in Path(paths[0]).read_text()
        first = [Path(p).read_bytes() for p in paths]
        cli(command, "--results", tmp_path)
        assert [Path(p).read_bytes() for p in paths] == first  # the same runs, the same bytes
    assert len(cli_json("tables", "--results", tmp_path)["tables"]) == 5
    assert json.loads((tmp_path / "leaderboard/leaderboard.json").read_text())["runs"][0]["n"] == 10


def test_unfinished_and_samples_are_marked(tmp_path):
    write_run(tmp_path, mixed(7, 2), n=10, status="unfinished", model="qwen-base")
    write_run(tmp_path, mixed(7, 3), n_split=240, model="llava-base")
    cli("tables", "--results", tmp_path)
    text = (tmp_path / "tables/tables.md").read_text()
    assert "**unfinished**: 7 correct of 9 answered, 10 selected" in text
    link = "../runs/llava-base/line_intersection-test-0a1b2c3d/run.json"
    assert f"[70.00 %]({link}) (7/10, 39.7–89.2) *sample of 10 of 240*" in text
    assert (tmp_path / "tables" / link).is_file()
    cli("leaderboard", "--results", tmp_path)
    page = (tmp_path / "leaderboard/leaderboard.html").read_text()
    assert "unfinished: 9 of 10 answered" in page
    assert "sample of 10 of 240" in page


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>|`a`\n\u202e\u0000[x](javascript:y)\ud800"


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, {name for name, _ in attributes}))


SCRIPTS = {"tables": [], "leaderboard": ["datatables-3.1.5.min.js", "form.js", "board.js"]}


@pytest.mark.parametrize("command", ["tables", "leaderboard"])
def test_hostile_names_stay_text(tmp_path, command):
    write_run(tmp_path, mixed(7, 3), model="evil", title=HOSTILE, scale="tiny")
    cli(command, "--results", tmp_path)
    page = (tmp_path / command / f"{command}.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert {tag for tag, _ in tags.seen}.isdisjoint({"img", "iframe", "link", "object", "base"})
    assert not [
        name for _, names in tags.seen for name in names if name.startswith("on") or name in ("style", "src")
    ]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert scripts == [asset(name) for name in SCRIPTS[command]]
    assert "default-src 'none'" in page
    assert "\u202e" not in page
    line = next(x for x in (tmp_path / command / f"{command}.md").read_text().splitlines() if "alert" in x)
    assert "<script>" not in line
    assert len(re.findall(r"(?<!\\)\|", line)) == 3 if command == "tables" else 4


def test_other_runs_and_other_data_are_named(tmp_path):
    write_run(tmp_path, mixed(7, 3), model="qwen-base", hash8="shown", date="2026-11-20")
    write_run(tmp_path, mixed(2, 8), model="qwen-base", hash8="hidden", date="2026-11-01")
    write_run(tmp_path, mixed(5, 5), model="llava-base", fingerprint="e5" * 32, date="2026-11-01")
    for command in ("tables", "leaderboard"):
        cli(command, "--results", tmp_path)
        page = (tmp_path / command / f"{command}.html").read_text()
        assert "1 further run not shown above" in page
        assert "<code>runs/qwen-base/line_intersection-test-hidden</code>" in page
        assert "other data: e5e5e5e5" in page
        text = (tmp_path / command / f"{command}.md").read_text()
        assert "Further runs, not shown above:\n\n- " in text
        assert "hidden" in text
        assert "*other data: e5e5e5e5*" in text


def test_the_document_holds_no_path_of_this_machine(tmp_path):
    write_run(tmp_path, mixed(7, 3))
    cli("leaderboard", "--results", tmp_path)
    assert str(tmp_path) not in (tmp_path / "leaderboard/leaderboard.json").read_text()


def test_pages_load_nothing(tmp_path):
    cli("leaderboard", "--results", tmp_path)
    page = (tmp_path / "leaderboard/leaderboard.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert {tag for tag, _ in tags.seen}.isdisjoint({"img", "iframe", "link", "object", "base"})
    assert not [names for _, names in tags.seen if "src" in names]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert not re.search(r"https?://|url\(|@import", style)


def test_the_policy_allows_the_style_by_its_hash(tmp_path):
    import base64
    import hashlib

    cli("leaderboard", "--results", tmp_path)
    page = (tmp_path / "leaderboard/leaderboard.html").read_text()
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src &#39;sha256-{digest}&#39;" in page or f"style-src 'sha256-{digest}'" in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a|b", r"a\|b"), ("line\nbreak", "line\ufffdbreak"), ("x" * 200, "x" * 119 + "…"), (3, "3")],
)
def test_markdown_cells(text, shown):
    assert markdown(text) == shown


def test_plain_replaces_acting_characters():
    assert plain("a\u202eb\u200bc\x1b[31m\ud800") == "a\ufffdb\ufffdc\ufffd[31m?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: x\ntables: []", "tables"),
        (
            "source: x\ntables:\n- {number: 1, title: T, unit: percent, columns: [{title: C, task: t, split: s}], "
            "groups: [{name: G, rows: [{label: L, model: m, values: [1.0, 2.0]}]}]}",
            "row G / L needs 1 values",
        ),
    ],
)
def test_bad_paper_files(tmp_path, text, message):
    (tmp_path / "paper.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_paper(tmp_path / "paper.yaml")
