"""Stored runs -> one DataFrame, a row a run."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import StoreError
from evalkit.records import VERDICTS
from evalkit.scores import ScoreBook, Scores
from evalkit.stats import accuracy_interval
from evalkit.store import find_runs

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)
# What JSON of another shape than a run's ends in; ArithmeticError: a whole number too large for a column.
ODD_SHAPES = (KeyError, TypeError, AttributeError, ValueError, IndexError, ArithmeticError)

COLUMNS = (
    "run", "hash", "model", "title", "scale", "objective", "params_b", "where", "origin",
    "task", "task_title", "split", "trained_on", "train_seed",
    "status", "n", "n_split", "n_rows", "accuracy", "low", "high", "interval", "n_clusters",
    "chance", "best_constant", *VERDICTS, "latency_p50_s", "cost_usd", "when", "date", "dataset",
    "floor_cell_accuracy", "mean_iou", "beyond_image",
)  # fmt: skip


def load_runs(results_dir: Path, book: ScoreBook | None = None) -> "pd.DataFrame":
    """Every run below RESULTS/runs, one row each; columns are COLUMNS, `run` is relative to RESULTS.

    A run that cannot be read is named in a warning and left out. accuracy = correct / selected samples;
    what has no reply yet counts as not correct, and `status` says so. `book` keeps what was read of the rows.
    """
    import pandas as pd

    book = book or ScoreBook(results_dir)

    rows = []
    for folder in find_runs(results_dir):
        try:
            run = folder.relative_to(results_dir).as_posix()
            row = {"run": run} | run_row(folder, book.of(run))
            rows.append({key: _storable(value) for key, value in row.items()})
        except StoreError as error:
            _LOG.warning("%s: left out: %s", folder, error)
        except ODD_SHAPES as error:
            _LOG.warning("%s: left out: not a run as evalkit writes it (%s)", folder, repr(error))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _storable(value: Any) -> Any:
    """Lone surrogates, which JSON can hold and a column of strings cannot, become question marks."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def run_row(folder: Path, scores: Scores | None = None) -> dict[str, Any]:
    """What the leaderboard knows of one run. Raises StoreError."""
    scores = scores or ScoreBook(folder.parent).of(folder.name)
    meta = scores.meta
    n = meta["selection"]["n"]
    if not n:
        raise StoreError("a run of no samples")
    if scores.n > n:
        raise StoreError(f"{scores.n} rows for {n} selected samples")
    absent = n - scores.n
    hits = np.concatenate([scores.hits, np.zeros(absent, bool)])
    # what has no reply yet is no question on an image that others have shown
    unseen = 1 + scores.images.max(initial=-1) + np.arange(absent)
    interval = accuracy_interval(hits, np.concatenate([scores.images, unseen]))
    counts: dict[str, int] = {verdict: scores.count(verdict) for verdict in VERDICTS}
    return {
        "hash": folder.name.rpartition("-")[2],
        **_who(meta),
        "status": _status(meta, counts, absent),
        "n": n,
        "n_split": meta["dataset"]["n_split"],
        "n_rows": scores.n,
        "correct": counts["correct"],
        "accuracy": counts["correct"] / n,
        "low": interval.low,
        "high": interval.high,
        "interval": interval.method,
        "n_clusters": interval.n_clusters,
        "chance": meta["task"].get("chance"),
        "best_constant": meta["task"].get("best_constant"),
        **counts,
        "latency_p50_s": _median(scores.latencies_s),
        "cost_usd": meta["cost_usd"],
        "when": meta["ended"] or meta["started"],
        "date": (meta["ended"] or meta["started"])[:10],
        "dataset": meta["dataset"]["fingerprint"],
        "floor_cell_accuracy": _mean(scores, "correct_floor_cell", n),
        "mean_iou": _mean(scores, "iou", n),
        "beyond_image": _mean(scores, "beyond_image", n),
    }


def _who(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": meta["model"]["name"],
        "title": meta["model"]["title"],
        "scale": meta["model"].get("scale") or "unknown",
        "objective": _known(meta["model"].get("objective"), ("base", "ntp", "ntp_klal")),
        "params_b": meta["model"].get("params_b"),
        "where": "api" if str(meta["model"].get("adapter")).endswith("_api") else "local",
        "origin": meta["origin"],
        "task": meta["task"]["name"],
        "task_title": meta["task"]["title"],
        "split": meta["split"],
        "trained_on": meta["trained_on"],
        "train_seed": int((meta.get("training") or {}).get("seed", 0)),
    }


def _known(value: Any, names: tuple[str, ...]) -> str | None:
    return value if value in names else None


def _status(meta: Mapping[str, Any], counts: Mapping[str, int], absent: int) -> str:
    """As stored, but never `complete` for what the rows do not bear out."""
    if meta["status"] == "complete" and (absent or counts["failed"]):
        return "unfinished"
    return str(meta["status"])


def _median(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None


def _mean(scores: Scores, key: str, n: int) -> float | None:
    """Over all selected samples: one without a readable answer counts as 0. None where no row has the key."""
    values = scores.values.get(key)
    return None if values is None else float(np.nansum(values) / n)


def usual_data(runs: "pd.DataFrame") -> str | None:
    """The fingerprint of the data that most of the models were run on, the newest of equals."""
    if runs.empty:
        return None
    by_data = runs.groupby("dataset").agg(models=("model", "nunique"), newest=("when", "max"))
    return str(by_data.sort_values(["models", "newest"]).index[-1])


def best_run(runs: "pd.DataFrame", data: str | None = None) -> "tuple[pd.Series[Any] | None, list[str]]":
    """The run that fills a cell, and the names of the others.

    Complete on the whole split, else complete on the largest sample, else unfinished; of equals one on
    `data` (a fingerprint), then the first training seed, then the newest.
    """
    if runs.empty:
        return None, []
    complete = runs["status"] == "complete"
    keys = {
        "_complete": complete,
        "_full": complete & (runs["n"] >= runs["n_split"]),
        "_usual": runs["dataset"] == data,
        "_first_seed": -runs["train_seed"],
    }
    order = [*keys, "n", "when", "run"]
    ranked = runs.assign(**keys).sort_values(order, ascending=[False] * (len(order) - 1) + [True])
    return ranked.iloc[0], list(ranked["run"].iloc[1:])
