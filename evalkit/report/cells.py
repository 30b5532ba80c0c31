"""One cell of a table or leaderboard: a run's number with all that is needed to doubt it."""

from typing import TYPE_CHECKING, Any

from evalkit.leaderboard import best_run
from evalkit.records import VERDICTS

if TYPE_CHECKING:
    import pandas as pd


def make_cell(runs: "pd.DataFrame") -> dict[str, Any] | None:
    """The best of these runs as a JSON-able cell; None where there is none."""
    run, others = best_run(runs)
    if run is None:
        return None
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
        "verdicts": {verdict: int(run[verdict]) for verdict in VERDICTS},
        "latency_p50_s": _number(run["latency_p50_s"]),
        "cost_usd": _number(run["cost_usd"]),
        "date": str(run["date"]),
        "hash": str(run["hash"]),
        "run": str(run["run"]),
        "origin": str(run["origin"]),
        "other_runs": others,
    }


def is_final(cell: dict[str, Any] | None) -> bool:
    """Complete on the whole split: may be averaged and ranked."""
    return cell is not None and cell["status"] == "complete" and not cell["partial"]


def _number(value: Any) -> float | None:
    """A float, or None for what pandas keeps as NaN."""
    return None if value is None or value != value else float(value)
