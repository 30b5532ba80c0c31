"""Stored probes: what a model attends to when it answers, sample by sample, and what follows from them.

    RESULTS/probes/<model>/<task>-<split>[-trained_on-<task>]-<hash8>/
        rows.jsonl   one line a probed sample
        probe.json   model, task, data, how it was probed, on what it ran, and the summary
        maps.npz     attention and norm maps of a few samples, for figures

A row has sample_id, cluster, n_visual, n_target, answer (the text that was probed), verdict, and, per layer
of the language model, `ratio` and `share`; then `norm_target` and `norm_visual`:

    ratio   mean attention of the target tokens / mean attention of all visual tokens (Fig. 4), with the
            attention of Eq. 3 (renormalised over the visual tokens, averaged over heads)
    share   which part of the answer token's whole attention goes to visual tokens, averaged over heads
    norm_*  mean L2 norm of the target tokens, and of all visual tokens, after the last layer (Table 5)
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import StoreError
from evalkit.stats import Interval, cluster_bootstrap, paired_ratio

_LOG = logging.getLogger(__name__)
PROBE_FILE, ROWS_FILE, MAPS_FILE = "probe.json", "rows.jsonl", "maps.npz"
_MAP_NAMES = ("sample_ids", "grids", "extents_xyxy", "attention", "norm")


@dataclass(frozen=True, slots=True)
class Probe:
    """One stored probe."""

    folder: Path
    meta: dict[str, Any]
    rows: dict[str, dict[str, Any]]  # by sample id

    @property
    def model(self) -> str:
        return str(self.meta["model"]["name"])

    @property
    def seed(self) -> int:
        return int((self.meta.get("training") or {}).get("seed", 0))


def read_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of a probe, finished or not; a torn last line, left by a kill, is dropped."""
    path = folder / ROWS_FILE
    if not path.is_file():
        return {}
    rows = {}
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            rows[str(row["sample_id"])] = row
        except (ValueError, TypeError, KeyError):
            if number == len(lines):
                break
            raise StoreError(f"{path}:{number}: not a row of a probe.") from None
    return rows


def read_probe(folder: Path) -> Probe:
    """A finished probe. Raises StoreError."""
    path = folder / PROBE_FILE
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        _check(meta)
        return Probe(folder, meta, {k: row for k, row in read_rows(folder).items() if "ratio" in row})
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}).") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: not a probe as evalkit writes it ({error!r}).") from None


def _check(meta: dict[str, Any]) -> None:
    """What tables and figures rely on. Raises KeyError, TypeError, AttributeError or ValueError."""
    texts = (
        meta["model"]["name"], meta["task"]["name"], meta["task"]["title"], meta["split"], meta["run"],
        meta["dataset"]["name"], meta["dataset"]["fingerprint"], meta["trained_on"] or "",
    )  # fmt: skip
    if not all(isinstance(text, str) for text in texts) or not isinstance(meta["summary"]["n"], int):
        raise TypeError("a name is no text, or n no number")
    if meta["summary"]["n"]:
        ratio = meta["summary"]["ratio"]
        if not all(isinstance(ratio[key], int | float) for key in ("value", "low", "high")):
            raise TypeError("the ratio is no number")
    int((meta.get("training") or {}).get("seed", 0))


def find_probes(results_dir: Path, *, lenient: bool = False) -> list[Probe]:
    """Every finished probe below RESULTS/probes, by folder name.

    lenient: one that cannot be read is named in a warning and left out, instead of raising StoreError.
    """
    found = []
    for folder in sorted(path.parent for path in (results_dir / "probes").glob(f"*/*/{PROBE_FILE}")):
        try:
            found.append(read_probe(folder))
        except StoreError as error:
            if not lenient:
                raise
            _LOG.warning("%s: left out: %s", folder, error)
    return found


def paper_probes(results_dir: Path, probes: Sequence[Probe] | None = None) -> list[Probe]:
    """Probes as the paper has them: of the model's own answers, at the last answer token.

    One of each model, task, split, training task and seed: the newest.
    """
    found: dict[tuple[Any, ...], Probe] = {}
    for probe in sorted(
        find_probes(results_dir) if probes is None else probes, key=lambda p: str(p.meta.get("ended", ""))
    ):
        meta = probe.meta
        if (meta.get("answer", "reply"), meta.get("query", "last_answer")) == ("reply", "last_answer"):
            found[probe.model, meta["task"]["name"], meta["split"], meta["trained_on"], probe.seed] = probe
    return sorted(found.values(), key=lambda p: p.folder.as_posix())


def own(probe: Probe) -> bool:
    """Not a transfer: the checkpoint was trained on the probed task, or on none."""
    return probe.meta["trained_on"] in (None, probe.meta["task"]["name"])


def read_maps(folder: Path) -> dict[str, NDArray[Any]]:
    """sample_ids (K,); grids (K, 2) rows and columns; attention, norm (K, N) float32, NaN beyond rows * cols;
    extents_xyxy (K, 4), what the tokens cover in pixels of the image, which padding or a crop make unlike it.
    Never unpickles. Raises StoreError.
    """
    path = folder / MAPS_FILE
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            maps = {name: stored[name] for name in _MAP_NAMES}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise StoreError(f"{path}: cannot be read ({error}).") from None
    k, n = len(maps["sample_ids"]), maps["attention"].shape[-1]
    shapes = {"grids": (k, 2), "extents_xyxy": (k, 4), "attention": (k, n), "norm": (k, n)}
    fits = all(maps[name].shape == shape for name, shape in shapes.items())
    if not fits or not ((maps["grids"] > 0).all() and (maps["grids"].prod(axis=1) <= n).all()):
        raise StoreError(f"{path}: its arrays do not fit each other.")
    return maps


def summarise(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over samples with 95 % intervals, clustered by image; None where no sample has a target."""
    probed = [row for row in rows if "ratio" in row]
    if not probed:
        return {"n": 0}
    clusters = [str(row["cluster"]) for row in probed]
    layers = range(len(probed[0]["ratio"]))

    def mean(values: Sequence[float]) -> dict[str, float]:
        return _interval(float(np.mean(values)), cluster_bootstrap(values, clusters))

    return {
        "n": len(probed),
        "n_images": len(set(clusters)),
        "ratio": mean([float(np.mean(row["ratio"])) for row in probed]),
        "ratio_by_layer": [mean([row["ratio"][layer] for row in probed]) for layer in layers],
        "share": mean([float(np.mean(row["share"])) for row in probed]),
        "share_by_layer": [mean([row["share"][layer] for row in probed]) for layer in layers],
        "norm_target": mean([row["norm_target"] for row in probed]),
        "norm_visual": mean([row["norm_visual"] for row in probed]),
    }


def norm_ratio(tuned: Probe, base: Probe) -> dict[str, Any] | None:
    """Table 5: mean norm of the target tokens over the base's, on the samples that both probed.

    None where they share none, or were probed on different data.
    """
    if tuned.meta["dataset"]["fingerprint"] != base.meta["dataset"]["fingerprint"]:
        return None
    shared = [sample_id for sample_id in tuned.rows if sample_id in base.rows]
    if not shared:
        return None
    found = [tuned.rows[s]["norm_target"] for s in shared]
    before = [base.rows[s]["norm_target"] for s in shared]
    clusters = [str(tuned.rows[s]["cluster"]) for s in shared]
    interval = paired_ratio(found, before, clusters)
    return _interval(float(np.mean(found) / np.mean(before)), interval) | {"n": len(shared)}


def _interval(value: float, interval: Interval) -> dict[str, float]:
    return {"value": value, "low": interval.low, "high": interval.high}
