"""The rows of stored runs in columns: what intervals and paired tests are made of, read once a run."""

from collections.abc import Mapping
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
VALUES = ("correct_floor_cell", "iou", "beyond_image", "distance")


@dataclass(frozen=True)
class Scores:
    """One run in columns, in the order in which the replies came; n is the number of stored rows.

    samples, images: (n,) numbers that a ScoreBook gave to names, the same in all its runs; verdicts: (n,) int8,
    places in VERDICTS; latencies_s: (n,) float64, NaN where a reply has no time of its own; values: of the keys
    that only some tasks have (iou, distance, ...) the (n,) float64, NaN where a row has none.
    """

    meta: Mapping[str, Any]
    samples: NDArray[np.intp]
    images: NDArray[np.intp]
    verdicts: NDArray[np.int8]
    latencies_s: NDArray[np.float64]
    values: Mapping[str, NDArray[np.float64]]

    @property
    def n(self) -> int:
        return len(self.samples)

    @cached_property
    def hits(self) -> NDArray[np.bool_]:
        return np.asarray(self.verdicts == _CORRECT)

    @cached_property
    def answered(self) -> NDArray[np.bool_]:
        return np.asarray(self.verdicts != _FAILED)

    def count(self, verdict: str) -> int:
        return int(np.count_nonzero(self.verdicts == _CODES[verdict]))


class ScoreBook:
    """The scores of the runs of a results folder, each read once; `run` is relative to it."""

    def __init__(self, results_dir: Path) -> None:
        self.results_dir = results_dir
        self._read: dict[str, Scores] = {}
        self._samples: dict[str, int] = {}
        self._images: dict[str, int] = {}
        self._pairs: dict[tuple[tuple[str, str], ...], Paired | None] = {}

    def pair(self, *runs: tuple[str, str]) -> "Paired | None":
        """`pair` of runs by their names, each computed once."""
        if runs not in self._pairs:
            self._pairs[runs] = pair(*((self.of(first), self.of(second)) for first, second in runs))
        return self._pairs[runs]

    def of(self, run: str) -> Scores:
        """Raises StoreError, or KeyError, TypeError, ValueError where the rows are of another shape than a run's."""
        if run not in self._read:
            self._read[run] = self._scores(self.results_dir / run)
        return self._read[run]

    def _scores(self, folder: Path) -> Scores:
        meta = read_meta(folder)
        samples: list[int] = []
        images: list[int] = []
        verdicts: list[int] = []
        latencies: list[float] = []
        values: dict[str, list[float]] = {}
        # row by row: thousands of rows kept at once would take the garbage collector longer than all the rest
        for i, row in enumerate(read_rows(folder, fast=True)):
            samples.append(self._samples.setdefault(row["sample_id"], len(self._samples)))
            images.append(self._images.setdefault(row["cluster"], len(self._images)))
            verdicts.append(_CODES[row["verdict"]])
            timed = row["verdict"] != "failed" and not row.get("batched")
            latencies.append(row["latency_s"] if timed else np.nan)
            for key in VALUES:
                if key in row:
                    column = values.setdefault(key, [])
                    column.extend([np.nan] * (i - len(column)))
                    column.append(row[key])
        n = len(samples)
        return Scores(
            meta,
            np.asarray(samples, np.intp),
            np.asarray(images, np.intp),
            np.asarray(verdicts, np.int8),
            np.asarray(latencies, np.float64),
            {
                key: np.asarray(found + [np.nan] * (n - len(found)), np.float64)
                for key, found in values.items()
            },
        )


@dataclass(frozen=True, slots=True)
class Paired:
    """Two runs on the samples that both answered: the second against the first.

    p: exact, by image (`mcnemar_by_image`); mcnemar_p takes questions on one image as independent.
    variance: of the difference, images being the units.
    """

    n: int
    n_images: int
    won: int
    lost: int
    difference: float
    variance: float
    interval: Interval
    p: float
    mcnemar_p: float


def pair(*runs: tuple[Scores, Scores]) -> Paired | None:
    """The second of each two runs against the first; of several twos (training seeds) their answers together.

    Both of a two are of one book. Questions on one image are one unit whatever the seed. None where there is no
    sample that both of a two answered; whether the data are the same is for the caller to see.
    """
    found = [_shared(first, second) for first, second in runs]
    before, after, images = (np.concatenate([one[i] for one in found]) for i in range(3))
    if not len(images):
        return None
    won, lost = int((after & ~before).sum()), int((before & ~after).sum())
    sizes = np.bincount(images)
    gains = np.bincount(images, weights=after.astype(float) - before)[sizes > 0].astype(np.float64)
    sizes = sizes[sizes > 0]
    p = mcnemar_by_image(np.rint(gains).astype(int))
    return Paired(
        n=len(images),
        n_images=len(gains),
        won=won,
        lost=lost,
        difference=(won - lost) / len(images),
        variance=_variance(gains, sizes),
        interval=paired_interval(after, before, images),
        p=p,
        mcnemar_p=p if len(gains) == len(images) else mcnemar_exact(lost, won),
    )


def _variance(sums: NDArray[np.float64], sizes: NDArray[np.intp]) -> float:
    """Of a mean over questions, from the sums and numbers of questions of each image (CR1); 1 of one image."""
    m, n = len(sums), sizes.sum()
    return 1.0 if m < 2 else float(m / (m - 1) * ((sums - sums.sum() / n * sizes) ** 2).sum() / n**2)


def _shared(first: Scores, second: Scores) -> tuple[Any, Any, Any]:
    """(k,) hits of either on the samples that both answered, and the image of each."""
    places = np.full(1 + max(first.samples.max(initial=0), second.samples.max(initial=0)), -1)
    places[second.samples[second.answered]] = np.flatnonzero(second.answered)
    there = places[first.samples]
    both = first.answered & (there >= 0)
    return first.hits[both], second.hits[there[both]], first.images[both]
