"""The leaderboard's folder: its page in three forms, the charts, and a page for each run."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from tqdm import tqdm

from evalkit.errors import StoreError
from evalkit.probes import Probe, find_probes, paper_probes
from evalkit.report.charts import build_charts
from evalkit.report.pages import plain, render, write
from evalkit.report.runpage import build_run_page
from evalkit.report.samples import Prompts
from evalkit.report.shelf import Shelf
from evalkit.report.writing import run_page

TABLE_SCRIPTS = ("datatables-3.1.5.min.js",)
CHART_SCRIPTS = ("vega-6.4.0.min.js", "vega-lite-6.4.3.min.js", "vega-embed-7.3.0.min.js", "charts.js")


def write_board(
    board: Mapping[str, Any],
    out_dir: Path,
    results_dir: Path,
    *,
    data_dir: Path | None,
    pages: bool = True,
) -> list[Path]:
    """leaderboard.{md,html,json}, charts.html, and runs/<model>/<run>.html; returns them, run pages last.

    data_dir: where pictures are looked for, None for none; pages: whether runs get pages. A run that can no
    longer be read has no page, and its links lead to run.json.
    """
    probes = find_probes(results_dir)
    charts = build_charts(board, paper_probes(results_dir, probes))
    written = _write_pages(board, out_dir, results_dir, data_dir, probes) if pages else {}
    links = {
        run["run"]: written.get(run["run"], _run_json(run["run"], out_dir, results_dir))
        for run in board["runs"]
    }
    context = dict(board) | {"links": links, "charts": bool(charts), "choices": _choices(board)}
    paths = [
        write(out_dir / "leaderboard.md", render("leaderboard.md.j2", context)),
        write(
            out_dir / "leaderboard.html", render("leaderboard.html.j2", context, (*TABLE_SCRIPTS, "board.js"))
        ),
        write(out_dir / "leaderboard.json", orjson.dumps(board, option=orjson.OPT_INDENT_2).decode() + "\n"),
    ]
    if charts:
        specs = [{"id": chart["id"], "spec": chart["spec"]} for chart in charts]
        page = render("charts.html.j2", {"charts": charts, "specs": specs}, CHART_SCRIPTS)
        paths.append(write(out_dir / "charts.html", page))
    else:
        (out_dir / "charts.html").unlink(missing_ok=True)
    return paths + [out_dir / name for name in written.values()]  # fmt: skip


def _choices(board: Mapping[str, Any]) -> dict[str, list[str]]:
    """What there is to filter by."""
    return {
        name: sorted({run[key] for run in board["runs"] if run[key]})
        for name, key in (("where", "where"), ("trained", "objective"), ("size", "size"))
    }


def _run_json(run: str, out_dir: Path, results_dir: Path) -> str:
    return Path(os.path.relpath((results_dir / run / "run.json").absolute(), out_dir.absolute())).as_posix()


def _write_pages(
    board: Mapping[str, Any],
    out_dir: Path,
    results_dir: Path,
    data_dir: Path | None,
    probes: Sequence[Probe],
) -> dict[str, str]:
    """Run -> its page, relative to out_dir. Pages of runs that are no longer there go."""
    shelf, prompts = Shelf(data_dir, out_dir), Prompts()
    written = {}
    for run in tqdm(board["runs"], desc="pages", unit="run", disable=None, leave=False):
        name = run_page(run["run"])
        try:
            document, samples = build_run_page(results_dir / run["run"], run, shelf, prompts, probes)
        except (StoreError, KeyError, TypeError, ValueError):
            continue  # rows of another shape: listed with what the leaderboard could read
        context = document | {"samples": samples, "others": _others(run, board["runs"], document["up"])}
        write(out_dir / name, render("run.html.j2", context | {"links": {}}, (*TABLE_SCRIPTS, "samples.js")))
        written[run["run"]] = name
    kept = {out_dir / name for name in written.values()}
    for page in (out_dir / "runs").glob("*/*.html"):
        if page not in kept:
            page.unlink()
    return written


def _others(run: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], up: str) -> list[dict[str, str]]:
    """The other runs on the same samples, for a look at them side by side."""
    return [
        {
            "name": plain(other["model"] + (f", seed {other['train_seed']}" if other["train_seed"] else "")),
            "href": up + run_page(other["run"]),
        }
        for other in runs
        if other["run"] != run["run"]
        and (other["task"], other["split"], other["dataset"]) == (run["task"], run["split"], run["dataset"])
    ]
