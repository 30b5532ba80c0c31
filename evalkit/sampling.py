"""--limit N: a seeded sample of a split that keeps the classes in proportion."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from evalkit.errors import ConfigError
from evalkit.lazy import held
from evalkit.records import Sample


def stratified(samples: Sequence[Sample], limit: int | None, seed: int) -> Sequence[Sample]:
    """`limit` samples, each stratum within one of its share, in the order of the split.

    Within a stratum samples are ranked by a hash of (seed, sample id), so a larger limit keeps
    what a smaller one took wherever the shares allow. None, or a limit beyond the split, takes all.
    """
    if limit is None or limit >= len(samples):
        return tuple(samples) if isinstance(samples, list) else samples
    if limit < 1:
        raise ConfigError(f"--limit {limit}: expected at least 1.")
    strata: dict[str, list[tuple[bytes, int]]] = defaultdict(list)
    for place, sample in enumerate(samples):
        strata[sample.stratum].append((_rank(seed, sample.sample_id), place))
    quota = _shares({name: len(group) for name, group in strata.items()}, limit, seed)
    chosen = sorted(place for name, group in strata.items() for _, place in sorted(group)[: quota[name]])
    return held(len(chosen), lambda i: samples[chosen[i]])


def _shares(sizes: dict[str, int], limit: int, seed: int) -> dict[str, int]:
    """Largest-remainder shares of `limit`; ties go by a seeded hash, not by the name's order."""
    total = sum(sizes.values())
    quota = {name: size * limit // total for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: (-(sizes[name] * limit % total), _rank(seed, name)))
    for name in by_remainder[: limit - sum(quota.values())]:
        quota[name] += 1
    return quota


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()
