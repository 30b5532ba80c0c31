"""Whether a model is better than the one in the row above: paired tests of a table's cells."""

from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.report.cells import is_final
from evalkit.scores import ScoreBook
from evalkit.stats import holm


def gain(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, book: ScoreBook
) -> dict[str, Any] | None:
    """The later cell against the earlier one, paired on sample and training seed; None without two final cells.

    The interval is of all seeds together, clustered by image. Each seed is tested by itself: seeds answer the
    same samples, and the largest p of them is the one that counts. A model without seeds (a base) stands
    against every seed of the other.
    """
    if before is None or after is None or not (is_final(dict(before)) and is_final(dict(after))):
        return None
    earlier = {one["seed"]: one["run"] for one in before["seeds"]}
    only = next(iter(earlier.values())) if len(earlier) == 1 else None
    seeds, pairs = [], []
    for one in after["seeds"]:
        run = earlier.get(one["seed"], only)
        two = (run, one["run"]) if run is not None else None
        found = book.pair(two) if two is not None else None
        if two is not None and found is not None:
            pairs.append(two)
            seeds.append(
                {
                    "seed": one["seed"],
                    "n": found.n,
                    "n_images": found.n_images,
                    "won": found.won,
                    "lost": found.lost,
                    "difference": found.difference,
                    "low": found.interval.low,
                    "high": found.interval.high,
                    "p": found.p,
                    "mcnemar_p": found.mcnemar_p,
                }
            )
    together = book.pair(*pairs) if pairs else None
    if together is None:
        return None
    return {
        "difference": together.difference,
        "low": together.interval.low,
        "high": together.interval.high,
        "seeds": seeds,
        "p": max(one["p"] for one in seeds),
        "by_image": any(one["n_images"] < one["n"] for one in seeds),
    }


def correct_together(gains: Sequence[dict[str, Any]]) -> None:
    """Holm's correction within a table: adds `p_holm` to each."""
    for one, p in zip(gains, holm([one["p"] for one in gains]), strict=True):
        one["p_holm"] = p
