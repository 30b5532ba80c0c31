"""The paper's Tables 1-5, ours beside the printed numbers."""

from typing import TYPE_CHECKING, Any

from evalkit.leaderboard import usual_data
from evalkit.report.board import build_section
from evalkit.report.cells import make_cell, unshown
from evalkit.report.paper import Column, Paper, PaperRow, PaperTable

if TYPE_CHECKING:
    import pandas as pd


def build_tables(paper: Paper, runs: "pd.DataFrame") -> dict[str, Any]:
    """The document behind tables.md and tables.html.

    Only full-scale models stand beside the paper's numbers; tiny ones get a section of their own.
    """
    full = runs[runs["scale"] != "tiny"]
    return {
        "source": paper.source,
        "tables": [_table(table, full) for table in paper.tables],
        "tiny": build_section(runs, "tiny"),
    }


def _table(table: PaperTable, runs: "pd.DataFrame") -> dict[str, Any]:
    data = [usual_data(runs[_about(column, runs)]) for column in table.columns]
    groups: list[dict[str, Any]] = [
        {"name": group.name, "rows": [_row(table, row, data, runs) for row in group.rows]}
        for group in table.groups
    ]
    titles = [column.title for column in table.columns]
    return {
        "number": table.number,
        "title": table.title,
        "unit": table.unit,
        "columns": [column.model_dump() for column in table.columns],
        "groups": groups,
        "unshown": [
            note
            for group, rows in zip(table.groups, groups, strict=True)
            for row in rows["rows"]
            for note in unshown(f"{group.name}, {row['label']}", titles, [c["ours"] for c in row["cells"]])
        ],
    }


def _row(table: PaperTable, row: PaperRow, data: list[str | None], runs: "pd.DataFrame") -> dict[str, Any]:
    """data: per column the fingerprint of the data that the column is about."""
    ours = [
        make_cell(runs[_about(column, runs) & _regenerates(row, column, runs)], fingerprint)
        if table.unit == "percent"  # ratios (Table 5) are no accuracies: no evaluation run fills them
        else None
        for column, fingerprint in zip(table.columns, data, strict=True)
    ]
    cells = [{"paper": value, "ours": cell} for value, cell in zip(row.values, ours, strict=True)]
    return {"label": row.label, "model": row.model, "cells": cells}


def _about(column: Column, runs: "pd.DataFrame") -> "pd.Series[bool]":
    return (runs["task"] == column.task) & (runs["split"] == column.split)


def _regenerates(row: PaperRow, column: Column, runs: "pd.DataFrame") -> "pd.Series[bool]":
    """Runs of the row's model, trained as the printed number was.

    Outside of transfer a fine-tuned model's run may name no training task: imported replies know of none.
    """
    here, untrained = runs["model"] == row.model, runs["trained_on"].isna()
    if not row.fine_tuned:
        return here & untrained
    if column.trained_on is None:
        return here & (untrained | (runs["trained_on"] == column.task))
    return here & (runs["trained_on"] == column.trained_on)
