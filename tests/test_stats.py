"""Statistics beside scipy and statsmodels, and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from evalkit.stats import accuracy_interval, cluster_bootstrap, holm, mcnemar_exact, paired_bootstrap, wilson


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_statsmodels(k_n):
    k, n = k_n
    assert wilson(k, n) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses(k, n):
    with pytest.raises(ValueError, match="needs 0 <= k <= n"):
        wilson(k, n)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_equals_scipy_and_statsmodels(b, c):
    p = mcnemar_exact(b, c)
    if b + c:
        assert p == pytest.approx(scipy_stats.binomtest(b, b + c, 0.5).pvalue, abs=1e-9)
    assert p == pytest.approx(mcnemar([[3, b], [c, 4]], exact=True).pvalue, abs=1e-9)


@pytest.mark.parametrize(("b", "c"), [(900, 1000), (1500, 1300), (5000, 5000)])
def test_mcnemar_of_many(b, c):
    assert mcnemar_exact(b, c) == pytest.approx(scipy_stats.binomtest(b, b + c, 0.5).pvalue, rel=1e-9)


def test_one_question_an_image_is_wilson():
    interval = accuracy_interval([True] * 9 + [False] * 191, [str(i) for i in range(200)])
    assert (interval.low, interval.high) == pytest.approx(wilson(9, 200))
    assert (interval.method, interval.n_clusters) == ("Wilson", 200)


def test_copies_of_an_answer_say_nothing_new():
    """Five identical questions an image: as wide as one question an image, but for the two corrections."""
    images = [i % 3 == 0 for i in range(60)]
    five = accuracy_interval(
        [c for c in images for _ in range(5)], [str(i) for i in range(60) for _ in range(5)]
    )
    effective = 59 * (1.959964 / scipy_stats.t.ppf(0.975, 59)) ** 2  # m - 1, and t in place of z
    one = wilson(effective / 3, effective)
    assert (five.low, five.high) == pytest.approx(one, abs=1e-5)
    assert "clustered" in five.method


def test_never_narrower_than_independent_questions():
    """A model that says Yes throughout is right on half of each image: no variance between images."""
    interval = accuracy_interval([True, False] * 100, [str(i // 2) for i in range(200)])
    assert interval.low < wilson(100, 200)[0] < 0.5 < wilson(100, 200)[1] < interval.high
    assert (interval.low, interval.high) == pytest.approx(wilson(100, 200), abs=0.002)


@pytest.mark.parametrize("right", [True, False])
def test_all_or_none_correct_counts_images(right):
    interval = accuracy_interval([right] * 100, [str(i // 5) for i in range(100)])
    assert (interval.low, interval.high) == pytest.approx(wilson(20 if right else 0, 20))
    assert interval.high - interval.low > 0.1


def test_no_samples():
    interval = accuracy_interval([], [])
    assert (interval.low, interval.high, interval.n) == (0, 1, 0)


def test_the_variance_is_the_cluster_robust_one():
    """Against statsmodels: the constant of a regression has the accuracy's variance, clustered by image."""
    draw = np.random.default_rng(4)
    clusters = np.repeat(np.arange(50), draw.integers(2, 9, 50))
    correct = draw.random(len(clusters)) < np.repeat(draw.random(50), np.bincount(clusters))
    fit = OLS(correct.astype(float), np.ones(len(clusters))).fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False}
    )
    robust = fit.bse[0] ** 2 * 50 / 49
    p = correct.mean()
    effective = p * (1 - p) / robust * (1.959964 / scipy_stats.t.ppf(0.975, 49)) ** 2
    interval = accuracy_interval(correct.tolist(), clusters.astype(str).tolist())
    assert (interval.low, interval.high) == pytest.approx(wilson(p * effective, effective), abs=1e-5)


@pytest.mark.parametrize(
    ("images", "p", "correlation"),
    [(100, 0.5, 0.0), (100, 0.5, 0.5), (100, 0.15, 0.3), (100, 0.9, 0.8), (40, 0.1, 0.3)],
)
def test_coverage_for_clustered_data(images, p, correlation):
    """Beta-binomial images with 4 or 6 questions: the interval covers the truth in 93-97 % of 1,500 draws."""
    draw = np.random.default_rng(1)
    hits, repeats = 0, 1500
    for _ in range(repeats):
        sizes = draw.choice([4, 6], images)
        if correlation:
            scale = 1 / correlation - 1
            rates = draw.beta(p * scale, (1 - p) * scale, images)
        else:
            rates = np.full(images, p)
        correct = draw.random(sizes.sum()) < np.repeat(rates, sizes)
        interval = accuracy_interval(
            correct.tolist(), np.repeat(np.arange(images), sizes).astype(str).tolist()
        )
        hits += interval.low <= p <= interval.high
    assert 0.93 <= hits / repeats <= 0.97


def test_bootstrap_near_scipys():
    draw = np.random.default_rng(0)
    values = draw.random(300)
    ours = cluster_bootstrap(values.tolist(), [str(i) for i in range(300)], seed=3)
    theirs = scipy_stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=draw)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.003)


def test_bootstrap_draws_whole_clusters():
    values = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    wide = cluster_bootstrap(values, ["a", "a", "a", "b", "b", "b"])
    assert (wide.low, wide.high) == (0, 1)  # two clusters: a quarter of the draws is all a
    assert wide.n_clusters == 2


def test_bootstrap_is_seeded_whatever_the_batches():
    values = np.random.default_rng(0).random(500).tolist()
    names = [str(i // 2) for i in range(500)]
    assert cluster_bootstrap(values, names, seed=1) == cluster_bootstrap(values, names, seed=1)
    assert cluster_bootstrap(values, names, seed=1) != cluster_bootstrap(values, names, seed=2)


def test_paired_difference():
    first = [True] * 60 + [False] * 40
    second = [True] * 30 + [False] * 70
    interval = paired_bootstrap(first, second, [str(i) for i in range(100)])
    # 30 of 100 differ, all one way: sd of the mean is sqrt(.3 * .7 / 100) = .0458
    assert interval.low == pytest.approx(0.3 - 1.96 * 0.0458, abs=0.015)
    assert interval.high == pytest.approx(0.3 + 1.96 * 0.0458, abs=0.015)


@pytest.mark.parametrize(
    "call",
    [
        lambda: cluster_bootstrap([], []),
        lambda: cluster_bootstrap([1.0], ["a", "b"]),
        lambda: paired_bootstrap([True], [True, False], ["a"]),
    ],
)
def test_bad_input(call):
    with pytest.raises(ValueError, match=r"."):
        call()


@pytest.mark.parametrize("p_values", [[], [0.03], [0.01, 0.04, 0.03, 0.005], [0.5, 0.9, 0.2], [0.01, 0.01]])
def test_holm_against_statsmodels(p_values):
    from statsmodels.stats.multitest import multipletests

    expected = list(multipletests(p_values, method="holm")[1]) if p_values else []
    assert holm(p_values) == pytest.approx(expected)
