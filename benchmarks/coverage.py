"""How often 95 % intervals hold the truth, by simulation, beside two baselines; clustered answers, beta-binomial.

python -m benchmarks.coverage [--simulations 4000] [--bootstrap 300]
"""

import argparse
import math

import numpy as np

from evalkit.stats import accuracy_interval, wilson

DESIGNS = [
    (images, questions, p, correlation)
    for images in (20, 50, 150, 500, 2_000)
    for questions, correlation in ((1, 0.0), (4, 0.1), (5, 0.5), (8, 0.3))
    for p in (0.05, 0.3, 0.5, 0.9)
]


def draw_answers(draw, images, questions, p, correlation):
    if correlation == 0:
        return draw.random((images, questions)) < p
    size = (1 - correlation) / correlation
    return draw.random((images, questions)) < draw.beta(p * size, (1 - p) * size, images)[:, None]


def percentile_bootstrap(draw, hits, resamples=400):
    """Whole images drawn again: what most harnesses would do."""
    sums = hits.sum(axis=1)
    counts = draw.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples)
    return np.quantile(counts @ sums / hits.size, [0.025, 0.975])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=4_000)
    parser.add_argument("--bootstrap", type=int, default=300, help="simulations of the slow baseline")
    arguments = parser.parse_args()
    draw = np.random.default_rng(0)
    n, few = arguments.simulations, arguments.bootstrap
    print(f"{n} simulations a row, +- {196 * math.sqrt(0.95 * 0.05 / n):.1f} points (bootstrap {few})")
    print("images  questions  corr     p   evalkit   Wilson, no clusters   percentile bootstrap")
    outside = []
    for images, questions, p, correlation in DESIGNS:
        codes = np.repeat(np.arange(images), questions)
        held = np.zeros(3)
        for i in range(n):
            hits = draw_answers(draw, images, questions, p, correlation)
            ours = accuracy_interval(hits.ravel(), codes)
            low, high = wilson(int(hits.sum()), hits.size)
            held[0] += ours.low <= p <= ours.high
            held[1] += low <= p <= high
            if i < few:
                low, high = percentile_bootstrap(draw, hits)
                held[2] += low <= p <= high
        shown = 100 * held / [n, n, few]
        print(
            f"{images:6}  {questions:9}  {correlation:4}  {p:4}   {shown[0]:6.1f}   {shown[1]:19.1f}   {shown[2]:20.1f}"
        )
        if not 93 <= shown[0] <= 97:
            outside.append((images, questions, correlation, p, round(float(shown[0]), 1)))
    print(f"outside of 93-97 %: {len(outside)} of {len(DESIGNS)} designs")
    for design in outside:
        print("  images {}, questions {}, correlation {}, p {}: {} %".format(*design))


if __name__ == "__main__":
    main()
