"""The paper's tables: every format says the same, gains are tested, states look different, LaTeX compiles."""

import csv
import re
import shutil
import subprocess

import pytest
from fixture_runs import mixed, write_run
from paper_fixture import write_paper_runs
from support import cli, cli_json

from evalkit.report.latex import tex
from evalkit.report.paper import load_paper
from evalkit.stats import accuracy_interval, holm


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_paper_runs(folder)
    cli("tables", "--results", folder)
    return folder


@pytest.fixture(scope="module")
def document(results):
    return cli_json("tables", "--results", results)


def cell(document, number, model, at=0):
    table = next(t for t in document["tables"] if t["number"] == number)
    return next(r["cells"][at] for g in table["groups"] for r in g["rows"] if r["model"] == model)


def test_every_printed_accuracy_has_ours_beside_it(document):
    missing = [
        (table["number"], row["model"])
        for table in document["tables"][:4]
        for group in table["groups"]
        for row in group["rows"]
        for cell in row["cells"]
        if cell["ours"] is None
    ]
    assert missing == [(2, "instructblip-7b")]
    values = [
        c["paper"] for t in document["tables"] for g in t["groups"] for r in g["rows"] for c in r["cells"]
    ]
    assert values == [v for t in load_paper().tables for g in t.groups for r in g.rows for v in r.values]


def test_difference_and_exclusion(document):
    near, far = cell(document, 1, "qwen-klal"), cell(document, 1, "gemini-2.0-flash")
    assert near["difference"] == pytest.approx(70.25 - 70.23)
    assert near["excludes"] is False
    assert far["difference"] == pytest.approx(46.5 - 56.41)
    assert far["excludes"] is True
    assert 100 * far["ours"]["high"] < 56.405


def test_what_is_not_final_is_not_compared(document):
    for number, model, at in (
        (1, "molmo-7b-d", 0),
        (1, "glamm-fs-7b", 0),
        (2, "gpt-4o", 1),
        (2, "instructblip-7b", 0),
    ):
        found = cell(document, number, model, at)
        assert (found["difference"], found["excludes"]) == (None, None), model
    signs = {note["sign"] for table in document["tables"][:2] for note in table["notes"]}
    assert signs == {"unfinished", "sample", "imported", "≠", "—", "other data"}
    assert "unfinished" not in {note["sign"] for note in document["tables"][3]["notes"]}


def test_gains_are_paired_tests_corrected_within_the_table(document, results):
    from statsmodels.stats.contingency_tables import mcnemar

    table = document["tables"][0]
    assert [(g["label"], g["against"]) for g in table["gains"][::2]] == [
        ("NTP", "Base model"),
        ("NTP + KLAL", "NTP"),
    ] * 2
    assert [g["p_holm"] for g in table["gains"]] == pytest.approx(holm([g["p"] for g in table["gains"]]))
    for gain in table["gains"]:
        (seed,) = gain["seeds"]
        expected = mcnemar([[0, seed["lost"]], [seed["won"], 0]], exact=True).pvalue
        assert seed["mcnemar_p"] == pytest.approx(expected, rel=1e-9)
        assert gain["difference"] == pytest.approx((seed["won"] - seed["lost"]) / seed["n"])
        assert gain["low"] < gain["difference"] < gain["high"]
        assert gain["by_image"], "four questions an image here"
    base, ntp = cell(document, 1, "qwen-base"), cell(document, 1, "qwen-ntp")
    first = next(g for g in table["gains"] if g["group"].startswith("Qwen") and g["label"] == "NTP")
    assert first["difference"] == pytest.approx(ntp["ours"]["accuracy"] - base["ours"]["accuracy"])
    assert first["paper"] == pytest.approx(62.64 - 47.62)


def test_no_test_against_an_unfinished_run(tmp_path):
    write_run(tmp_path, mixed(5, 5), model="qwen-base")
    write_run(
        tmp_path, mixed(9, 0), n=10, status="unfinished", model="qwen-ntp", trained_on="line_intersection"
    )
    assert cli_json("tables", "--results", tmp_path)["tables"][0]["gains"] == []


def test_no_test_across_data(tmp_path):
    for i, model in enumerate(("gpt-4o", "qwen-base")):
        write_run(tmp_path, mixed(5, 5), model=model, hash8=str(i))
    write_run(
        tmp_path,
        mixed(9, 1),
        model="qwen-ntp",
        trained_on="line_intersection",
        fingerprint="0" * 64,
        hash8="2",
    )
    document = cli_json("tables", "--results", tmp_path)
    assert cell(document, 1, "qwen-ntp")["ours"]["other_data"] is True
    assert document["tables"][0]["gains"] == []


def test_training_seeds_are_one_cell(tmp_path):
    verdicts = [mixed(8, 2), mixed(6, 4), mixed(7, 3)]
    for seed, found in enumerate(verdicts):
        write_run(
            tmp_path,
            found,
            model="qwen-klal",
            trained_on="line_intersection",
            hash8=f"s{seed}",
            training={"seed": seed},
        )
    write_run(
        tmp_path,
        mixed(1, 1),
        n_split=10,
        model="qwen-klal",
        trained_on="line_intersection",
        hash8="s3",
        training={"seed": 3},
    )
    ours = cell(cli_json("tables", "--results", tmp_path), 1, "qwen-klal")["ours"]
    assert [s["seed"] for s in ours["seeds"]] == [0, 1, 2], "a sample is no seed of the whole"
    assert (ours["correct"], ours["n"], ours["accuracy"]) == (21, 30, pytest.approx(0.7))
    hits = [v == "correct" for found in verdicts for v in found]
    pooled = accuracy_interval(hits, [f"c{i}" for i in range(10)] * 3)
    assert (ours["low"], ours["high"]) == (pooled.low, pooled.high)
    assert [name[-2:] for name in ours["other_runs"]] == ["s3"]
    assert ours["partial"] is False


def test_all_formats_say_the_same(results, document):
    markdown = (results / "tables/tables.md").read_text()
    page = (results / "tables/tables.html").read_text()
    with (results / "tables/table1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    source = (results / "tables/table1.tex").read_text()
    assert len(rows) == 11 + 2
    for row in rows[:11]:
        found = cell(document, 1, row["model"])
        assert float(row["Line Intersection: paper"]) == found["paper"]
        if found["difference"] is None:
            assert row["Line Intersection: difference"] == ""
            continue
        assert float(row["Line Intersection: ours"]) == pytest.approx(100 * found["ours"]["accuracy"])
        shown = f"{100 * found['ours']['accuracy']:.2f}"
        counts = f"{found['ours']['correct']}/{found['ours']['n']}"
        for text in (markdown, page, source):
            assert shown in text
            assert counts in text
    assert rows[-2]["method"] == "Chance"
    assert float(rows[-2]["Line Tracing: ours"]) == 50.0
    assert rows[2]["Line Intersection: run"].startswith("runs/llava-klal/")
    assert {r["Line Intersection: state"] for r in rows[:11]} == {"final", "unfinished", "partial"}
    with (results / "tables/gains.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == sum(len(t["gains"]) for t in document["tables"])


def test_every_cell_links_to_its_run(results, document):
    text = (results / "tables/tables.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    cells = [
        c
        for t in document["tables"][:4]
        for g in t["groups"]
        for r in g["rows"]
        for c in r["cells"]
        if c["ours"]
    ]
    assert len(links) >= len(cells) - 1
    assert all((results / "tables" / link).is_file() for link in links)


def test_the_same_bytes_again(results, tmp_path):
    before = {p.name: p.read_bytes() for p in (results / "tables").iterdir()}
    copy = shutil.copytree(results, tmp_path / "copy", ignore=shutil.ignore_patterns("tables"))
    cli("tables", "--results", copy)
    assert {p.name: p.read_bytes() for p in (copy / "tables").iterdir()} == before


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("50 % of_a #1 & {b}", r"50 \% of\_a \#1 \& \{b\}"),
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("P → G ≥ ½", r"P $\rightarrow$ G $\geq$ ½"),
        ("日本", "??"),
        ("a\u202eb\nc", "a?b?c"),
    ],
)
def test_text_in_latex(text, shown):
    assert tex(text) == shown


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here: apt-get install texlive-science")
def test_latex_compiles(results):
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "tables.tex"]
    done = subprocess.run(words, cwd=results / "tables", capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout
    assert (results / "tables/tables.pdf").stat().st_size > 20_000
