"""The paper's Tables 1-5: at its own scale ours beside the printed numbers, at another scale ours alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.leaderboard import usual_data
from evalkit.probes import Probe, find_probes, own, paper_probes
from evalkit.report.board import build_section, column_facts
from evalkit.report.cells import is_final, make_cell, unshown
from evalkit.report.gains import correct_together, gain
from evalkit.report.notes import table_notes
from evalkit.report.paper import Column, Group, Paper, PaperRow, PaperTable
from evalkit.report.ratios import ratio_cell
from evalkit.report.trios import group_title, trios
from evalkit.scores import ScoreBook
from evalkit.store import read_meta

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class _Input:
    """runs: those of the table's scale; prefix: of the registry's names at that scale, empty at the paper's."""

    runs: "pd.DataFrame"
    book: ScoreBook
    probes: Sequence[Probe]
    prefix: str


def build_tables(
    paper: Paper, runs: "pd.DataFrame", book: ScoreBook, scale: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The document behind tables.{md,html,tex} and table<N>.csv; the same runs give the same document.

    scale: name, prefix, title, about of another scale than the paper's: a printed number never stands beside
    one of these, nor does a tiny model's beside the paper's; those get a section of their own.
    """
    prefix = scale["prefix"] if scale else ""
    if prefix:
        names = {name for trio in trios(paper, prefix) for name in trio.models.values()}
        here = runs[runs["model"].isin(names) & (runs["origin"] == "run")]
    else:
        here = runs[~runs["scale"].isin(["tiny", "small"])]
    given = _Input(
        here, book, paper_probes(book.results_dir, find_probes(book.results_dir, lenient=True)), prefix
    )
    return {
        "source": paper.source,
        "scale": dict(scale) if prefix and scale else None,
        "tables": [_table(table, paper, given) for table in paper.tables],
        "tiny": None if prefix else build_section(runs, "tiny", book),
        "ran_on": _ran_on(here, book.results_dir),
        "tested_on": sorted({f"{run['task_title']} {run['n']}" for _, run in here.iterrows()}),
        "left_out": _left_out(paper, here),
    }


def _left_out(paper: Paper, runs: "pd.DataFrame") -> list[str]:
    """The tasks of the paper without any run."""
    tasks = dict.fromkeys(column.task for table in paper.tables for column in table.columns)
    return [task for task in tasks if task not in set(runs["task"])]


def _ran_on(runs: "pd.DataFrame", results_dir: Path) -> list[str]:
    """Hardware and versions, once for all runs that share them."""
    lines = set()
    for name in runs["run"]:
        ran = read_meta(results_dir / name).get("ran_on") or {}
        if ran.get("torch"):
            lines.add(
                f"{ran.get('system')} {ran.get('machine')}, {ran.get('cpus')} CPUs, device {ran.get('device')}, "
                f"torch {ran.get('torch')}, transformers {ran.get('transformers')}"
            )
    return sorted(lines)


def _table(table: PaperTable, paper: Paper, given: _Input) -> dict[str, Any]:
    families = {trio.family for trio in trios(paper, given.prefix)}
    groups = [
        group
        for group in table.groups
        if not given.prefix or group.rows[0].model.rpartition("-")[0] in families
    ]
    data = [usual_data(given.runs[_about(column, given.runs)]) for column in table.columns]
    built = [_group(table, group, data, given) for group in groups]
    gains = [
        one for group, rows in zip(groups, built, strict=True) for one in _gains(table, group, rows, given)
    ]
    correct_together(gains)
    titles = [column.title for column in table.columns]
    return {
        "number": table.number,
        "title": table.title,
        "unit": table.unit,
        "columns": [_column(column, table, given) for column in table.columns],
        "groups": built,
        "gains": gains,
        "notes": table_notes(cell for group in built for row in group["rows"] for cell in row["cells"]),
        "unshown": [
            note
            for group in built
            for row in group["rows"]
            for note in unshown(f"{group['name']}, {row['label']}", titles, [c["ours"] for c in row["cells"]])
        ],
    }


def _column(column: Column, table: PaperTable, given: _Input) -> dict[str, Any]:
    blind = (
        column_facts(column.task, given.runs[_about(column, given.runs)])
        if table.unit == "percent"
        else {"chance": None, "best_constant": None}
    )
    return column.model_dump() | blind


def _group(table: PaperTable, group: Group, data: Sequence[str | None], given: _Input) -> dict[str, Any]:
    rows = [_row(table, row, data, given) for row in group.rows]
    return {"name": group_title(group.name, given.prefix), "rows": rows}


def _row(table: PaperTable, row: PaperRow, data: Sequence[str | None], given: _Input) -> dict[str, Any]:
    """data: per column the fingerprint of the data that the column is about."""
    model = given.prefix + row.model
    cells = []
    for value, column, fingerprint in zip(row.values, table.columns, data, strict=True):
        if table.unit == "ratio":
            ours = _ratio(model, column, given)
        else:
            ours = make_cell(
                given.runs[_about(column, given.runs) & _regenerates(row, model, column, given.runs)],
                fingerprint,
                given.book,
            )
        cells.append(_beside(None if given.prefix else value, ours, table.unit))
    return {"label": row.label, "model": model, "cells": cells}


def _beside(paper: float | None, ours: dict[str, Any] | None, unit: str) -> dict[str, Any]:
    """paper: in percent, or a ratio; difference: ours less the paper's, in points or as a ratio.

    excludes: our 95 % interval does not hold the printed value. None where there is nothing to compare.
    """
    comparable = paper is not None and ours is not None and (unit == "ratio" or is_final(ours))
    if not comparable or ours is None or paper is None:
        return {"paper": paper, "ours": ours, "difference": None, "excludes": None}
    scale = 1 if unit == "ratio" else 100
    value = ours["value"] if unit == "ratio" else ours["accuracy"]
    # a printed value is rounded to two decimals: it is excluded where all it may have been lies outside
    outside = paper + 0.005 < scale * ours["low"] or paper - 0.005 > scale * ours["high"]
    return {"paper": paper, "ours": ours, "difference": scale * value - paper, "excludes": outside}


def _ratio(model: str, column: Column, given: _Input) -> dict[str, Any] | None:
    family = model.rpartition("-")[0]
    probes = [p for p in given.probes if p.meta["task"]["name"] == column.task and own(p)]
    return ratio_cell([p for p in probes if p.meta["split"] == column.split], model, f"{family}-base")


def _gains(table: PaperTable, group: Group, built: Mapping[str, Any], given: _Input) -> list[dict[str, Any]]:
    """Every fine-tuned row against the row above."""
    if table.unit != "percent":
        return []
    found = []
    for i in range(1, len(group.rows)):
        if not group.rows[i].fine_tuned:
            continue
        for column, before, after in zip(
            table.columns, built["rows"][i - 1]["cells"], built["rows"][i]["cells"], strict=True
        ):
            one = gain(before["ours"], after["ours"], given.book)
            if one is not None:
                printed = before["paper"], after["paper"]
                found.append(
                    {
                        "group": built["name"],
                        "label": group.rows[i].label,
                        "against": group.rows[i - 1].label,
                        "column": column.title,
                        "paper": None if None in printed else (printed[1] or 0) - (printed[0] or 0),
                        **one,
                    }
                )
    return found


def _about(column: Column, runs: "pd.DataFrame") -> "pd.Series[bool]":
    return (runs["task"] == column.task) & (runs["split"] == column.split)


def _regenerates(row: PaperRow, model: str, column: Column, runs: "pd.DataFrame") -> "pd.Series[bool]":
    """Runs of the row's model, trained as the printed number was.

    Outside of transfer a fine-tuned model's run may name no training task: imported replies know of none.
    """
    here, untrained = runs["model"] == model, runs["trained_on"].isna()
    if not row.fine_tuned:
        return here & untrained
    if column.trained_on is None:
        return here & (untrained | (runs["trained_on"] == column.task))
    return here & (runs["trained_on"] == column.trained_on)
