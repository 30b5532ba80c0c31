"""Stored runs -> one DataFrame, a row a run."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import StoreError
from evalkit.records import VERDICTS
from evalkit.stats import accuracy_interval
from evalkit.store import find_runs, read_meta, read_rows

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)

COLUMNS = (
    "run", "hash", "model", "title", "scale", "origin", "task", "task_title", "split", "trained_on",
    "status", "n", "n_split", "n_rows", "accuracy", "low", "high", "interval", "n_clusters",
    "chance", *VERDICTS, "latency_p50_s", "cost_usd", "date", "dataset", "floor_cell_accuracy", "mean_iou",
)  # fmt: skip


def load_runs(results_dir: Path) -> "pd.DataFrame":
    """Every run below RESULTS/runs, one row each; columns are COLUMNS.

    A run that cannot be read is named in a warning and left out. accuracy = correct / selected samples;
    what has no reply yet counts as not correct, and `status` says so.
    """
    import pandas as pd

    rows = []
    for folder in find_runs(results_dir):
        try:
            rows.append(run_row(folder))
        except (StoreError, KeyError, TypeError) as error:
            _LOG.warning("%s: left out: %s", folder, error)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def run_row(folder: Path) -> dict[str, Any]:
    """What the leaderboard knows of one run."""
    meta, rows = read_meta(folder), list(read_rows(folder))
    n = meta["selection"]["n"]
    if not n:
        raise StoreError("a run of no samples")
    absent = max(0, n - len(rows))
    hits = [row["verdict"] == "correct" for row in rows] + [False] * absent
    clusters = [row["cluster"] for row in rows] + [f"\0absent{i}" for i in range(absent)]
    interval = accuracy_interval(hits, clusters)
    counts: dict[str, int] = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
    return {
        "run": folder.as_posix(),
        "hash": folder.name.rpartition("-")[2],
        **_who(meta),
        "status": _status(meta, counts, absent),
        "n": n,
        "n_split": meta["dataset"]["n_split"],
        "n_rows": len(rows),
        "correct": counts["correct"],
        "accuracy": counts["correct"] / n,
        "low": interval.low,
        "high": interval.high,
        "interval": interval.method,
        "n_clusters": interval.n_clusters,
        "chance": meta["task"].get("chance"),
        **counts,
        "latency_p50_s": _median([row["latency_s"] for row in rows if row["verdict"] != "failed"]),
        "cost_usd": meta["cost_usd"],
        "date": (meta["ended"] or meta["started"])[:10],
        "dataset": meta["dataset"]["fingerprint"],
        "floor_cell_accuracy": _share(rows, "correct_floor_cell", n),
        "mean_iou": _mean_iou(rows, n),
    }


def _who(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": meta["model"]["name"],
        "title": meta["model"]["title"],
        "scale": meta["model"].get("scale") or "unknown",
        "origin": meta["origin"],
        "task": meta["task"]["name"],
        "task_title": meta["task"]["title"],
        "split": meta["split"],
        "trained_on": meta["trained_on"],
    }


def _status(meta: Mapping[str, Any], counts: Mapping[str, int], absent: int) -> str:
    """As stored, but never `complete` for what the rows do not bear out."""
    if meta["status"] == "complete" and (absent or counts["failed"]):
        return "unfinished"
    return str(meta["status"])


def _median(values: list[float]) -> float | None:
    ordered = sorted(values)
    if not ordered:
        return None
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _share(rows: list[dict[str, Any]], key: str, n: int) -> float | None:
    values = [row[key] for row in rows if key in row]
    return sum(values) / n if values else None


def _mean_iou(rows: list[dict[str, Any]], n: int) -> float | None:
    """Over all selected samples: one without a readable box has IoU 0."""
    values = [row["iou"] for row in rows if "iou" in row]
    return sum(values) / n if values else None


def best_run(runs: "pd.DataFrame") -> "tuple[pd.Series[Any] | None, int]":
    """The run that fills a cell, and how many others there are.

    Complete on the whole split, else complete on the largest sample, else unfinished; then the newest.
    """
    if runs.empty:
        return None, 0
    ranked = runs.assign(
        _complete=runs["status"] == "complete",
        _full=(runs["n"] >= runs["n_split"]) & (runs["status"] == "complete"),
    ).sort_values(["_complete", "_full", "n", "date", "run"], ascending=[False, False, False, False, True])
    return ranked.iloc[0], len(ranked) - 1
