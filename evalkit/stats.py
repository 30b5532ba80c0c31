"""Intervals that know that questions on one image are not independent, and paired tests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000

Clusters = Sequence[str] | NDArray[np.intp]  # the image of each question: a name, or its number from 0


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval of a proportion or of a difference of proportions, and how it came about."""

    low: float
    high: float
    method: str
    n: int
    n_clusters: int


def wilson(k: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for k successes of n (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Takes fractional k and n (effective sample sizes). Raises ValueError unless 0 <= k <= n and n > 0.
    """
    if not (n > 0 and 0 <= k <= n):
        raise ValueError(f"Wilson's interval needs 0 <= k <= n and n > 0, found k = {k}, n = {n}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = k / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # the ends are exactly 0 and 1 at k = 0 and k = n, which rounding would miss
    low = 0.0 if k == 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if k == n else min(1.0, (centre + spread) / scale)
    return low, high


def accuracy_interval(
    correct: Sequence[bool] | NDArray[np.bool_], clusters: Clusters, *, seed: int = 0
) -> Interval:
    """The 95 % interval that every accuracy of ours carries.

    One question an image: Wilson. Several: Wilson on the effective sample size n / deff * (z / t)^2 of Korn
    and Graubard (1998), where deff is the ratio of the cluster-robust variance of the accuracy to that of
    independent questions (Kish 1965), never below 1, and t has one degree of freedom less than there are
    images. With no or all correct the variance says nothing; then each image counts as one question.
    An empty sample gives [0, 1]. `seed` is taken for symmetry with the bootstraps; nothing is drawn here.
    """
    n, k = len(correct), int(np.sum(correct))
    if n == 0:
        return Interval(0.0, 1.0, "no samples", 0, 0)
    sums, sizes = _cluster_sums(np.asarray(correct, float), clusters)
    m = len(sizes)
    if m == n:
        return Interval(*wilson(k, n), "Wilson", n, m)
    if k in (0, n) or m < 2:
        effective = float(m)
    else:
        p = k / n
        robust = m / (m - 1) * float(((sums - p * sizes) ** 2).sum()) / n**2
        effective = n / max(1.0, robust / (p * (1 - p) / n)) * _shrink(m - 1)
    return Interval(*wilson(k / n * effective, effective), "Wilson, clustered by image", n, m)


def cluster_bootstrap(
    values: Sequence[float], clusters: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Percentile interval of the mean of `values`, whole clusters drawn with replacement."""
    array = np.asarray(values, float)
    if not len(array):
        raise ValueError("a bootstrap needs at least one value")
    sums, sizes = _cluster_sums(array, clusters)
    means = _resampled_means(sums, sizes, seed, resamples)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(low), float(high), "bootstrap, clustered by image", len(array), len(sizes))


def paired_bootstrap(
    first: Sequence[bool], second: Sequence[bool], clusters: Sequence[str], *, seed: int = 0
) -> Interval:
    """Interval of accuracy(first) - accuracy(second) on the same samples, clustered by image."""
    if len(first) != len(second):
        raise ValueError(f"paired samples differ in number: {len(first)} and {len(second)}")
    difference = np.asarray(first, float) - np.asarray(second, float)
    return cluster_bootstrap(difference.tolist(), clusters, seed=seed)


def paired_ratio(
    numerators: Sequence[float], denominators: Sequence[float], clusters: Sequence[str], *, seed: int = 0
) -> Interval:
    """Percentile interval of mean(numerators) / mean(denominators) on the same samples, clustered by image."""
    if not numerators or len(numerators) != len(denominators):
        raise ValueError(f"paired samples: {len(numerators)} and {len(denominators)}, need as many, above 0")
    above, sizes = _cluster_sums(np.asarray(numerators, float), clusters)
    below, _ = _cluster_sums(np.asarray(denominators, float), clusters)
    # the same resamples of the same clusters, since both are drawn from one seed
    ratios = _resampled_means(above, sizes, seed, RESAMPLES) / _resampled_means(below, sizes, seed, RESAMPLES)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Interval(float(low), float(high), "bootstrap, clustered by image", len(numerators), len(sizes))


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value of McNemar's test from the two discordant counts; 1 when there are none.

    The binomial test of min(b, c) among b + c at one half (McNemar 1947).
    """
    n, k = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    term = tail = 1  # the binomial coefficient n over i, and the sum of them up to k
    for i in range(k):
        term = term * (n - i) // (i + 1)
        tail += term
    return min(1.0, tail / (1 << (n - 1)))  # a quotient of integers is rounded once, at any size


def mcnemar_by_image(sums: Sequence[int] | NDArray[np.int_]) -> float:
    """Two-sided exact p-value of the paired test whose units are images, not questions.

    sums: per image, questions that only the first model has right less those that only the second has. If
    the two models were alike, the signs of whole images would be coin tosses (Fisher's randomisation test), so
    that questions on one image may depend on each other as they like. With one question an image it is
    McNemar's exact test. Above 20,000 discordant questions the normal approximation serves.
    """
    sizes = np.abs(np.asarray(sums, np.int64))
    counts = np.bincount(sizes)[1:]
    observed, total = abs(int(np.sum(sums))), int(sizes.sum())
    if len(counts) <= 1:  # at most one question an image: integers all the way
        return mcnemar_exact((total + observed) // 2, (total - observed) // 2)
    if total > _MOST_DISCORDANT:
        return math.erfc(observed / math.sqrt(2 * float((sizes**2).sum())))
    # distribution of the first model's share of the `total`: images of each size are binomial
    chances = np.ones(1)
    for size, count in enumerate(counts, 1):
        if count:
            step = np.zeros(size * int(count) + 1)
            step[::size] = _halves(int(count))
            chances = np.convolve(chances, step)
    below = chances[: (total - observed) // 2 + 1].sum()
    return 1.0 if observed == 0 else min(1.0, 2 * float(below))


_MOST_DISCORDANT = 20_000


def _halves(n: int) -> NDArray[np.float64]:
    """(n + 1,) probabilities of the binomial distribution at one half."""
    factorials = np.concatenate([np.zeros(1), np.cumsum(np.log(np.arange(1, n + 1)))])
    logs = factorials[n] - factorials - factorials[::-1] - n * math.log(2)
    return np.asarray(np.exp(logs), np.float64)


def paired_interval(
    first: Sequence[bool] | NDArray[np.bool_],
    second: Sequence[bool] | NDArray[np.bool_],
    clusters: Clusters,
) -> Interval:
    """The 95 % interval of accuracy(first) - accuracy(second) on the same samples, without any drawing.

    Agresti and Min's adjusted Wald interval (2005, doi:10.1002/sim.1781: half a pair is added to each cell of
    the two by two table) on the effective sample size that `accuracy_interval` uses, of the differences.
    """
    if len(first) != len(second):
        raise ValueError(f"paired samples differ in number: {len(first)} and {len(second)}")
    difference = np.asarray(first, float) - np.asarray(second, float)
    n = len(difference)
    if n == 0:
        return Interval(-1.0, 1.0, "no samples", 0, 0)
    sums, sizes = _cluster_sums(difference, clusters)
    m, mean = len(sizes), float(difference.mean())
    discordant = float(np.abs(difference).mean())
    effective = float(m)
    alone = (discordant - mean**2) / n  # the variance, were questions independent
    if m == n:
        effective = float(n)
    elif m > 1 and alone > 0:
        robust = m / (m - 1) * float(((sums - mean * sizes) ** 2).sum()) / n**2
        effective = n / max(1.0, robust / alone) * _shrink(m - 1)
    z = NormalDist().inv_cdf(0.975)
    centre = effective * mean / (effective + 2)
    spread = (effective * discordant + 1) / (effective + 2) - centre**2
    half = z * math.sqrt(max(0.0, spread) / (effective + 2))
    method = "adjusted Wald" if m == n else "adjusted Wald, clustered by image"
    return Interval(max(-1.0, centre - half), min(1.0, centre + half), method, n, m)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979) of a family of tests, in their order; at most 1."""
    corrected, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = worst
    return corrected


def _shrink(degrees: int) -> float:
    """(z / t)^2 of the 97.5 % quantiles."""
    return (NormalDist().inv_cdf(0.975) / t_quantile(degrees)) ** 2


@lru_cache(maxsize=4096)
def t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t.

    By its expansion in the normal quantile (Abramowitz and Stegun 26.7.5); up to 200 degrees of freedom that is
    then solved for exactly, with the finite sums for P(|T| < t) (26.7.3 and 26.7.4).
    """
    z, v = NormalDist().inv_cdf(0.975), degrees
    t: float = z + sum(g / v**k for k, g in enumerate(_expansion(z), 1))
    if v > 200:
        return float(t)
    if v == 1:
        return math.tan(0.475 * math.pi)
    for _ in range(50):
        density = math.exp(math.lgamma((v + 1) / 2) - math.lgamma(v / 2)) / math.sqrt(v * math.pi)
        step = (_within(t, v) - 0.95) / (2 * density * (1 + t * t / v) ** (-(v + 1) / 2))
        t -= step
        if abs(step) < 1e-14 * t:
            break
    return float(t)


def _expansion(z: float) -> tuple[float, ...]:
    return (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )


def _within(t: float, degrees: int) -> float:
    """P(|T| < t) for a whole number of degrees of freedom above 1."""
    angle = math.atan(t / math.sqrt(degrees))
    square, term, total = math.cos(angle) ** 2, 1.0, 1.0
    if degrees % 2 == 0:
        for k in range(1, degrees // 2):
            term *= square * (2 * k - 1) / (2 * k)
            total += term
        return math.sin(angle) * total
    for k in range(1, (degrees - 1) // 2):
        term *= square * (2 * k) / (2 * k + 1)
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * total)


def _cluster_sums(
    values: NDArray[np.float64], clusters: Clusters
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per cluster the sum of values and the number of them, clusters in order of first appearance."""
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values but {len(clusters)} cluster names")
    if isinstance(clusters, np.ndarray):
        counts = np.bincount(clusters).astype(np.float64)
        sums = np.bincount(clusters, weights=values, minlength=len(counts)).astype(np.float64)
        return sums[counts > 0], counts[counts > 0]
    index: dict[str, int] = {}
    labels = np.array([index.setdefault(name, len(index)) for name in clusters], dtype=np.intp)
    sums = np.bincount(labels, weights=values, minlength=len(index)).astype(np.float64)
    return sums, np.bincount(labels, minlength=len(index)).astype(np.float64)


def _resampled_means(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], seed: int, resamples: int
) -> NDArray[np.float64]:
    """(resamples,) means; a resample is a multinomial count of each cluster. Batched to bound memory."""
    generator = np.random.default_rng(seed)
    m = len(sizes)
    batch = max(1, 2_000_000 // m)
    means = []
    for start in range(0, resamples, batch):
        counts = generator.multinomial(m, np.full(m, 1 / m), size=min(batch, resamples - start))
        means.append((counts @ sums) / (counts @ sizes))
    return np.concatenate(means)
