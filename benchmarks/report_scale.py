"""Tables and leaderboard of many runs, from cold: seconds and peak memory, beside pandas reading the same rows.

20 models x 5 tasks x 5,000 rows by default; --pages also writes a page for each run, pictures aside.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TASKS = ("line_intersection", "line_tracing", "grid_patch", "pixmo_points", "refcoco")
VERDICTS = ("correct", "wrong", "unparsed", "blocked", "truncated", "failed")
PANDAS = """
import sys, pandas as pd
from pathlib import Path
for path in sorted(Path(sys.argv[1]).glob("runs/*/*/rows.jsonl")):
    rows = pd.read_json(path, lines=True)
    (rows["verdict"] == "correct").mean()
"""


def write_runs(results: Path, models: int, n: int) -> int:
    """Runs as the runner writes them; returns the bytes of all rows."""
    total = 0
    for m in range(models):
        for t, task in enumerate(TASKS):
            draw = random.Random(f"{m} {t}")
            name = f"model-{m:02d}"
            folder = results / "runs" / name / f"{task}-test-{m:04x}{t:04x}"
            folder.mkdir(parents=True)
            rows = [_row(task, i, draw.random() < 0.2 + 0.03 * m, draw) for i in range(n)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "rows.jsonl").write_text(text)
            total += len(text)
            counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
            (folder / "run.json").write_text(json.dumps(_meta(name, task, n, counts, m)))
    return total


def _row(task: str, i: int, right: bool, draw: random.Random) -> dict[str, object]:
    place = task in ("grid_patch", "pixmo_points")
    scores: dict[str, object] = {}
    if place:
        scores = {
            "answer_px": [100.5, 200.25],
            "distance": 1.25 if right else 9.5,
            "correct_floor_cell": right,
        }
    elif task == "refcoco":
        scores = {
            "answer_px": [10.0, 20.0, 110.0, 220.0],
            "iou": 0.81 if right else 0.2,
            "beyond_image": False,
        }
    gold: object = [96.5, 210.0] if place else [12.0, 25.0, 111.0, 218.0] if task == "refcoco" else i % 6
    return {
        "sample_id": f"{task}/{i:06d}",
        "cluster": f"{i // 4:06d}" if task == "line_tracing" else f"{i:06d}",
        "stratum": f"class {i % 5}",
        "image_size_wh": [672, 672],
        "prompt_sha256": f"{i:064x}",
        "reply": f"Looking at the picture, I count the places one by one; the answer is {{{draw.randrange(6)}}}.",
        "gold": gold,
        "answer": gold if right else draw.randrange(6),
        "verdict": "correct" if right else "wrong" if draw.random() < 0.95 else "unparsed",
        "reason": None,
        **scores,
        "latency_s": round(draw.random(), 6),
        "usage": {"input_tokens": 700, "output_tokens": 25},
        "finish_reason": "stop",
        "answered_by": "model",
        "attempts": 1,
        "error": None,
    }


def _meta(name: str, task: str, n: int, counts: dict[str, int], m: int) -> dict[str, object]:
    return {
        "schema": 1, "origin": "run", "model": {"name": name, "title": name, "scale": "full", "params_b": m + 0.5},
        "task": {"name": task, "title": task, "chance": 0.1, "best_constant": 0.1, "prompt": "How many?"},
        "split": "test", "trained_on": None, "dataset": {"name": task, "fingerprint": "f" * 64, "n_split": n},
        "selection": {"n": n, "limit": None, "seed": 0}, "seed": 0, "started": "2026-11-01T00:00:00+00:00",
        "ended": "2026-11-01T01:00:00+00:00", "status": "complete", "counts": counts, "cost_usd": 1.25,
    }  # fmt: skip


def measure(words: list[str]) -> tuple[float, float]:
    """(wall seconds, peak MB) of a command and its children."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)\n"
        "sys.exit(done.returncode)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True)
    return time.perf_counter() - start, int(done.stderr.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--rows", type=int, default=5_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        size = write_runs(results, arguments.models, arguments.rows)
        n = arguments.models * len(TASKS) * arguments.rows
        print(
            f"{arguments.models} models x {len(TASKS)} tasks x {arguments.rows:,} rows: {n:,} rows, {size / 1e6:.0f} MB"
        )
        evalkit = [sys.executable, "-m", "evalkit"]
        commands = {
            "pandas.read_json, accuracies alone": [sys.executable, "-c", PANDAS, folder],
            "evalkit tables": [*evalkit, "tables", "--results", folder],
            "evalkit leaderboard --no-pages": [*evalkit, "leaderboard", "--no-pages", "--results", folder],
            "evalkit leaderboard": [*evalkit, "leaderboard", "--no-pictures", "--results", folder],
        }
        baseline = 0.0
        for name, words in commands.items():
            seconds, peak = measure(words)
            baseline = baseline or seconds
            print(f"{name:<36} {seconds:6.2f} s  x {seconds / baseline:4.2f}  peak {peak:5.0f} MB")
        pages = sum(path.stat().st_size for path in (results / "leaderboard").rglob("*.html"))
        front = (results / "leaderboard/leaderboard.html").stat().st_size
        print(f"leaderboard.html {front / 1e6:.2f} MB; all pages {pages / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
