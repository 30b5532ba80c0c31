"""One cell of a table or leaderboard: a model's number on a task with all that is needed to doubt it."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.leaderboard import best_run
from evalkit.records import VERDICTS
from evalkit.scores import ScoreBook
from evalkit.stats import accuracy_interval

if TYPE_CHECKING:
    import pandas as pd


def make_cell(runs: "pd.DataFrame", data: str | None, book: ScoreBook) -> dict[str, Any] | None:
    """The best of these runs as a JSON-able cell; None where there is none.

    Training seeds of a checkpoint are one cell: the mean of their accuracies, and an interval of all their
    answers, clustered by image, which covers the choice of images and not that of seeds.

    data: fingerprint of the data that the cell's column is about.
    """
    run, others = best_run(runs, data)
    if run is None:
        return None
    cell = run_cell(run)
    seeds = _seeds(run, runs)
    cell["seeds"] = [
        {key: run_cell(one)[key] for key in ("correct", "n", "accuracy", "run")}
        | {"seed": int(one["train_seed"])}
        for one in seeds
    ]
    if len(seeds) > 1:
        cell |= _pooled(seeds, book)
    shown = {str(one["run"]) for one in seeds}
    others = [name for name in others if name not in shown]
    return cell | {"other_data": run["dataset"] != data, "other_runs": others, "rank": None}


def _seeds(run: "pd.Series[Any]", runs: "pd.DataFrame") -> "list[pd.Series[Any]]":
    """The run, and the newest of every other training seed that is as complete, on the same samples."""
    if run["status"] != "complete" or run["origin"] != "run":
        return [run]
    like = runs[
        (runs["status"] == "complete")
        & (runs["origin"] == "run")
        & (runs["dataset"] == run["dataset"])
        & (runs["n"] == run["n"])
        & (runs["train_seed"] != run["train_seed"])
    ]
    newest = like.sort_values(["when", "run"], ascending=[False, True]).drop_duplicates("train_seed")
    found = [run, *(one for _, one in newest.iterrows())]
    return sorted(found, key=lambda one: int(one["train_seed"]))


def _pooled(seeds: "Sequence[pd.Series[Any]]", book: ScoreBook) -> dict[str, Any]:
    scores = [book.of(str(one["run"])) for one in seeds]
    interval = accuracy_interval(
        np.concatenate([one.hits for one in scores]), np.concatenate([one.images for one in scores])
    )
    cells = [run_cell(one) for one in seeds]
    means = ("floor_cell_accuracy", "mean_iou", "latency_p50_s")
    costs = [cell["cost_usd"] for cell in cells if cell["cost_usd"] is not None]
    return {
        "accuracy": fmean(cell["accuracy"] for cell in cells),
        "low": interval.low,
        "high": interval.high,
        "interval": interval.method,
        "correct": sum(cell["correct"] for cell in cells),
        "n": sum(cell["n"] for cell in cells),
        "n_split": sum(cell["n_split"] for cell in cells),
        "answered": sum(cell["answered"] for cell in cells),
        "verdicts": {verdict: sum(cell["verdicts"][verdict] for cell in cells) for verdict in VERDICTS},
        "cost_usd": sum(costs) if costs else None,
    } | {
        key: None if any(cell[key] is None for cell in cells) else fmean(cell[key] for cell in cells)
        for key in means
    }


def run_cell(run: "pd.Series[Any]") -> dict[str, Any]:
    """One run, a row of `load_runs`, as JSON-able values."""
    n = int(run["n"])
    return {
        "accuracy": float(run["accuracy"]),
        "low": float(run["low"]),
        "high": float(run["high"]),
        "interval": str(run["interval"]),
        "correct": int(run["correct"]),
        "n": n,
        "n_split": int(run["n_split"]),
        "answered": int(run["n_rows"]) - int(run["failed"]),
        "partial": n < int(run["n_split"]),
        "status": str(run["status"]),
        "chance": _number(run["chance"]),
        "best_constant": _number(run["best_constant"]),
        "floor_cell_accuracy": _number(run["floor_cell_accuracy"]),
        "mean_iou": _number(run["mean_iou"]),
        "verdicts": {verdict: int(run[verdict]) for verdict in VERDICTS},
        "latency_p50_s": _number(run["latency_p50_s"]),
        "cost_usd": _number(run["cost_usd"]),
        "date": str(run["date"]),
        "hash": str(run["hash"]),
        "run": str(run["run"]),
        "origin": str(run["origin"]),
        "dataset": str(run["dataset"]),
    }


def is_final(cell: dict[str, Any] | None) -> bool:
    """Complete on the whole of the same data as its column: may be averaged, ranked and compared."""
    return (
        cell is not None and cell["status"] == "complete" and not cell["partial"] and not cell["other_data"]
    )


def unshown(row: str, columns: Sequence[str], cells: Sequence[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Which runs a row's cells stand for besides the one shown: {row, column, runs} of each such cell."""
    return [
        {"row": row, "column": column, "runs": cell["other_runs"]}
        for column, cell in zip(columns, cells, strict=True)
        if cell is not None and cell.get("other_runs")
    ]


def _number(value: Any) -> float | None:
    """A float, or None for what pandas keeps as NaN."""
    return None if value is None or value != value else float(value)
