"""Runs -> the leaderboard's document: sections by scale, models x tasks, and every run."""

from statistics import fmean
from typing import TYPE_CHECKING, Any

from evalkit.errors import ConfigError
from evalkit.leaderboard import usual_data
from evalkit.report.cells import is_final, make_cell, run_cell, unshown
from evalkit.report.ranks import rank_averages, rank_cells
from evalkit.scores import ScoreBook
from evalkit.task import load_task

if TYPE_CHECKING:
    import pandas as pd

_SCALES = {
    "full": "Models",
    "unknown": "Models not in the registry",
    "tiny": "Tiny scale: smoke tests of the harness, no statement about any model",
}
_TASK_ORDER = ("line_intersection", "line_tracing", "grid_patch", "pixmo_points", "refcoco")


def build_board(runs: "pd.DataFrame", book: ScoreBook) -> dict[str, Any]:
    """The document behind leaderboard.md, .html and .json; the same runs give the same document."""
    sections = [section for scale in _SCALES if (section := build_section(runs, scale, book)) is not None]
    listed = (
        []
        if runs.empty
        else sorted(_listed(runs), key=lambda r: (r["model"], r["task"], r["split"], r["run"]))
    )
    return {
        "newest": max((run["date"] for run in listed), default=None),
        "sections": sections,
        "runs": listed,
    }


def build_section(runs: "pd.DataFrame", scale: str, book: ScoreBook) -> dict[str, Any] | None:
    """Models x (task, split) of one scale; None where there are no runs."""
    runs = runs[runs["scale"] == scale]
    if runs.empty:
        return None
    columns = _columns(runs)
    rows: list[dict[str, Any]] = [
        _row(name, trained, group, columns, book) for (name, trained), group in _groups(runs)
    ]
    for at in range(len(columns)):
        rank_cells([row["cells"][at] for row in rows], book)
    rank_averages(rows, columns, book)
    rows.sort(key=lambda row: (row["average"] is None, -(row["average"] or 0), -row["final"], row["model"]))
    titles = [f"{column['title']}, {column['split']}" for column in columns]
    notes = [note for row in rows for note in unshown(row["title"], titles, row["cells"])]
    return {"scale": scale, "title": _SCALES[scale], "columns": columns, "rows": rows, "unshown": notes}


def _columns(runs: "pd.DataFrame") -> list[dict[str, Any]]:
    def order(key: tuple[str, str]) -> tuple[int, str, str]:
        place = _TASK_ORDER.index(key[0]) if key[0] in _TASK_ORDER else len(_TASK_ORDER)
        return place, key[0], key[1]

    keys = sorted(set(zip(runs["task"], runs["split"], strict=True)), key=order)
    return [
        _column(task, split, runs[(runs["task"] == task) & (runs["split"] == split)]) for task, split in keys
    ]


def _column(task: str, split: str, runs: "pd.DataFrame") -> dict[str, Any]:
    title = str(runs["task_title"].mode().iloc[0])  # one odd run does not name a column
    data = usual_data(runs)
    return {"task": task, "split": split, "title": title, "data": data} | column_facts(task, runs)


def column_facts(task: str, runs: "pd.DataFrame") -> dict[str, Any]:
    """chance and best_constant, of guessing and of the best answer given blindly.

    As the newest of these runs of the task has them, else as the task's file says today.
    """
    keys = ("chance", "best_constant")
    if not runs.empty:
        newest = run_cell(runs.sort_values(["when", "run"]).iloc[-1])
        return {key: newest[key] for key in keys}
    try:
        today = load_task(task)
    except ConfigError:
        return dict.fromkeys(keys)
    return {key: getattr(today, key) for key in keys}


def _groups(runs: "pd.DataFrame") -> Any:
    """One row a model; a checkpoint trained on another task than the column's is a row of its own."""
    elsewhere = runs["trained_on"].where(
        runs["trained_on"].notna() & (runs["trained_on"] != runs["task"]), ""
    )
    return runs.groupby([runs["model"], elsewhere])


def _row(
    name: str, trained_on: str, runs: "pd.DataFrame", columns: list[dict[str, Any]], book: ScoreBook
) -> dict[str, Any]:
    cells = [
        make_cell(
            runs[(runs["task"] == column["task"]) & (runs["split"] == column["split"])], column["data"], book
        )
        for column in columns
    ]
    final = [cell for cell in cells if cell is not None and is_final(cell)]
    return {
        "model": name,
        "title": str(runs["title"].iloc[0]),
        "trained_on": trained_on or None,
        "cells": cells,
        "final": len(final),
        "average": _average(columns, final) if len(final) == len(columns) > 1 else None,
        "rank": None,
        **_facts(runs),
        "cost_usd": sum(cell["cost_usd"] or 0 for cell in cells if cell)
        if any(cell and cell["cost_usd"] is not None for cell in cells)
        else None,
    }


def _facts(runs: "pd.DataFrame") -> dict[str, Any]:
    """What rows are filtered by: where the model runs, how it was trained, its size in billions of parameters."""
    newest = runs.sort_values(["when", "run"]).iloc[-1]
    objective, size = newest["objective"], newest["params_b"]
    imported = (runs["origin"] == "import").all()
    return {
        "where": "imported" if imported and newest["where"] != "api" else str(newest["where"]),
        "objective": objective if isinstance(objective, str) else None,
        "params_b": float(size) if isinstance(size, int | float) and size == size else None,
        "size": size_label(size),
    }


def size_label(params_b: Any) -> str:
    """A class of sizes to filter by; empty where the size is not known."""
    if not isinstance(params_b, int | float) or params_b != params_b:
        return ""
    bounds = ((1, "below 1 B"), (5, "1–5 B"), (10, "5–10 B"), (40, "10–40 B"))
    return next((label for bound, label in bounds if params_b < bound), "above 40 B")


def _average(columns: list[dict[str, Any]], cells: list[dict[str, Any]]) -> float:
    """The mean over tasks; a task with several splits counts once, with the mean of them."""
    by_task: dict[str, list[float]] = {}
    for column, cell in zip(columns, cells, strict=True):
        by_task.setdefault(column["task"], []).append(cell["accuracy"])
    return fmean(fmean(accuracies) for accuracies in by_task.values())


def _listed(runs: "pd.DataFrame") -> list[dict[str, Any]]:
    return [
        {key: run[key] for key in ("model", "title", "scale", "task", "task_title", "split", "where")}
        | {"objective": run["objective"] if isinstance(run["objective"], str) else None}
        | {"size": size_label(run["params_b"]), "train_seed": int(run["train_seed"])}
        | {"trained_on": run["trained_on"] if isinstance(run["trained_on"], str) else None}
        | run_cell(run)
        for _, run in runs.iterrows()
    ]
