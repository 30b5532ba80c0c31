"""Documents -> files: which pages there are, and where their links lead."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evalkit.report.latex import render_latex
from evalkit.report.pages import render, write
from evalkit.report.sheets import gains_csv, table_csv

# Where `evalkit leaderboard` puts the page of a run, below RESULTS; the run's own path follows.
BOARD_DIR = "leaderboard"


def run_page(run: str) -> str:
    """The page of a run, relative to the leaderboard's folder: `runs/<model>/<run>.html`."""
    return f"{run}.html"


def run_links(runs: Iterable[str], out_dir: Path, results_dir: Path) -> dict[str, str]:
    """Where a cell's link leads, relative to out_dir: to the run's page where there is one, else to its run.json."""
    links = {}
    for run in runs:
        page = results_dir / BOARD_DIR / run_page(run)
        target = page if page.is_file() else results_dir / run / "run.json"
        links[run] = Path(os.path.relpath(target.absolute(), out_dir.absolute())).as_posix()
    return links


def write_tables(
    document: Mapping[str, Any], out_dir: Path, results_dir: Path, scale: str | None
) -> list[Path]:
    """tables.{md,html,tex}, table<N>.{tex,csv} and gains.csv; of a scale <scale>.{md,html,tex}, <scale>-... ."""
    links = run_links(_runs(document), out_dir, results_dir)
    context = dict(document) | {"links": links}
    stem, before = ("tables", "") if scale is None else (scale, f"{scale}-")
    paths = [
        write(out_dir / f"{stem}.{kind}", render(f"tables.{kind}.j2", context)) for kind in ("md", "html")
    ]
    names = [f"{before}table{table['number']}" for table in document["tables"]]
    paths.append(write(out_dir / f"{stem}.tex", render_latex("tables.tex.j2", context, names=names)))
    for name, table in zip(names, document["tables"], strict=True):
        paths.append(write(out_dir / f"{name}.tex", render_latex("table.tex.j2", context, table=table)))
        paths.append(write(out_dir / f"{name}.csv", table_csv(table, links)))
    return [*paths, write(out_dir / f"{before}gains.csv", gains_csv(document["tables"]))]


def _runs(document: Mapping[str, Any]) -> list[str]:
    """Every run that a cell stands for."""
    cells = [
        cell["ours"]
        for table in document["tables"]
        for group in table["groups"]
        for row in group["rows"]
        for cell in row["cells"]
    ]
    if document["tiny"]:
        cells += [cell for row in document["tiny"]["rows"] for cell in row["cells"]]
    # cells of Table 5 are made of probes
    return sorted({one["run"] for cell in cells if cell and "run" in cell for one in cell["seeds"]})
