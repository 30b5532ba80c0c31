"""Ranks that say what cannot be told apart: from the first to the last place that a model may have.

A model's best place is one more than the models that are shown to be better than it, its worst that of the
models that it is shown to be better than, by paired tests on the same samples at 5 %, with Holm's correction
over all pairs of a column. Two models whose ranges overlap may still differ; no pair of them is shown to.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from evalkit.report.cells import is_final
from evalkit.scores import Paired, ScoreBook
from evalkit.stats import holm

LEVEL = 0.05


def rank_cells(cells: Sequence[dict[str, Any] | None], book: ScoreBook) -> None:
    """Gives `rank` [first, last] to the cells of a column that are final and not alone."""
    final = [cell for cell in cells if cell is not None and is_final(cell)]
    if len(final) < 2:
        return
    pairs = list(combinations(range(len(final)), 2))
    found = [_paired(final[i], final[j], book) for i, j in pairs]
    signs = [0.0 if one is None else one.difference for one in found]
    _place(final, pairs, signs, [1.0 if one is None else one.p for one in found])


def rank_averages(rows: Sequence[dict[str, Any]], columns: Sequence[dict[str, Any]], book: ScoreBook) -> None:
    """Adds `rank` to the rows with an average: by the mean over tasks of paired differences, as normal.

    The variance of each is that of the differences of its images; tasks are independent, splits of a task too.
    """
    ranked = [row for row in rows if row["average"] is not None]
    if len(ranked) < 2:
        return
    pairs = list(combinations(range(len(ranked)), 2))
    tests = [_average_test(ranked[i]["cells"], ranked[j]["cells"], columns, book) for i, j in pairs]
    _place(ranked, pairs, [sign for sign, _ in tests], [p for _, p in tests])


def _paired(first: dict[str, Any], second: dict[str, Any], book: ScoreBook) -> Paired | None:
    """The runs of two cells side by side, training seeds in their order, the shorter list over again."""
    a, b = ([one["run"] for one in cell["seeds"]] for cell in (first, second))
    return book.pair(*((a[i % len(a)], b[i % len(b)]) for i in range(max(len(a), len(b)))))


def _place(
    ranked: Sequence[dict[str, Any]],
    pairs: Sequence[tuple[int, int]],
    signs: Sequence[float],
    p_values: Sequence[float],
) -> None:
    """signs: above 0 where the second of a pair is better."""
    better = [0] * len(ranked)  # how many are shown to be better than this one
    worse = [0] * len(ranked)
    for (i, j), sign, p in zip(pairs, signs, holm(p_values), strict=True):
        if p < LEVEL:
            winner, loser = (j, i) if sign > 0 else (i, j)
            better[loser] += 1
            worse[winner] += 1
    for i, one in enumerate(ranked):
        one["rank"] = [better[i] + 1, len(ranked) - worse[i]]


def _average_test(
    first: Sequence[dict[str, Any]],
    second: Sequence[dict[str, Any]],
    columns: Sequence[dict[str, Any]],
    book: ScoreBook,
) -> tuple[float, float]:
    """(mean difference over tasks, two-sided p)."""
    tasks: dict[str, list[tuple[float, float]]] = {}
    for column, a, b in zip(columns, first, second, strict=True):
        found = _paired(a, b, book)
        tasks.setdefault(column["task"], []).append(
            (found.difference, found.variance) if found else (0.0, 1.0)
        )
    means = [sum(mean for mean, _ in tests) / len(tests) for tests in tasks.values()]
    variances = [sum(variance for _, variance in tests) / len(tests) ** 2 for tests in tasks.values()]
    difference, spread = sum(means) / len(means), math.sqrt(sum(variances)) / len(means)
    if spread == 0:
        return difference, 1.0 if difference == 0 else 0.0
    return difference, math.erfc(abs(difference) / spread / math.sqrt(2))
