"""The paper's Tables 1-5 at another scale: ours alone, in the paper's layout, with seeds and paired tests.

A printed number never stands beside one of these: other models, other sizes of data.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from evalkit.leaderboard import usual_data
from evalkit.probes import Probe, norm_ratio, paper_probes
from evalkit.report.figures import STAGES, Trio, own
from evalkit.report.paper import Column, Group, Paper, PaperTable
from evalkit.stats import accuracy_interval, holm, mcnemar_exact
from evalkit.store import read_rows

if TYPE_CHECKING:
    import pandas as pd


def trios(paper: Paper, prefix: str) -> list[Trio]:
    """Base, NTP and NTP + KLAL of each family that the paper fine-tunes, by the registry's names at a scale."""
    found: dict[str, Trio] = {}
    for group in (group for table in paper.tables for group in table.groups):
        if len(group.rows) >= 3 and all(row.fine_tuned for row in group.rows[1:]):
            family = group.rows[0].model.removesuffix("-base")
            models = {stage: f"{prefix}{family}-{stage}" for stage in STAGES}
            found.setdefault(family, Trio(_title(group.name, prefix), family, models))
    return list(found.values())


def _title(name: str, prefix: str) -> str:
    """At other scales a group is named by its architecture, not by the 7B model."""
    return name.partition("-7B")[0] if prefix else name


def build_replica(
    paper: Paper, runs: "pd.DataFrame", results_dir: Path, scale: Mapping[str, str]
) -> dict[str, Any]:
    """The document behind RESULTS/tables/<scale>.{md,html}. scale: name, prefix, title, about."""
    of_scale = {name for trio in trios(paper, scale["prefix"]) for name in trio.models.values()}
    here = runs[runs["model"].isin(of_scale) & (runs["origin"] == "run")]
    by_family = {trio.family: trio for trio in trios(paper, scale["prefix"])}
    return {
        "scale": dict(scale),
        "source": paper.source,
        "tables": [_table(table, by_family, here, results_dir) for table in paper.tables],
        "ran_on": _ran_on(here, results_dir),
        "tested_on": sorted({f"{run['task_title']} {run['n']}" for _, run in here.iterrows()}),
        "left_out": _left_out(paper, here),
    }


def _left_out(paper: Paper, runs: "pd.DataFrame") -> list[str]:
    """The tasks of the paper without any run."""
    tasks = dict.fromkeys(column.task for table in paper.tables for column in table.columns)
    return [task for task in tasks if task not in set(runs["task"])]


def _ran_on(runs: "pd.DataFrame", results_dir: Path) -> list[str]:
    """Hardware and versions, once for all runs that share them."""
    from evalkit.store import read_meta

    lines = set()
    for name in runs["run"]:
        ran = read_meta(results_dir / name)["ran_on"]
        lines.add(
            f"{ran.get('system')} {ran.get('machine')}, {ran.get('cpus')} CPUs, device {ran.get('device')}, "
            f"torch {ran.get('torch')}, transformers {ran.get('transformers')}"
        )
    return sorted(lines)


def _table(
    table: PaperTable, by_family: Mapping[str, Trio], runs: "pd.DataFrame", results_dir: Path
) -> dict[str, Any]:
    groups: list[dict[str, Any]] = []
    gains: list[dict[str, Any]] = []
    for group in table.groups:
        trio = by_family.get(group.rows[0].model.rpartition("-")[0])
        if trio is not None:
            make = _ratio_rows if table.unit == "ratio" else _accuracy_rows
            rows = make(table, group, trio, runs, results_dir)
            gains += [gain for row in rows for gain in row["gains"]]
            groups.append({"name": trio.title, "rows": rows})
    _holm(gains)
    return {
        "number": table.number,
        "title": table.title,
        "unit": table.unit,
        "columns": [column.title for column in table.columns],
        "groups": groups,
    }


def _accuracy_rows(
    table: PaperTable, group: Group, trio: Trio, runs: "pd.DataFrame", results_dir: Path
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    before: list[dict[str, Any] | None] = []
    for row, stage in zip(group.rows, STAGES, strict=True):
        model = trio.models[stage]
        cells = [_cell(_about(runs, model, column), results_dir) for column in table.columns]
        gains = []
        for column, earlier, cell in zip(table.columns, before, cells, strict=False):
            if earlier is not None and cell is not None:
                gains.append(_gain(column.title, earlier, cell))
        rows.append({"label": row.label, "model": model, "cells": cells, "gains": gains})
        before = cells
    return [{**row, "cells": [_shown(cell) for cell in row["cells"]]} for row in rows]


def _about(runs: "pd.DataFrame", model: str, column: Column) -> "pd.DataFrame":
    """The model's runs of a column, on the data that most models were run on: pairs need the same samples."""
    of_column = runs[(runs["task"] == column.task) & (runs["split"] == column.split)]
    here = of_column[(of_column["model"] == model) & (of_column["dataset"] == usual_data(of_column))]
    trained = here["trained_on"]
    return here[trained.isna() | (trained == (column.trained_on or column.task))]


def _cell(runs: "pd.DataFrame", results_dir: Path) -> dict[str, Any] | None:
    """All training seeds of a model on a task; of several runs of a seed the newest that is complete."""
    if runs.empty:
        return None
    complete = runs.assign(_complete=runs["status"] == "complete")
    ordered = complete.sort_values(["_complete", "when", "run"], ascending=[False, False, True])
    seeds = ordered.drop_duplicates("train_seed").sort_values("train_seed")
    rows = {int(run["train_seed"]): list(read_rows(results_dir / run["run"])) for _, run in seeds.iterrows()}
    hits = [row["verdict"] == "correct" for found in rows.values() for row in found]
    clusters = [str(row["cluster"]) for found in rows.values() for row in found]
    interval = accuracy_interval(hits, clusters)
    return {
        "seeds": [
            {
                "seed": int(run["train_seed"]),
                "correct": int(run["correct"]),
                "n": int(run["n"]),
                "accuracy": float(run["accuracy"]),
                "status": str(run["status"]),
                "run": str(run["run"]),
            }
            for _, run in seeds.iterrows()
        ],
        "accuracy": fmean(float(accuracy) for accuracy in seeds["accuracy"]),
        "correct": int(seeds["correct"].sum()),
        "n": int(seeds["n"].sum()),
        "low": interval.low,
        "high": interval.high,
        "interval": interval.method,
        "chance": float(seeds["chance"].iloc[0]) if seeds["chance"].notna().all() else None,
        "status": "complete" if (seeds["status"] == "complete").all() else "unfinished",
        "rows": rows,
    }


def _shown(cell: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if cell is None else {key: value for key, value in cell.items() if key != "rows"}


def _gain(title: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The later model against the earlier one, paired on sample and seed.

    McNemar's exact test a seed; the seeds answer the same samples, so that their tests are not pooled:
    the largest p of them is the one that counts.
    """
    seeds = []
    for seed, rows in after["rows"].items():
        earlier = {row["sample_id"]: row["verdict"] == "correct" for row in before["rows"].get(seed, [])}
        pairs = [
            (earlier[r["sample_id"]], r["verdict"] == "correct") for r in rows if r["sample_id"] in earlier
        ]
        if pairs:
            lost, won = pairs.count((True, False)), pairs.count((False, True))
            seeds.append(
                {"seed": seed, "n": len(pairs), "won": won, "lost": lost, "p": mcnemar_exact(lost, won)}
            )
    return {
        "column": title,
        "difference": after["accuracy"] - before["accuracy"],
        "seeds": seeds,
        "p": max((one["p"] for one in seeds), default=1.0),
    }


def _holm(gains: Sequence[dict[str, Any]]) -> None:
    """Holm's correction within a table: adds `p_holm` to each."""
    for gain, p in zip(gains, holm([gain["p"] for gain in gains]), strict=True):
        gain["p_holm"] = p


def _ratio_rows(
    table: PaperTable, group: Group, trio: Trio, runs: "pd.DataFrame", results_dir: Path
) -> list[dict[str, Any]]:
    """Table 5 from probes of Line Intersection: one row a stage, the mean over seeds."""
    probes = [
        p for p in paper_probes(results_dir) if p.meta["task"]["name"] == table.columns[0].task and own(p)
    ]
    rows = []
    for stage in STAGES[1:]:
        found = _ratios(probes, trio, stage)
        cell = None
        if found:
            cell = {
                "value": fmean(one["value"] for one in found),
                "seeds": found,
                "low": min(one["low"] for one in found),
                "high": max(one["high"] for one in found),
                "n": found[0]["n"],
            }
        label = next((r.label for r in group.rows if r.model.endswith(stage)), stage)
        rows.append({"label": label, "model": trio.models[stage], "cells": [cell], "gains": []})
    return rows


def _ratios(probes: Sequence[Probe], trio: Trio, stage: str) -> list[dict[str, Any]]:
    bases = {probe.seed: probe for probe in probes if probe.model == trio.models["base"]}
    found = []
    for probe in sorted((p for p in probes if p.model == trio.models[stage]), key=lambda p: p.seed):
        base = bases.get(probe.seed) or bases.get(0)
        ratio = norm_ratio(probe, base) if base is not None else None
        if ratio is not None:
            found.append({"seed": probe.seed, **ratio})
    return found
