"""Attention and norm maps of stored probes as small PNGs, a pixel a visual token, to lay over a picture."""

import base64
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import StoreError
from evalkit.probes import MAPS_FILE, Probe, read_maps
from evalkit.report.pages import visible
from evalkit.report.trios import LABELS, STAGES

_LOG = logging.getLogger(__name__)
_RGB = {"attention": (214, 51, 20), "norm": (92, 56, 168)}


def sample_maps(
    probes: Sequence[Probe], model: str, about: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """sample id -> maps of base, NTP and NTP + KLAL of the model's family, as far as they were probed.

    about: task, split, dataset (fingerprint) and seed of the run. Each map: {stage, model, kind, png, extent_xyxy,
    answer, high, low}; `extent_xyxy` is what it covers in pixels of the picture.
    """
    stem, _, stage = model.rpartition("-")
    if stage not in STAGES:
        return {}
    shots: dict[str, list[_Shot]] = {}
    for stage in STAGES:
        probe = _of(probes, f"{stem}-{stage}", about)
        if probe is not None and (probe.folder / MAPS_FILE).is_file():
            try:
                for name, shot in _shots(probe, LABELS[stage]):
                    shots.setdefault(name, []).append(shot)
            except (StoreError, ValueError, IndexError) as error:
                _LOG.warning("%s: its maps are left out: %s", probe.folder, error)
    return {name: _drawn(found) for name, found in shots.items()}


@dataclass(frozen=True, slots=True)
class _Shot:
    """One sample as one model saw it; attention and norm are (rows, cols)."""

    stage: str
    model: str
    answer: str
    extent_xyxy: list[float]
    attention: NDArray[np.float32]
    norm: NDArray[np.float32]


def _shots(probe: Probe, stage: str) -> Iterator[tuple[str, _Shot]]:
    maps = read_maps(probe.folder)
    for k, sample_id in enumerate(maps["sample_ids"].tolist()):
        rows, cols = maps["grids"][k].tolist()
        yield (
            sample_id,
            _Shot(
                stage,
                probe.model,
                visible(probe.rows.get(sample_id, {}).get("answer", ""), 200),
                [round(float(v), 2) for v in maps["extents_xyxy"][k]],
                maps["attention"][k, : rows * cols].reshape(rows, cols),
                maps["norm"][k, : rows * cols].reshape(rows, cols),
            ),
        )


def _drawn(shots: Sequence[_Shot]) -> list[dict[str, Any]]:
    """The models share one scale of attention, from 0 to the largest of all; norms have each their own range."""
    peak = max(float(np.nan_to_num(shot.attention).max()) for shot in shots)
    found = []
    for kind in ("attention", "norm"):
        for shot in shots:
            values = np.nan_to_num(getattr(shot, kind), nan=0.0, posinf=0.0, neginf=0.0)
            low, high = float(values.min()), float(values.max())
            span = (0.0, peak) if kind == "attention" else (low, high)
            found.append(
                {
                    "stage": shot.stage,
                    "model": shot.model,
                    "kind": kind,
                    "png": png(values, span, kind),
                    "extent_xyxy": shot.extent_xyxy,
                    "answer": shot.answer,
                    "low": float(f"{low:.3g}"),
                    "high": float(f"{high:.3g}"),
                }
            )
    return found


def _of(probes: Sequence[Probe], model: str, about: Mapping[str, Any]) -> Probe | None:
    """A probe of the model on the run's task and data: of the same training seed, else of the first."""
    like = [
        probe
        for probe in probes
        if probe.model == model
        and (probe.meta["task"]["name"], probe.meta["split"]) == (about["task"], about["split"])
        and probe.meta["dataset"]["fingerprint"] == about["dataset"]
        and probe.meta["trained_on"] in (None, about["trained_on"] or about["task"])
    ]
    return min(like, key=lambda probe: (probe.seed != about["seed"], probe.seed), default=None)


def png(values: NDArray[np.float32], span: tuple[float, float], kind: str) -> str:
    """(rows, cols) values as an RGBA PNG in base64: one colour, from clear at span[0] to opaque at span[1].

    Attention by its square root, so that what is faint is seen.
    """
    from PIL import Image

    low, high = span
    strength = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros(values.shape)
    if kind == "attention":
        strength = np.sqrt(strength)
    pixels = np.zeros((*values.shape, 4), np.uint8)
    pixels[..., :3] = _RGB[kind]
    pixels[..., 3] = np.rint(255 * strength)
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
