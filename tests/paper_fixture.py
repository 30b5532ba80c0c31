"""Runs for every accuracy that the paper prints, near the printed value, with all states that a cell can have."""

import random
from pathlib import Path

from fixture_runs import write_run

from evalkit.report.paper import load_paper

N, PER_IMAGE = 400, 4
CHANCE = {
    "line_intersection": 0.1667, "line_tracing": 0.5, "grid_patch": 0.0452, "pixmo_points": 0.0452, "refcoco": None,
}  # fmt: skip
# (table, model, column) -> how its run departs from a complete one of the whole split
STATES = {
    (1, "molmo-7b-d", 0): {"n": N + 100, "status": "unfinished"},
    (1, "glamm-fs-7b", 0): {"n_split": 2 * N},
    (1, "instructblip-7b", 1): {"origin": "import"},
    (1, "gemini-2.0-flash", 0): {"shift": -0.1},  # below the printed value by more than its interval
    (2, "gpt-4o", 1): {"fingerprint": "e5" * 32},
    (2, "instructblip-7b", 0): None,  # no run
}


def write_paper_runs(results: Path) -> None:
    """400 questions on 100 images a cell; who is right where is drawn with a seed, hard images hard for all."""
    done = set()
    for table in load_paper().tables[:4]:
        for group in table.groups:
            for row in group.rows:
                for at, (column, value) in enumerate(zip(table.columns, row.values, strict=True)):
                    trained = column.trained_on or column.task if row.fine_tuned else None
                    key = (row.model, column.task, column.split, trained)
                    state = STATES.get((table.number, row.model, at), {})
                    if value is not None and state is not None and key not in done:
                        done.add(key)
                        _write(results, key, value / 100, dict(state), len(done))


def _write(results, key, accuracy, state, number):
    model, task, split, trained = key
    images = random.Random(f"{task}{split}")
    hardness = [images.gauss(0, 1) for _ in range(N // PER_IMAGE)]
    draw = random.Random(str(key))
    ease = [hardness[i // PER_IMAGE] + draw.gauss(0, 1) for i in range(N)]
    accuracy += state.pop("shift", 0)
    right = set(sorted(range(N), key=lambda i: ease[i])[: round(accuracy * N)])
    verdicts = ["correct" if i in right else "unparsed" if i % 97 == 5 else "wrong" for i in range(N)]
    points = task in ("grid_patch", "pixmo_points")
    scores = [
        {"distance": 1.5 if i in right else 9.0, "correct_floor_cell": i in right} if points
        else {"iou": 0.8 if i in right else 0.2, "beyond_image": False} if task == "refcoco"
        else {}
        for i in range(N)
    ]  # fmt: skip
    fingerprint = state.pop("fingerprint", (task + split).encode().hex().ljust(64, "0")[:64])
    write_run(
        results, verdicts, model=model, task=task, split=split, trained_on=trained, scores=scores,
        clusters=[f"image{i // PER_IMAGE}" for i in range(N)], hash8=f"{number:08x}", fingerprint=fingerprint,
        task_block={"name": task, "title": task.replace("_", " ").title(), "chance": CHANCE[task],
                    "best_constant": CHANCE[task]},
        ran_on={}, **state,
    )  # fmt: skip
