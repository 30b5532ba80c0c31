"""Two or more models on the same samples: accuracies, agreement, McNemar, paired bootstrap."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.costs import cost_usd
from evalkit.errors import StoreError
from evalkit.leaderboard import best_run, load_runs
from evalkit.records import VERDICTS
from evalkit.stats import accuracy_interval, holm, mcnemar_by_image, mcnemar_exact, paired_bootstrap
from evalkit.store import read_meta, read_rows

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Run:
    """A stored run as a comparison needs it: answered samples alone."""

    name: str
    folder: Path
    meta: dict[str, Any]
    rows: dict[str, dict[str, Any]]

    @property
    def finished(self) -> bool:
        return len(self.rows) == int(self.meta["selection"]["n"])


def find_run(model: str, task: str, split: str, results_dir: Path, trained_on: str | None = None) -> Run:
    """A run by its folder, or the best run of a model on a task. Raises StoreError in one line.

    trained_on: the training task of fine-tuned models, by default the task itself; a model that was
    trained on no task of ours is taken as it is.
    """
    folder = Path(model)
    if not (folder / "run.json").is_file():
        runs = load_runs(results_dir)
        here = runs[(runs["task"] == task) & (runs["split"] == split)]
        training = here["trained_on"]
        chosen, _ = best_run(
            here[(here["model"] == model) & (training.isna() | (training == (trained_on or task)))]
        )
        if chosen is None:
            raise StoreError(_no_run(model, task, split, results_dir, here))
        folder = results_dir / chosen["run"]
    meta = read_meta(folder)
    rows = {row["sample_id"]: row for row in read_rows(folder) if row["verdict"] != "failed"}
    if meta["task"]["name"] != task:
        raise StoreError(f"{folder} is a run of task {meta['task']['name']!r}, not {task!r}.")
    return Run(str(meta["model"]["name"]), folder, meta, rows)


def _no_run(model: str, task: str, split: str, results_dir: Path, here: "pd.DataFrame") -> str:
    elsewhere = sorted(here.loc[here["model"] == model, "trained_on"].dropna().unique())
    if elsewhere:
        return (
            f"The runs of {model!r} on {task}/{split} are of checkpoints trained on {', '.join(elsewhere)}. "
            f"Choose one: --trained-on {elsewhere[0]}"
        )
    have = ", ".join(sorted(here["model"].unique())) or "no model"
    return (
        f"No run of {model!r} on {task}/{split} in {results_dir}; there are runs of: {have}. "
        f"Make one: evalkit run --model {model} --task {task} --split {split}"
    )


def compare(runs: Sequence[Run], seed: int = 0) -> dict[str, Any]:
    """Everything a comparison says, on the samples that all runs have answered. Raises StoreError."""
    prints = {run.meta["dataset"]["fingerprint"] for run in runs}
    if len(prints) > 1:
        raise StoreError(
            "The runs are of different data (fingerprints "
            f"{', '.join(sorted(p[:12] for p in prints))}): paired tests need the same samples."
        )
    shared = set.intersection(*(set(run.rows) for run in runs))
    common = [sample_id for sample_id in runs[0].rows if sample_id in shared]
    if not common:
        raise StoreError("The runs have no answered sample in common.")
    clusters = [runs[0].rows[sample_id]["cluster"] for sample_id in common]
    names = _distinct_names(runs)
    by_name = dict(zip(names, runs, strict=True))
    right = {
        name: [run.rows[s]["verdict"] == "correct" for s in common]
        for name, run in zip(names, runs, strict=True)
    }
    pairs = [_pair(a, b, by_name, right, common, clusters, seed) for a, b in combinations(names, 2)]
    for pair, p in zip(pairs, holm([pair["mcnemar_p"] for pair in pairs]), strict=True):
        pair["mcnemar_p_holm"] = p
    return {
        "task": runs[0].meta["task"]["name"],
        "split": runs[0].meta["split"],
        "n": len(common),
        "n_images": len(set(clusters)),
        "models": [_model(name, by_name[name], right[name], clusters, common) for name in names],
        "pairs": pairs,
        "strata": _strata(runs[0], right, common),
        "differ": [
            _where(sample_id, i, by_name, right) for i, sample_id in enumerate(common) if _differ(right, i)
        ],
    }


def _strata(run: Run, right: Mapping[str, list[bool]], common: Sequence[str]) -> list[dict[str, Any]]:
    """Correct answers by class of sample: where one model is better than another."""
    places: dict[str, list[int]] = {}
    for i, sample_id in enumerate(common):
        places.setdefault(str(run.rows[sample_id].get("stratum", "")), []).append(i)
    return [
        {
            "stratum": stratum,
            "n": len(at),
            "correct": {name: sum(hits[i] for i in at) for name, hits in right.items()},
        }
        for stratum, at in sorted(places.items())
    ]


def _differ(right: Mapping[str, list[bool]], i: int) -> bool:
    return len({hits[i] for hits in right.values()}) > 1


def _where(
    sample_id: str, i: int, runs: Mapping[str, Run], right: Mapping[str, list[bool]]
) -> dict[str, Any]:
    """One sample that some answered correctly and some did not; places in pixels, as the gold."""
    rows = {name: run.rows[sample_id] for name, run in runs.items()}
    return {
        "sample_id": sample_id,
        "gold": next(iter(rows.values())).get("gold"),
        "correct": [name for name, hits in right.items() if hits[i]],
        "answers": {name: row.get("answer_px", row.get("answer")) for name, row in rows.items()},
        "verdicts": {name: row["verdict"] for name, row in rows.items()},
    }


def _distinct_names(runs: Sequence[Run]) -> list[str]:
    """Model names, with the run's hash where a model stands there twice."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{name}@{run.folder.name[-8:]}"
        for name, run in zip(names, runs, strict=True)
    ]


def _model(name: str, run: Run, right: list[bool], clusters: list[str], common: list[str]) -> dict[str, Any]:
    interval = accuracy_interval(right, clusters)
    verdicts = Counter(run.rows[s]["verdict"] for s in common)
    # a batch has no latency of its own
    latencies = sorted(run.rows[s]["latency_s"] for s in common if not run.rows[s].get("batched"))
    cost = cost_usd(run.meta["model"].get("prices"), (run.rows[s] for s in common))
    return {
        "model": name,
        "run": str(run.folder),
        "status": run.meta["status"] if run.finished else "unfinished",
        "correct": sum(right),
        "accuracy": sum(right) / len(right),
        "ci95": [interval.low, interval.high],
        "only_here": len(run.rows) - len(common),
        "verdicts": {verdict: count for verdict in VERDICTS if (count := verdicts[verdict])},
        "latency_p50_s": _quantile(latencies, 0.5),
        "latency_p95_s": _quantile(latencies, 0.95),
        "cost_usd": run.meta["cost_usd"],
        "cost_usd_per_1000": None if cost is None else 1000 * cost / len(common),
    }


def _quantile(ordered: list[float], q: float) -> float | None:
    """Linear interpolation between order statistics, as numpy's default; None of nothing."""
    if not ordered:
        return None
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def _pair(
    a: str,
    b: str,
    runs: Mapping[str, Run],
    right: Mapping[str, list[bool]],
    common: Sequence[str],
    clusters: list[str],
    seed: int,
) -> dict[str, Any]:
    right_a, right_b = right[a], right[b]
    pairs = list(zip(right_a, right_b, strict=True))
    only_a, only_b = pairs.count((True, False)), pairs.count((False, True))
    answers = [(runs[a].rows[s].get("answer"), runs[b].rows[s].get("answer")) for s in common]
    interval = paired_bootstrap(right_a, right_b, clusters, seed=seed)
    by_image: Counter[str] = Counter()
    for cluster, (first, second) in zip(clusters, pairs, strict=True):
        by_image[cluster] += int(first) - int(second)
    return {
        "first": a,
        "second": b,
        "both_correct": pairs.count((True, True)),
        "only_first": only_a,
        "only_second": only_b,
        "both_not": pairs.count((False, False)),
        "same_answer": sum(first is not None and first == second for first, second in answers),
        "difference": (only_a - only_b) / len(pairs),
        "difference_ci95": [interval.low, interval.high],
        "mcnemar_p": mcnemar_exact(only_a, only_b),
        "p_by_image": mcnemar_by_image(list(by_image.values())),
        "clustered": interval.n_clusters < interval.n,
    }
