"""The paper's Tables 1-5, ours beside the printed numbers."""

from typing import TYPE_CHECKING, Any

from evalkit.report.board import build_section
from evalkit.report.cells import make_cell
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
    return {
        "number": table.number,
        "title": table.title,
        "unit": table.unit,
        "columns": [column.model_dump() for column in table.columns],
        "groups": [
            {
                "name": group.name,
                "rows": [
                    {
                        "label": row.label,
                        "model": row.model,
                        "cells": [
                            {"paper": value, "ours": _ours(table, row, column, runs)}
                            for value, column in zip(row.values, table.columns, strict=True)
                        ],
                    }
                    for row in group.rows
                ],
            }
            for group in table.groups
        ],
    }


def _ours(table: PaperTable, row: PaperRow, column: Column, runs: "pd.DataFrame") -> dict[str, Any] | None:
    """Our run for a printed number. Ratios (Table 5) are no accuracies: no run fills them."""
    if table.unit != "percent":
        return None
    fits = (runs["model"] == row.model) & (runs["task"] == column.task) & (runs["split"] == column.split)
    nowhere = runs["trained_on"].isna()
    if not row.fine_tuned:
        fits &= nowhere
    elif column.trained_on is None:
        fits &= nowhere | (runs["trained_on"] == column.task)
    else:
        fits &= runs["trained_on"] == column.trained_on
    return make_cell(runs[fits])
