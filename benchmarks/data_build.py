"""Images/s of the synthetic sets beside matplotlib drawing the same pictures as BlindTest does.

    python -m benchmarks.data_build [--images 150]

One process each: geometry, drawing and PNG encoding of ours, against matplotlib drawing and encoding
alone (a figure of 5 x 5 inches saved at the same number of pixels; its geometry is given to it for
free). Then all three sets at the paper's size with two workers.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl

from evalkit.datasets import grid_patch, line_intersection, line_tracing
from evalkit.datasets.build import build
from evalkit.datasets.recipe import Picture

mpl.use("Agg")
import matplotlib.pyplot as plt

INCHES = 5
POINTS = 72 * INCHES


def ours(module, index: int) -> bytes:
    return module.draw(0, index).png


def figure(side: int):
    fig, axes = plt.subplots(figsize=(INCHES, INCHES))
    fig.subplots_adjust(0, 0, 1, 1)
    axes.set_xlim(0, side)
    axes.set_ylim(side, 0)
    axes.axis("off")
    return fig, axes


def save(fig, side: int) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=side / INCHES)
    plt.close(fig)
    return buffer.getvalue()


def line_intersection_mpl(picture: Picture) -> bytes:
    geometry = picture.questions[0].geometry
    side = line_intersection.SIDE
    fig, axes = figure(side)
    for key, color in (("blue_xy", "blue"), ("red_xy", "red")):
        xs, ys = zip(*geometry[key], strict=True)
        axes.plot(xs, ys, color=color, linewidth=geometry["line_width"] * POINTS / side)
    return save(fig, side)


def line_tracing_mpl(picture: Picture) -> bytes:
    geometry = picture.questions[0].geometry
    side = line_tracing.SIDE
    fig, axes = figure(side)
    for curve in geometry["curves_xy"]:
        xs, ys = zip(*curve, strict=True)
        axes.plot(xs, ys, color="tab:blue", linewidth=geometry["line_width"] * POINTS / side)
    for (x, y), label in zip(geometry["nodes_xy"], geometry["labels"], strict=True):
        axes.add_patch(
            plt.Circle((x, y), geometry["node_radius"], facecolor="white", edgecolor="black", zorder=3)
        )
        axes.text(x, y, label, ha="center", va="center", zorder=4)
    return save(fig, side)


def grid_patch_mpl(picture: Picture) -> bytes:
    x0, y0, x1, y1 = picture.questions[0].geometry["bbox_xyxy"]
    side = grid_patch.SIDE
    fig, axes = figure(side)
    axes.add_patch(plt.Rectangle((x0, y0), x1 - x0, y1 - y0, color="red"))
    for i in range(25):
        axes.axhline(i * side / 24, color="grey", linewidth=1)
        axes.axvline(i * side / 24, color="grey", linewidth=1)
    return save(fig, side)


def rate(draw: Callable[[int], bytes], images: int) -> float:
    draw(0)  # caches, fonts
    start = time.perf_counter()
    for index in range(images):
        draw(index)
    return images / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=150)
    images = parser.parse_args().images
    baselines = (
        (line_intersection, line_intersection_mpl),
        (line_tracing, line_tracing_mpl),
        (grid_patch, grid_patch_mpl),
    )
    print(
        f"{'set':<18} {'side':>5} {'evalkit':>10} {'matplotlib':>11} {'ratio':>6}   (images/s, one process each)"
    )
    for module, baseline in baselines:
        pictures = [module.draw(0, index) for index in range(max(2, images // 5))]
        mine = rate(lambda index, m=module: ours(m, index), images)
        theirs = rate(lambda index, b=baseline, p=pictures: b(p[index]), len(pictures))
        print(f"{module.NAME:<18} {module.SIDE:>5} {mine:>10.0f} {theirs:>11.1f} {mine / theirs:>6.1f}")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for module, _ in baselines:
            build(module.NAME, Path(folder), workers=2)
        print(f"all three at the paper's size, 2 workers: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
