"""Table 5 from stored probes: the norm of target tokens after fine-tuning over the base's."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from evalkit.errors import StoreError
from evalkit.probes import Probe, norm_ratio


def ratio_cell(probes: Sequence[Probe], tuned: str, base: str) -> dict[str, Any] | None:
    """Mean over training seeds of a model's ratio to its base; the interval spans those of all seeds.

    probes: of one task, none of them a transfer. None where no seed of the two was probed on the same data.
    """
    bases = {probe.seed: probe for probe in probes if probe.model == base}
    found = []
    for probe in sorted((p for p in probes if p.model == tuned), key=lambda p: p.seed):
        before = bases.get(probe.seed) or bases.get(0)
        try:
            ratio = norm_ratio(probe, before) if before is not None else None
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{probe.folder}: its rows have no norms as evalkit writes them ({error!r})."
            ) from None
        if ratio is not None:
            found.append({"seed": probe.seed, **ratio})
    if not found:
        return None
    return {
        "value": fmean(one["value"] for one in found),
        "low": min(one["low"] for one in found),
        "high": max(one["high"] for one in found),
        "n": found[0]["n"],
        "seeds": found,
    }
