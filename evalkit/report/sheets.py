"""Tables as CSV that is safe to open in a spreadsheet: a file a table, rows as in the paper."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.report.notes import state
from evalkit.report.pages import plain

# A cell that begins with one of these is a formula to a spreadsheet (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "|", "%")


def safe(text: Any) -> str:
    """Text of a cell that no spreadsheet takes for a formula; a quote goes before what one would."""
    shown = plain(text, longest=2_000)
    return f"'{shown}" if shown.lstrip(" '\ufffd").startswith(_FORMULA) else shown


def table_csv(table: Mapping[str, Any], links: Mapping[str, str]) -> str:
    """One of the tables: group, method, model, then of each column all that its cell holds.

    Accuracies, intervals and differences are in percent and points, or ratios, as `unit` of the table says.
    """
    names = _per_cell(table["unit"])
    head = ["group", "method", "model"] + [
        f"{column['title']}: {name}" for column in table["columns"] for name in names
    ]
    rows = [
        [group["name"], row["label"], row["model"]]
        + [value for cell in row["cells"] for value in _values(cell, table["unit"], links)]
        for group in table["groups"]
        for row in group["rows"]
    ]
    if table["unit"] == "percent":
        for key, label in (("chance", "Chance"), ("best_constant", "Best constant answer")):
            blind = [
                [None] * names.index("ours") + [_percent(column[key])] + [None] * (len(names) - 1 - names.index("ours"))
                for column in table["columns"]
            ]  # fmt: skip
            rows.append(["", label, "", *(value for values in blind for value in values)])
    return _written([head, *rows])


def _per_cell(unit: str) -> list[str]:
    names = ["paper", "ours", "difference", "excludes paper", "state", "low", "high", "n"]
    return names if unit == "ratio" else [*names, "correct", "n of split", "imported", "run", "page"]


def _values(cell: Mapping[str, Any], unit: str, links: Mapping[str, str]) -> list[Any]:
    ours = cell["ours"]
    excludes = None if cell["excludes"] is None else "yes" if cell["excludes"] else "no"
    front = [cell["paper"], None, cell["difference"], excludes, state(ours)]
    if ours is None:
        return front + [None] * (len(_per_cell(unit)) - len(front))
    if unit == "ratio":
        front[1] = round(ours["value"], 6)
        return [*front, round(ours["low"], 6), round(ours["high"], 6), ours["n"]]
    done = state(ours) != "unfinished"
    front[1] = _percent(ours["accuracy"]) if done else None
    interval = [_percent(ours["low"]), _percent(ours["high"])] if done else [None, None]
    run = "; ".join(one["run"] for one in ours["seeds"])
    imported = "yes" if ours["origin"] == "import" else "no"
    return [*front, *interval, ours["n"], ours["correct"], ours["n_split"], imported, run, links[ours["run"]]]


def gains_csv(tables: Sequence[Mapping[str, Any]]) -> str:
    """The paired tests of all tables, a row a training seed."""
    head = [
        "table", "group", "method", "against", "column", "paper gain", "seed", "gain", "low", "high", "won", "lost",
        "n", "images", "p", "mcnemar p", "p of the step", "p, holm",
    ]  # fmt: skip
    rows = [
        [table["number"], gain["group"], gain["label"], gain["against"], gain["column"], gain["paper"], one["seed"]]
        + [_percent(one[key]) for key in ("difference", "low", "high")]
        + [one[key] for key in ("won", "lost", "n", "n_images", "p", "mcnemar_p")]
        + [gain["p"], gain["p_holm"]]
        for table in tables
        for gain in table["gains"]
        for one in gain["seeds"]
    ]  # fmt: skip
    return _written([head, *rows])


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else round(100 * fraction, 6)


def _written(rows: Sequence[Sequence[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for row in rows:
        writer.writerow(
            "" if value is None else value if isinstance(value, int | float) else safe(value) for value in row
        )
    return file.getvalue()
