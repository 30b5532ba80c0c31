"""Runs -> the leaderboard's document: sections by scale, models x tasks, and every run."""

from statistics import fmean
from typing import TYPE_CHECKING, Any

from evalkit.leaderboard import usual_data
from evalkit.report.cells import is_final, make_cell, run_cell, unshown

if TYPE_CHECKING:
    import pandas as pd

_SCALES = {
    "full": "Models",
    "unknown": "Models not in the registry",
    "tiny": "Tiny scale: smoke tests of the harness, no statement about any model",
}
_TASK_ORDER = ("line_intersection", "line_tracing", "grid_patch", "pixmo_points", "refcoco")


def build_board(runs: "pd.DataFrame") -> dict[str, Any]:
    """The document behind leaderboard.md, .html and .json; the same runs give the same document."""
    sections = [section for scale in _SCALES if (section := build_section(runs, scale)) is not None]
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


def build_section(runs: "pd.DataFrame", scale: str) -> dict[str, Any] | None:
    """Models x (task, split) of one scale; None where there are no runs."""
    runs = runs[runs["scale"] == scale]
    if runs.empty:
        return None
    columns = _columns(runs)
    rows = [_row(name, trained, group, columns) for (name, trained), group in _groups(runs)]
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
    """chance and best_constant, of guessing and of the best answer given blindly, as the newest run has them."""
    newest = run_cell(runs.sort_values(["when", "run"]).iloc[-1])
    title = str(runs["task_title"].iloc[0])
    data = usual_data(runs)
    return {"task": task, "split": split, "title": title, "data": data} | {
        key: newest[key] for key in ("chance", "best_constant")
    }


def _groups(runs: "pd.DataFrame") -> Any:
    """One row a model; a checkpoint trained on another task than the column's is a row of its own."""
    elsewhere = runs["trained_on"].where(
        runs["trained_on"].notna() & (runs["trained_on"] != runs["task"]), ""
    )
    return runs.groupby([runs["model"], elsewhere])


def _row(name: str, trained_on: str, runs: "pd.DataFrame", columns: list[dict[str, Any]]) -> dict[str, Any]:
    cells = [
        make_cell(runs[(runs["task"] == column["task"]) & (runs["split"] == column["split"])], column["data"])
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
        "cost_usd": sum(cell["cost_usd"] or 0 for cell in cells if cell)
        if any(cell and cell["cost_usd"] is not None for cell in cells)
        else None,
    }


def _average(columns: list[dict[str, Any]], cells: list[dict[str, Any]]) -> float:
    """The mean over tasks; a task with several splits counts once, with the mean of them."""
    by_task: dict[str, list[float]] = {}
    for column, cell in zip(columns, cells, strict=True):
        by_task.setdefault(column["task"], []).append(cell["accuracy"])
    return fmean(fmean(accuracies) for accuracies in by_task.values())


def _listed(runs: "pd.DataFrame") -> list[dict[str, Any]]:
    return [
        {key: run[key] for key in ("model", "title", "scale", "task", "task_title", "split")}
        | {"trained_on": run["trained_on"] if isinstance(run["trained_on"], str) else None}
        | run_cell(run)
        for _, run in runs.iterrows()
    ]
