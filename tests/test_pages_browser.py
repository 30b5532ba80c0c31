"""The pages in Chromium, from disk: sorting, filters, permalinks, samples, dark and narrow, without JavaScript."""

import re
import shutil
import time

import pytest
from browser import Watched, browser
from pages_fixture import HOSTILE, write_hostile, write_pictured
from paper_fixture import write_paper_runs
from support import cli

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def chrome():
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The paper's rows, three pictured runs with maps, and a hostile one."""
    folder = tmp_path_factory.mktemp("site")
    results = folder / "results"
    write_paper_runs(results)
    write_pictured(results, folder / "data")
    write_hostile(results)
    cli("leaderboard", "--results", results, "--data", folder / "data")
    cli("tables", "--results", results)
    return results


@pytest.fixture
def watched(chrome):
    context = chrome.new_context(viewport={"width": 1280, "height": 900})
    found = Watched(context.new_page())
    yield found
    context.close()


def url(site, name, fragment=""):
    return (site / name).as_uri() + fragment


def page_of(site, model, task="*"):
    (page,) = (site / "leaderboard/runs").glob(f"{model}/{task}.html")
    return page.relative_to(site).as_posix()


def models(page, table="board-full"):
    return page.locator(f"#{table} tbody tr th code").all_inner_texts()


def sorted_by(page, header, direction):
    from playwright.sync_api import expect

    expect(header).to_have_attribute("aria-sort", direction)


def until(page, expression, seconds=10):
    """Wait for an expression to hold; playwright's own waiting would evaluate text, which the policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(25)


def clean(watched):
    assert watched.trouble == []
    assert watched.page.evaluate("window.violated") == []
    assert watched.page.evaluate("window.pwned") is None
    assert all(asked.startswith(("file:", "data:")) for asked in watched.asked)


def test_sorting(site, watched):
    page = watched.open(url(site, "leaderboard/leaderboard.html"))
    header = page.locator("#board-full thead th", has_text="Line Intersection")
    header.click()
    sorted_by(page, header, "ascending")
    header.click()
    sorted_by(page, header, "descending")
    shown = page.locator("#board-full tbody tr td:nth-child(3)").evaluate_all(
        "cells => cells.map(cell => Number(cell.dataset.order))"
    )
    assert shown == sorted(shown, reverse=True)
    assert shown[0] == 0.7025
    assert page.locator("#board-full tfoot tr").count() == 1, "chance is not sorted among the models"
    header.focus()
    page.locator("#board-full thead th", has_text="Average").locator("[role=button]").press("Enter")
    sorted_by(page, page.locator("#board-full thead th", has_text="Average"), "ascending")
    clean(watched)


def test_filters_and_the_address_that_brings_them_back(site, watched):
    page = watched.open(url(site, "leaderboard/leaderboard.html"))
    everyone = set(models(page))
    page.get_by_label("Trained").select_option("ntp_klal")
    assert set(models(page)) == everyone & {"qwen-klal", "llava-klal"} or models(page) == []
    page.get_by_role("button", name="Reset").click()
    page.get_by_label("Search").fill("gemini")
    until(page, "document.querySelectorAll('#board-full tbody tr').length === 1")
    assert models(page) == ["gemini-2.0-flash"]
    header = page.locator("#runs thead th", has_text="Task")
    header.click()
    until(page, "location.hash.includes('sort-runs=1-asc')")
    address = page.url
    assert "q=gemini" in address
    again = watched.open("about:blank", ready=False)
    again = watched.open(address)
    assert models(again) == ["gemini-2.0-flash"]
    assert again.get_by_label("Search").input_value() == "gemini"
    sorted_by(again, again.locator("#runs thead th", has_text="Task"), "ascending")
    page.get_by_label("Search").fill("no such model")
    until(page, "document.getElementById('shown').textContent.includes('Nothing')")
    clean(watched)


def test_only_models_with_all_tasks(site, watched):
    page = watched.open(url(site, "leaderboard/leaderboard.html"))
    before = len(models(page))
    page.get_by_label("complete on all tasks").check()
    shown = models(page)
    assert len(shown) < before
    assert "molmo-7b-d" not in shown, "its run is unfinished"
    clean(watched)


def test_from_a_cell_to_its_run_and_back(site, watched):
    page = watched.open(url(site, "leaderboard/leaderboard.html"))
    page.locator("#board-full tbody tr", has_text="gpt-4o").locator("a.value").first.click()
    page.wait_for_selector("html[data-ready=yes]")
    assert "gpt-4o" in page.inner_text("main")
    assert "evalkit run --model gpt-4o --task line_intersection --split test" in page.inner_text("main")
    page.get_by_role("link", name="Leaderboard").click()
    page.wait_for_selector("#board-full")
    page.goto(url(site, "tables/tables.html"))
    page.locator("table.paper a.value").first.click()
    page.wait_for_selector("html[data-ready=yes]")
    assert "llava-base" in page.inner_text("main")
    clean(watched)


def test_samples_one_by_one(site, watched):
    page = watched.open(url(site, page_of(site, "tiny-qwen-klal")))
    assert page.inner_text("#sample-count") == "40 of 40 samples"
    first = page.inner_text("#sample dl dd >> nth=0")
    page.get_by_role("button", name="Next").click()
    second = page.inner_text("#sample dl dd >> nth=0")
    assert first != second
    page.keyboard.press("k")
    assert page.inner_text("#sample dl dd >> nth=0") == first
    for _ in range(20):
        page.keyboard.press("j")
    until(page, "document.querySelector('.dt-paging-button.current').textContent === '2'")  # the list follows
    assert page.locator("#samples tr.chosen").count() == 1
    page.get_by_role("combobox", name="Verdict").select_option("wrong")
    assert set(page.locator("#samples tbody td:nth-child(5)").all_inner_texts()) == {"wrong"}
    page.locator("#samples tbody tr").nth(1).locator("button").click()
    assert "wrong" in page.inner_text("#sample")
    picture = page.locator("#sample .picture svg image")
    until(
        page,
        "() => { const i = new Image(); i.src = document.querySelector('#sample .picture image').getAttribute('href');"
        " return i.decode().then(() => i.naturalWidth > 0) }",
    )
    assert picture.get_attribute("href").startswith("../../images/")
    assert page.locator("#sample .mark-gold").count() == 1
    assert page.locator("#sample .mark-answer").count() == 2, "an answer is a cross"
    clean(watched)


def test_a_permalink_leads_to_the_sample(site, watched):
    name = page_of(site, "tiny-qwen-klal")
    page = watched.open(url(site, name, "#verdict=correct"))
    page.locator("#samples tbody tr").nth(5).locator("button").click()
    address, wanted = page.url, page.inner_text("#sample dl dd >> nth=0")
    watched.open("about:blank", ready=False)
    page = watched.open(address)
    assert page.inner_text("#sample dl dd >> nth=0") == wanted
    assert page.get_by_role("combobox", name="Verdict").input_value() == "correct"
    page.locator("#sample .elsewhere a").first.click()
    page.wait_for_selector("html[data-ready=yes]")
    assert page.inner_text("#sample dl dd >> nth=0") == wanted, "the same sample of another model"
    clean(watched)


def test_maps_of_the_three_models(site, watched):
    page = watched.open(url(site, page_of(site, "tiny-qwen-ntp"), "#maps=yes"))
    assert page.inner_text("#sample-count") == "2 of 40 samples"
    assert page.locator("#sample .maps figure").count() == 6
    shown = page.locator("#sample .maps figcaption").all_inner_texts()
    assert [text.partition(":")[0] for text in shown] == ["base", "NTP", "NTP + KLAL"] * 2
    page.get_by_label("Opacity").fill("30")
    assert page.locator("#sample .maps .map").first.get_attribute("opacity") == "0.3"
    clean(watched)


def test_charts(site, watched):
    page = watched.open(url(site, "leaderboard/charts.html"))
    assert page.locator(".chart svg").count() == page.locator(".chart").count() >= 2
    table = page.locator("details", has_text="As a table").first
    table.locator("summary").click()
    assert "70.2–" not in table.inner_text()
    assert "qwen-klal" in table.inner_text()
    clean(watched)


@pytest.mark.parametrize(
    "name", ["leaderboard/leaderboard.html", "tables/tables.html", "leaderboard/charts.html", "run"]
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(site, chrome, name, scheme):
    """No serious finding of axe-core, at both widths and in both schemes."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    name = page_of(site, "tiny-qwen-klal") if name == "run" else name
    for width in (1280, 360):
        context = chrome.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True
        )
        found = Watched(context.new_page())
        page = found.open(url(site, name), ready="tables" not in name)
        if width == 360:
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, (
                "the page itself scrolls sideways"
            )
        violations = axe.Axe().run(page).response["violations"]
        serious = [
            (v["id"], [node["target"] for node in v["nodes"]][:3])
            for v in violations if v["impact"] in ("serious", "critical")
        ]  # fmt: skip
        assert serious == [], f"{width} px, {scheme}"
        context.close()


def test_dark_is_dark(site, chrome):
    context = chrome.new_context(color_scheme="dark")
    page = Watched(context.new_page()).open(url(site, "leaderboard/leaderboard.html"))
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(v) for v in re.findall(r"\d+", colour)[:3]) < 60
    context.close()


def test_tables_without_javascript(site, chrome):
    context = chrome.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url(site, "leaderboard/leaderboard.html"))
    assert page.locator("#board-full tbody tr").count() > 5
    assert not page.locator("#filters").is_visible(), "what does nothing is not shown"
    page.locator("#board-full a.value").first.click()
    page.wait_for_selector("h1")
    assert page.get_by_text("needs JavaScript").is_visible()
    assert page.get_by_text("By class").count() + page.get_by_text("Provenance").count() >= 1
    context.close()


def test_a_hostile_run_stays_text(site, watched):
    """Nothing of it runs, asks for anything, or widens the page."""
    for name in (
        "leaderboard/leaderboard.html",
        page_of(site, "evil*"),
        "tables/tables.html",
        "leaderboard/charts.html",
    ):
        page = watched.open(url(site, name), ready="tables" not in name)
        clean(watched)
        page.set_viewport_size({"width": 360, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, name
        page.set_viewport_size({"width": 1280, "height": 900})
    page = watched.open(url(site, page_of(site, "evil*")))
    assert page.title() == HOSTILE[0] + " on " + HOSTILE[1][:200]
    for i in range(len(HOSTILE)):
        if i:
            page.keyboard.press("j")
        shown = page.inner_text("#sample")
        assert "\u202e" not in shown
        assert "\x1b" not in shown
        assert len(shown) < 12_000
    for text in ("window", "onerror", "&", "<", "\u202e", "1+1"):
        page.get_by_label("Search").fill(text)
        page.wait_for_timeout(50)
    clean(watched)


def test_the_policy_would_stop_what_slipped_through(site, watched, tmp_path):
    """Markup that no escaping held back: stopped with the page's policy and noticed, run without it."""
    source = (site / page_of(site, "evil*")).read_text()
    injected = HOSTILE[0] + HOSTILE[2]
    broken = source.replace("<h1>", injected + "<h1>", 1)
    (tmp_path / "held.html").write_text(broken)
    page = watched.open((tmp_path / "held.html").as_uri())
    assert page.evaluate("window.pwned") is None
    assert "script-src-elem" in page.evaluate("window.violated")
    assert "script-src-attr" in page.evaluate("window.violated")
    without = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", broken)
    assert without != broken
    (tmp_path / "free.html").write_text(without)
    page.goto((tmp_path / "free.html").as_uri())
    until(page, "window.pwned !== undefined")


def test_the_sheets_are_safe(site):
    """No cell of a CSV starts as a formula, whatever a run's names are."""
    import csv

    from evalkit.report.sheets import safe

    for text in HOSTILE:
        assert not safe(text).lstrip("\ufffd \t").startswith(("=", "+", "-", "@")), text[:20]
    for path in (site / "tables").glob("*.csv"):
        for row in csv.reader(path.read_text().splitlines()):
            for cell in row:
                numeric = re.fullmatch(r"[+-]?\d+(\.\d+)?(e[+-]\d+)?", cell)
                assert numeric or not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_pages_stay_small_and_come_out_the_same(site, tmp_path):
    """Under 1 MB without samples; the same runs give the same bytes."""
    for name in ("leaderboard/leaderboard.html", "leaderboard/charts.html", "tables/tables.html"):
        assert (site / name).stat().st_size < 1_000_000, name
    before = {p.relative_to(site): p.read_bytes() for p in (site / "leaderboard").rglob("*.html")}
    copy = shutil.copytree(site, tmp_path / "copy")
    shutil.rmtree(copy / "leaderboard")
    cli("leaderboard", "--results", copy, "--data", site.parent / "data")
    after = {p.relative_to(copy): p.read_bytes() for p in (copy / "leaderboard").rglob("*.html")}
    assert after == before
