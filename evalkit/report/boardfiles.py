"""The leaderboard's folder: its page in three forms, the charts, and a page for each run."""

import contextlib
import gc
import logging
import multiprocessing
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from tqdm import tqdm

from evalkit.errors import StoreError
from evalkit.leaderboard import ODD_SHAPES
from evalkit.probes import Probe, find_probes, paper_probes
from evalkit.report.charts import build_charts
from evalkit.report.pages import plain, render, write
from evalkit.report.runpage import build_run_page, data_of
from evalkit.report.samples import Prompts
from evalkit.report.shelf import Shelf
from evalkit.report.writing import run_page
from evalkit.store import read_meta

_LOG = logging.getLogger(__name__)
TABLE_SCRIPTS = ("datatables-3.1.5.min.js", "form.js")
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
    probes = find_probes(results_dir, lenient=True)
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
    shelf = Shelf(data_dir, out_dir)
    pages = Pages(results_dir, out_dir, shelf, probes, board["runs"])
    runs = board["runs"]
    workers = min(os.cpu_count() or 1, len(runs))
    if workers < 2 or sum(run["n"] for run in runs) < _WORTH_WORKERS:
        done: Iterable[bool] = map(pages.write, runs)
        written = _listed(runs, done)
    else:
        for run in runs:  # before the workers start: two of them must not link the same picture
            pages.pictures(run)
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (pages,)) as pool:
            written = _listed(runs, pool.map(_write, runs))
    kept = {out_dir / name for name in written.values()}
    for page in (out_dir / "runs").glob("*/*.html"):
        if page not in kept:
            page.unlink()
    return written


_WORTH_WORKERS = 40_000  # rows: below, starting a second process takes longer than it saves


def _listed(runs: Sequence[Mapping[str, Any]], done: Iterable[bool]) -> dict[str, str]:
    progress = tqdm(done, total=len(runs), desc="pages", unit="run", disable=None, leave=False)
    return {run["run"]: run_page(run["run"]) for run, there in zip(runs, progress, strict=True) if there}


@dataclass
class Pages:
    """What every page of a run is made from."""

    results_dir: Path
    out_dir: Path
    shelf: Shelf
    probes: Sequence[Probe]
    runs: Sequence[Mapping[str, Any]]
    prompts: Prompts = field(default_factory=Prompts)

    def pictures(self, run: Mapping[str, Any]) -> None:
        with contextlib.suppress(StoreError, *ODD_SHAPES):
            self.shelf.pictures(*data_of(read_meta(self.results_dir / run["run"])))

    def write(self, run: Mapping[str, Any]) -> bool:
        """Whether there is a page now; none where rows are of another shape than a run's."""
        folder = self.results_dir / run["run"]
        gc.disable()  # nothing here is cyclic, and the collector would walk over every row again and again
        try:
            document, samples = build_run_page(folder, run, self.shelf, self.prompts, self.probes)
            context = document | {
                "samples": samples,
                "others": _others(run, self.runs, document["up"]),
                "links": {},
            }
            page = render("run.html.j2", context, (*TABLE_SCRIPTS, "samples.js"))
        except (StoreError, *ODD_SHAPES) as error:
            _LOG.warning("%s: has no page: %s", folder, repr(error))
            return False
        finally:
            gc.enable()
        write(self.out_dir / run_page(run["run"]), page)
        return True


_pages: Pages | None = None  # of a worker


def _begin(pages: Pages) -> None:
    global _pages
    _pages = pages


def _write(run: Mapping[str, Any]) -> bool:
    assert _pages is not None
    return _pages.write(run)


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
