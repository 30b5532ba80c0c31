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
    "run", "hash", "model", "title", "scale", "origin", "task", "task_title", "split", "trained_on", "train_seed",
    "status", "n", "n_split", "n_rows", "accuracy", "low", "high", "interval", "n_clusters",
    "chance", "best_constant", *VERDICTS, "latency_p50_s", "cost_usd", "when", "date", "dataset",
    "floor_cell_accuracy", "mean_iou", "beyond_image",
)  # fmt: skip


def load_runs(results_dir: Path) -> "pd.DataFrame":
    """Every run below RESULTS/runs, one row each; columns are COLUMNS, `run` is relative to RESULTS.

    A run that cannot be read is named in a warning and left out. accuracy = correct / selected samples;
    what has no reply yet counts as not correct, and `status` says so.
    """
    import pandas as pd

    rows = []
    for folder in find_runs(results_dir):
        try:
            row = {"run": folder.relative_to(results_dir).as_posix()} | run_row(folder)
            rows.append({key: _storable(value) for key, value in row.items()})
        except StoreError as error:
            _LOG.warning("%s: left out: %s", folder, error)
        except (
            KeyError,
            TypeError,
            AttributeError,
            ValueError,
        ) as error:  # JSON of another shape than a run's
            _LOG.warning("%s: left out: not a run as evalkit writes it (%s)", folder, repr(error))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _storable(value: Any) -> Any:
    """Lone surrogates, which JSON can hold and a column of strings cannot, become question marks."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def run_row(folder: Path) -> dict[str, Any]:
    """What the leaderboard knows of one run."""
    meta, rows = read_meta(folder), list(read_rows(folder))
    n = meta["selection"]["n"]
    if not n:
        raise StoreError("a run of no samples")
    if len(rows) > n:
        raise StoreError(f"{len(rows)} rows for {n} selected samples")
    absent = n - len(rows)
    hits = [row["verdict"] == "correct" for row in rows] + [False] * absent
    clusters = [row["cluster"] for row in rows] + [f"\0absent{i}" for i in range(absent)]
    interval = accuracy_interval(hits, clusters)
    counts: dict[str, int] = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
    return {
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
        "best_constant": meta["task"].get("best_constant"),
        **counts,
        "latency_p50_s": _median(
            [row["latency_s"] for row in rows if row["verdict"] != "failed" and not row.get("batched")]
        ),
        "cost_usd": meta["cost_usd"],
        "when": meta["ended"] or meta["started"],
        "date": (meta["ended"] or meta["started"])[:10],
        "dataset": meta["dataset"]["fingerprint"],
        "floor_cell_accuracy": _mean(rows, "correct_floor_cell", n),
        "mean_iou": _mean(rows, "iou", n),
        "beyond_image": _mean(rows, "beyond_image", n),
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
        "train_seed": int((meta.get("training") or {}).get("seed", 0)),
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


def _mean(rows: list[dict[str, Any]], key: str, n: int) -> float | None:
    """Over all selected samples: one without a readable answer counts as 0. None where no row has the key."""
    values = [row[key] for row in rows if key in row]
    return sum(values) / n if values else None


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
