"""Intervals and tests of reports against statsmodels and scipy on the same rows, and by simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from evalkit.stats import (
    accuracy_interval,
    mcnemar_by_image,
    mcnemar_exact,
    paired_interval,
    t_quantile,
    wilson,
)


@pytest.mark.parametrize(
    "degrees", [1, 2, 3, 4, 5, 6, 7, 10, 29, 30, 99, 150, 199, 200, 201, 250, 500, 1_500, 10_000, 10**6]
)
def test_student_t(degrees):
    assert t_quantile(degrees) == pytest.approx(reference.t.ppf(0.975, degrees), rel=1e-9)


def clustered(seed, images=120, most=6, spread=1.0):
    """Answers of two models to 1 to `most` questions an image; hard images are hard for both."""
    draw = np.random.default_rng(seed)
    sizes = draw.integers(1, most + 1, images)
    codes = np.repeat(np.arange(images), sizes)
    hard = draw.normal(0, spread, images)[codes]
    first = hard + draw.normal(size=len(codes)) < 0.2
    second = hard + draw.normal(0, spread, images)[codes] / 2 + draw.normal(size=len(codes)) < 0.4
    return first, second, codes


def robust_variance(values, codes):
    """statsmodels' cluster-robust variance of a mean, with m / (m - 1) alone as small-sample correction."""
    m, n = len(np.unique(codes)), len(values)
    fit = OLS(np.asarray(values, float), np.ones(n)).fit(
        cov_type="cluster", cov_kwds={"groups": codes, "use_correction": True}
    )
    # statsmodels multiplies by m / (m - 1) * (n - 1) / (n - k), and k is 1 here
    assert fit.cov_params()[0, 0] > 0
    return m, n, float(fit.cov_params()[0, 0])


@pytest.mark.parametrize("seed", range(8))
def test_accuracy_interval_by_statsmodels_and_scipy(seed):
    hits, _, codes = clustered(seed)
    m, n, variance = robust_variance(hits, codes)
    p = hits.mean()
    design = variance / (p * (1 - p) / n)
    assert design > 1, "or nothing of the clustering is tested"
    effective = n / design * (reference.norm.ppf(0.975) / reference.t.ppf(0.975, m - 1)) ** 2
    expected = proportion_confint(p * effective, effective, method="wilson")
    found = accuracy_interval(hits, codes)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)
    assert (found.low, found.high) == pytest.approx(
        (lambda i: (i.low, i.high))(accuracy_interval(hits.tolist(), [f"image {c}" for c in codes])),
        abs=1e-12,
    )


@pytest.mark.parametrize("seed", range(4))
def test_paired_interval_by_statsmodels_and_scipy(seed):
    first, second, codes = clustered(seed)
    difference = second.astype(float) - first
    m, n, variance = robust_variance(difference, codes)
    d, discordant = difference.mean(), np.abs(difference).mean()
    design = max(1.0, variance / ((discordant - d**2) / n))
    effective = n / design * (reference.norm.ppf(0.975) / reference.t.ppf(0.975, m - 1)) ** 2
    # Agresti and Min: half a pair in each of the four cells
    b, c = effective * (discordant + d) / 2 + 0.5, effective * (discordant - d) / 2 + 0.5
    whole = effective + 2
    centre = (b - c) / whole
    half = reference.norm.ppf(0.975) * np.sqrt(((b + c) / whole - centre**2) / whole)
    found = paired_interval(second, first, codes)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-9)


@given(st.integers(0, 300), st.integers(0, 300))
def test_one_question_an_image_is_mcnemars_test(b, c):
    found = mcnemar_by_image([1] * b + [-1] * c + [0] * 5)
    assert found == mcnemar_exact(b, c)
    assert found == pytest.approx(mcnemar([[3, b], [c, 4]], exact=True).pvalue, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=11))
def test_by_image_is_every_flip_of_signs(sums):
    observed = abs(sum(sums))
    flips = [
        abs(sum(s * sign for s, sign in zip(sums, signs, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    assert mcnemar_by_image(sums) == pytest.approx(sum(f >= observed for f in flips) / len(flips), abs=1e-12)


def test_by_image_against_scipys_permutation_test():
    sums = np.random.default_rng(4).integers(-3, 5, 200)
    drawn = reference.permutation_test(
        (sums.astype(float), np.zeros(len(sums))), lambda x, y: np.sum(x - y), permutation_type="samples",
        n_resamples=20_000, rng=np.random.default_rng(0),
    )  # fmt: skip
    found = mcnemar_by_image(sums)
    error = np.sqrt(max(found, 1e-4) * (1 - found) / 20_000)
    assert abs(found - drawn.pvalue) < 5 * error + 1e-4


def test_by_image_of_very_many():
    """The normal approximation above 20,000 discordant questions, beside the exact test just below."""
    draw, scale = np.random.default_rng(1), 3
    sums = draw.choice([-scale, scale], size=19_000 // scale, p=[0.493, 0.507])
    exact = mcnemar_by_image(sums)
    more = np.concatenate([sums, np.tile([scale, -scale], 1_000)])
    assert mcnemar_by_image(more) == pytest.approx(
        2 * reference.norm.sf(abs(more.sum()) / np.sqrt((more**2).sum())), rel=1e-9
    )
    assert exact == pytest.approx(2 * reference.norm.sf(abs(sums.sum()) / np.sqrt((sums**2).sum())), rel=0.1)


@pytest.mark.parametrize(
    ("sums", "p"), [([], 1.0), ([0, 0], 1.0), ([3], 1.0), ([3, 3], 0.5), ([1, -1], 1.0), ([2, -2, 2], 1.0)]
)
def test_by_image_of_few(sums, p):
    assert mcnemar_by_image(sums) == pytest.approx(p)


def beta_binomial(draw, images, questions, p, correlation):
    """(images, questions) of right and wrong: each image has a chance of its own."""
    if correlation == 0:
        return draw.random((images, questions)) < p
    size = (1 - correlation) / correlation
    return draw.random((images, questions)) < draw.beta(p * size, (1 - p) * size, images)[:, None]


@pytest.mark.parametrize(
    ("images", "questions", "p", "correlation"),
    [
        (60, 4, 0.5, 0.3),
        (150, 5, 0.8, 0.4),
        (300, 3, 0.2, 0.2),
        (1_000, 5, 0.6, 0.5),
        (200, 8, 0.9, 0.1),
        (400, 1, 0.3, 0),
    ],
)
def test_coverage(images, questions, p, correlation):
    """93-97 % of 2,000 intervals hold the truth, Monte-Carlo error 0.5 points."""
    draw = np.random.default_rng(0)
    codes = np.repeat(np.arange(images), questions)
    held = 0
    for _ in range(2_000):
        interval = accuracy_interval(beta_binomial(draw, images, questions, p, correlation).ravel(), codes)
        held += interval.low <= p <= interval.high
    assert 0.93 <= held / 2_000 <= 0.97


@pytest.mark.parametrize(("images", "questions", "spread"), [(100, 4, 1.0), (400, 1, 0.0), (60, 6, 1.0)])
def test_coverage_and_size_of_paired_tests(images, questions, spread):
    """Two models that are alike: 95 % of intervals hold 0, and at most 5 % (+ error) of the tests find a difference."""
    draw = np.random.default_rng(1)
    codes = np.repeat(np.arange(images), questions)
    held, found, naive = 0, 0, 0
    for _ in range(1_500):
        hard = draw.normal(0, 1, images)[:, None]
        first, second = (
            hard + draw.normal(0, spread, images)[:, None] + draw.normal(size=(images, questions)) < 0
            for _ in range(2)
        )
        interval = paired_interval(first.ravel(), second.ravel(), codes)
        held += interval.low <= 0 <= interval.high
        sums = (first.astype(int) - second).sum(axis=1)
        found += mcnemar_by_image(sums) < 0.05
        naive += mcnemar_exact(int((first & ~second).sum()), int((second & ~first).sum())) < 0.05
    assert 0.93 <= held / 1_500 <= 0.97
    assert found / 1_500 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1_500)
    if spread:
        assert naive / 1_500 > 0.1, (
            "McNemar's test takes questions on one image as independent: why ours does not"
        )


def test_wilson_at_the_ends():
    for k, n in ((0, 5), (5, 5), (1, 10**7), (0.5, 3.25)):
        assert wilson(k, n) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)
