"""One cell of a table or leaderboard: a run's number with all that is needed to doubt it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evalkit.leaderboard import best_run
from evalkit.records import VERDICTS

if TYPE_CHECKING:
    import pandas as pd


def make_cell(runs: "pd.DataFrame", data: str | None) -> dict[str, Any] | None:
    """The best of these runs as a JSON-able cell; None where there is none.

    data: fingerprint of the data that the cell's column is about.
    """
    run, others = best_run(runs, data)
    if run is None:
        return None
    return run_cell(run) | {"other_data": run["dataset"] != data, "other_runs": others}


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


def is_final(cell: dict[str, Any]) -> bool:
    """Complete on the whole of the same data as its column: may be averaged and ranked."""
    return cell["status"] == "complete" and not cell["partial"] and not cell["other_data"]


def unshown(row: str, columns: Sequence[str], cells: Sequence[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Which runs a row's cells stand for besides the one shown: {row, column, runs} of each such cell."""
    return [
        {"row": row, "column": column, "runs": cell["other_runs"]}
        for column, cell in zip(columns, cells, strict=True)
        if cell is not None and cell["other_runs"]
    ]


def _number(value: Any) -> float | None:
    """A float, or None for what pandas keeps as NaN."""
    return None if value is None or value != value else float(value)
