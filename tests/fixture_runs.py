"""Run folders written by hand, for the tests of what reads them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalkit.records import VERDICTS


def write_run(
    results: Path,
    verdicts: Sequence[str],
    *,
    model: str = "qwen-base",
    title: str | None = None,
    scale: str | None = "full",
    task: str = "line_intersection",
    split: str = "test",
    trained_on: str | None = None,
    n: int | None = None,
    n_split: int | None = None,
    clusters: Sequence[str] | None = None,
    status: str = "complete",
    fingerprint: str = "f" * 64,
    hash8: str = "0a1b2c3d",
    date: str = "2026-11-20",
    latencies: Sequence[float] | None = None,
    cost_usd: float | None = None,
    sample_ids: Sequence[str] | None = None,
    scores: Sequence[dict[str, Any]] | None = None,
    task_block: Any = None,
    model_block: Any = None,
    **extra: Any,
) -> Path:
    """RESULTS/runs/<model>/<task>-<split>...: one row a verdict; sample i is `s<i>` in cluster `c<i>`."""
    trained = f"-trained_on-{trained_on}" if trained_on else ""
    folder = results / "runs" / model / f"{task}-{split}{trained}-{hash8}"
    folder.mkdir(parents=True)
    ids = sample_ids or [f"s{i}" for i in range(len(verdicts))]
    rows = [
        {
            "sample_id": sample_id,
            "cluster": clusters[i] if clusters else f"c{i}",
            "verdict": verdict,
            "latency_s": latencies[i] if latencies else 0.5,
            "usage": {},
            **(scores[i] if scores else {}),
        }
        for i, (sample_id, verdict) in enumerate(zip(ids, verdicts, strict=True))
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    n = len(verdicts) if n is None else n
    meta = {
        "schema": 1,
        "origin": "run",
        "model": model_block or {"name": model, "title": title or model, "scale": scale},
        "task": task_block or {"name": task, "title": task.replace("_", " ").title(), "chance": 0.1667},
        "split": split,
        "trained_on": trained_on,
        "dataset": {"fingerprint": fingerprint, "n_split": n_split or n},
        "selection": {"n": n},
        "started": f"{date}T10:00:00+00:00",
        "ended": f"{date}T11:00:00+00:00",
        "status": status,
        "counts": {verdict: list(verdicts).count(verdict) for verdict in VERDICTS},
        "cost_usd": cost_usd,
        **extra,
    }
    (folder / "run.json").write_text(json.dumps(meta))
    return folder


def mixed(correct: int, wrong: int, **others: int) -> list[str]:
    """["correct"] * correct + ["wrong"] * wrong + ..."""
    counts = {"correct": correct, "wrong": wrong, **others}
    return [verdict for verdict, count in counts.items() for _ in range(count)]
