"""The rows of stored runs in columns: what intervals and paired tests are made of, read once a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.records import VERDICTS
from evalkit.stats import Interval, mcnemar_by_image, mcnemar_exact, paired_interval
from evalkit.store import read_meta, read_rows

_CODES: dict[str, int] = {verdict: code for code, verdict in enumerate(VERDICTS)}
_CORRECT, _FAILED = _CODES["correct"], _CODES["failed"]


@dataclass(frozen=True)
class Scores:
    """One run in columns, in the order in which the replies came; n is the number of stored rows.

    sample_ids, clusters: n names each; verdicts: (n,) int8, places in VERDICTS; latencies_s: (n,) float64, NaN
    where a reply has no time of its own; values: of the keys that only some tasks have (iou, distance, ...) the
    (n,) float64, NaN where a row has none.
    """

    meta: Mapping[str, Any]
    sample_ids: Sequence[str]
    clusters: Sequence[str]
    verdicts: NDArray[np.int8]
    latencies_s: NDArray[np.float64]
    values: Mapping[str, NDArray[np.float64]]

    @property
    def n(self) -> int:
        return len(self.sample_ids)

    @cached_property
    def hits(self) -> NDArray[np.bool_]:
        return np.asarray(self.verdicts == _CORRECT)

    @cached_property
    def answered(self) -> dict[str, int]:
        """Sample id -> its place, of samples that have a reply."""
        failed = self.verdicts == _FAILED
        return {name: i for i, name in enumerate(self.sample_ids) if not failed[i]}

    def count(self, verdict: str) -> int:
        return int(np.count_nonzero(self.verdicts == _CODES[verdict]))


VALUES = ("correct_floor_cell", "iou", "beyond_image", "distance")


def read_scores(folder: Path) -> Scores:
    """Raises StoreError, or KeyError and TypeError where the rows are of another shape than a run's."""
    meta = read_meta(folder)
    names: list[str] = []
    clusters: list[str] = []
    verdicts: list[int] = []
    latencies: list[float] = []
    values: dict[str, list[float]] = {}
    for i, row in enumerate(read_rows(folder, fast=True)):
        names.append(row["sample_id"])
        clusters.append(row["cluster"])
        verdicts.append(_CODES[row["verdict"]])
        timed = row["verdict"] != "failed" and not row.get("batched")
        latencies.append(row["latency_s"] if timed else np.nan)
        for key in VALUES:
            if key in row:
                column = values.setdefault(key, [])
                column.extend([np.nan] * (i - len(column)))
                column.append(row[key])
    n = len(names)
    columns = {
        key: np.asarray(found + [np.nan] * (n - len(found)), np.float64) for key, found in values.items()
    }
    return Scores(
        meta,
        names,
        clusters,
        np.asarray(verdicts, np.int8),
        np.asarray(latencies, np.float64),
        columns,
    )


class ScoreBook:
    """The scores of the runs of a results folder, each read once; `run` is relative to it."""

    def __init__(self, results_dir: Path) -> None:
        self.results_dir = results_dir
        self._read: dict[str, Scores] = {}

    def of(self, run: str) -> Scores:
        if run not in self._read:
            self._read[run] = read_scores(self.results_dir / run)
        return self._read[run]


@dataclass(frozen=True, slots=True)
class Paired:
    """Two runs on the samples that both answered: `second` against `first`.

    p: exact, by image (`mcnemar_by_image`); mcnemar_p takes questions on one image as independent.
    """

    n: int
    n_images: int
    won: int
    lost: int
    difference: float
    interval: Interval
    p: float
    mcnemar_p: float


def pair(first: Scores, second: Scores) -> Paired | None:
    """None where the two share no answered sample; whether the data are the same is for the caller to see."""
    at_first, at_second = first.answered, second.answered
    shared = [(i, at_second[name]) for name, i in at_first.items() if name in at_second]
    if not shared:
        return None
    places = np.asarray(shared, np.intp)
    before, after = first.hits[places[:, 0]], second.hits[places[:, 1]]
    labels: dict[str, int] = {}
    images = np.asarray([labels.setdefault(first.clusters[i], len(labels)) for i, _ in shared], np.intp)
    won, lost = int((after & ~before).sum()), int((before & ~after).sum())
    gains = np.bincount(images, weights=after.astype(float) - before, minlength=len(labels))
    return Paired(
        n=len(shared),
        n_images=len(labels),
        won=won,
        lost=lost,
        difference=(won - lost) / len(shared),
        interval=paired_interval(after, before, images),
        p=mcnemar_by_image(np.rint(gains).astype(int)),
        mcnemar_p=mcnemar_exact(lost, won),
    )
