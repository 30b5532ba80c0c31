"""Every sample of the three sets at the paper's sizes: labels derived anew, by shapely and from the pixels."""

from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest
from shapely import LineString, Point, union_all

from evalkit.datasets import grid_patch, line_intersection, line_tracing
from evalkit.frames import grid_units

SEED = 0


def crossings_of(one, two):
    """Crossing points of two polygonal curves, by shapely; a shared stretch would be a line, not points."""
    common = LineString(one).intersection(LineString(two))
    if common.is_empty:
        return []
    points = list(getattr(common, "geoms", [common]))
    assert all(point.geom_type == "Point" for point in points), "the curves run along one another"
    return points


def nearest_vertex(one, two):
    """Least distance of a vertex of either curve to the other curve, px."""
    pairs = ((LineString(a), b) for a, b in ((one, two), (two, one)))
    return min(line.distance(Point(vertex)) for line, vertices in pairs for vertex in vertices)


@pytest.mark.parametrize("label", range(6))
def test_line_intersection_labels(label):
    """200 images a class: crossings counted by shapely, none of them hard to read."""
    side = line_intersection.SIDE
    for index in range(label, 1200, 6):
        blue, red, stored = line_intersection.curves(SEED, index)
        points = crossings_of(blue, red)
        assert len(points) == len(stored) == label, index
        for point, (x, y) in zip(sorted(points, key=lambda p: p.x), stored, strict=True):
            assert point.distance(Point(x, y)) < 0.02
        knots = [Point(p) for p in (*blue, *red)]
        for point in points:
            assert min(point.distance(knot) for knot in knots) >= 0.036 * side, index
        for p, q in combinations(points, 2):
            assert p.distance(q) >= 0.083 * side, index
        # no bend and no end nearly touches the other curve: the widest stroke is 4.3 px
        assert nearest_vertex(blue, red) >= 0.03 * side, index


def test_line_intersection_follows_blindtest_in_classes_0_to_2():
    ticks = {round(min(max(t / 12, 0.1 / 12), 1 - 0.1 / 12) * 384, 2) for t in range(13)}
    xs = [round(f * 384, 2) for f in (0.1 / 12, 0.5, 1 - 0.1 / 12)]
    for index in (i for i in range(600) if i % 6 < 3):
        blue, red, _ = line_intersection.curves(SEED, index)
        for curve in (blue, red):
            assert [x for x, _ in curve] == xs
            assert {y for _, y in curve} <= ticks
            for (_, y), (_, after) in pairwise(curve):
                assert not (y == after and y in (min(ticks), max(ticks)))
        assert all(b[1] != r[1] for b, r in zip(blue, red, strict=True))


@pytest.mark.parametrize("index", range(0, 1200, 97))
def test_line_intersection_pixels(index):
    """Red at each crossing (it lies over blue), blue and red at their own vertices, white in the corners."""
    picture = line_intersection.draw(SEED, index)
    pixels = picture.pixels_rgb.astype(int)
    geometry = picture.questions[0].geometry
    for x, y in geometry["crossings_xy"]:
        red, green, blue = pixels[int(y), int(x)]
        assert red > 200 and max(green, blue) < 120  # noqa: PT018
    for key, channel in (("blue_xy", 2), ("red_xy", 0)):
        for x, y in geometry[key][1:-1]:
            assert pixels[int(y), int(x)].argmax() == channel
    assert (pixels == 255).all(axis=2).mean() > 0.85


def test_line_tracing_counts():
    """1,064 images, 5,360 questions, 2,680 each way, 552 with three edges and 512 with two."""
    edges, answers = Counter(), Counter()
    for index in range(1064):
        label, _ = line_tracing.place(index)
        edges[label] += 1
        answers["yes"] += int(label)
        answers["no"] += int(label)
    assert edges == {"3": 552, "2": 512}
    assert answers == {"yes": 2680, "no": 2680}


def test_line_tracing_graphs():
    """All 1,064: disjoint edges, ends on nodes, clear of foreign nodes, crossings few and transversal."""
    for index in range(1064):
        nodes, edges, curves, stored, _ = line_tracing.graph(SEED, index)
        n_edges = int(line_tracing.place(index)[0])
        assert len(edges) == n_edges
        assert len(nodes) in ((4, 5) if n_edges == 2 else (6, 7))
        assert len({end for edge in edges for end in edge}) == 2 * n_edges, "an edge shares a node"
        lines = [LineString(curve) for curve in curves]
        for (i, j), curve, line in zip(edges, curves, lines, strict=True):
            assert (curve[0], curve[-1]) == (nodes[i], nodes[j])
            assert line.is_simple, index
            for k, node in enumerate(nodes):
                if k not in (i, j):
                    assert line.distance(Point(node)) >= line_tracing.FOREIGN_NODE - 1e-6, index
        found = [p for one, two in combinations(curves, 2) for p in crossings_of(one, two)]
        assert len(found) == len(stored) <= line_tracing.MOST_CROSSINGS
        for point in found:
            assert min(point.distance(Point(n)) for n in nodes) >= line_tracing.CROSSING_TO_NODE - 1e-6
            assert min(point.distance(Point(v)) for curve in curves for v in curve) >= 16.9
        for p, q in combinations(found, 2):
            assert p.distance(q) >= line_tracing.CROSSING_TO_CROSSING - 1e-6
        for one, two in combinations(curves, 2):
            assert nearest_vertex(one, two) >= line_tracing.CURVES_APART - 1e-6, index
            # never along one another: past a crossing's surroundings they are clear of each other
            near = [p.buffer(26) for p in crossings_of(one, two)]
            assert LineString(one).difference(union_all(near)).distance(LineString(two)) > 14, index
        assert min(Point(p).distance(Point(q)) for p, q in combinations(nodes, 2)) >= 84 - 1e-6


def test_line_tracing_nodes_surround_the_centre():
    for index in range(0, 1064, 7):
        nodes, *_ = line_tracing.graph(SEED, index)
        middle = Point(line_tracing.SIDE / 2, line_tracing.SIDE / 2)
        distances = [Point(node).distance(middle) for node in nodes]
        assert distances[0] < 26
        assert min(distances[1:]) > 100


def test_line_tracing_answers():
    """All 5,360 questions: the gold says whether one of the curves drawn ends at both nodes asked for."""
    golds = Counter()
    for index in range(1064):
        for question in line_tracing.draw(SEED, index).questions:
            geometry = question.geometry
            place = dict(zip(geometry["labels"], geometry["nodes_xy"], strict=True))
            asked = [place[question.variables[key]] for key in ("node_a", "node_b")]
            joins = [
                all([curve[0], curve[-1]].count(end) for end in asked) for curve in geometry["curves_xy"]
            ]
            assert question.gold == ("yes" if any(joins) else "no"), index
            golds[question.gold] += 1
    assert golds == {"yes": 2680, "no": 2680}


def connected_in_pixels(picture, start, goal, radius):
    """Whether the line's colour leads from one node to the other where nothing else crosses (flood fill)."""
    from scipy.ndimage import label

    drawn = (picture.pixels_rgb < 200).any(axis=2)
    regions, _ = label(drawn, structure=np.ones((3, 3)))
    around = []
    for x, y in (start, goal):
        r = int(radius) + 1
        patch = regions[int(y) - r : int(y) + r + 1, int(x) - r : int(x) + r + 1]
        around.append(set(patch[patch > 0].tolist()))
    return bool(around[0] & around[1])


def test_line_tracing_answers_and_pixels():
    """On drawings without crossings a flood fill of the pixels answers every question."""
    checked = Counter()
    for index in range(0, 240):
        _, edges, _, crossings, _ = line_tracing.graph(SEED, index)
        picture = line_tracing.draw(SEED, index)
        golds = Counter(question.gold for question in picture.questions)
        assert golds == {"yes": len(edges), "no": len(edges)}
        asked = {frozenset(question.variables.values()) for question in picture.questions}
        assert len(asked) == 2 * len(edges)
        for question in picture.questions:
            geometry = question.geometry
            pair = [question.variables["node_a"], question.variables["node_b"]]
            assert (question.gold == "yes") == (sorted(pair) in [sorted(edge) for edge in geometry["edges"]])
            assert bool(geometry["path_xy"]) == (question.gold == "yes")
            if geometry["path_xy"]:
                assert [geometry["path_xy"][0], geometry["path_xy"][-1]] == geometry["queried_xy"]
            if not crossings:
                found = connected_in_pixels(picture, *geometry["queried_xy"], geometry["node_radius"])
                assert found == (question.gold == "yes"), (index, pair)
                checked[question.gold] += 1
    assert min(checked.values()) > 100


def test_line_tracing_nothing_but_the_path_tells():
    """Colour is one an image; place in the row, letters and distance say (almost) nothing of the answer."""
    yes, no, first = [], [], Counter()
    for index in range(1064):
        picture_questions = line_tracing.draw(SEED, index).questions if index < 200 else ()
        if picture_questions:
            first[picture_questions[0].gold] += 1
        for question in picture_questions:
            a, b = question.geometry["queried_xy"]
            (yes if question.gold == "yes" else no).append(float(np.hypot(a[0] - b[0], a[1] - b[1])))
    assert 70 <= first["yes"] <= 130  # of 200
    pooled = np.sqrt((np.var(yes) + np.var(no)) / 2)
    assert abs(np.mean(yes) - np.mean(no)) < 0.2 * pooled


def test_grid_patch_cells_from_pixels():
    """All 1,000: the red pixels' place gives the cell, the cell's centre is the gold."""
    cells = Counter()
    for index in range(1000):
        picture = grid_patch.draw(SEED, index)
        question = picture.questions[0]
        pixels = picture.pixels_rgb.astype(int)
        rows, columns = np.nonzero((pixels[..., 0] > 200) & (pixels[..., 1] < 60))
        size_wh = (pixels.shape[1], pixels.shape[0])
        centre = [float(columns.mean() + 0.5), float(rows.mean() + 0.5)]
        assert centre == pytest.approx(question.gold, abs=0.51)
        u, v = grid_units(centre, size_wh)
        assert [int(u), int(v)] == question.geometry["cell_xy"]
        x0, y0, x1, y1 = question.geometry["bbox_xyxy"]
        assert question.gold == [(x0 + x1) / 2, (y0 + y1) / 2]
        cells[tuple(question.geometry["cell_xy"])] += 1
    assert len(cells) == 576  # every cell occurs
    assert max(cells.values()) <= 2


@pytest.mark.parametrize("module", [line_intersection, line_tracing, grid_patch])
def test_splits_are_80_20_in_every_class(module):
    recipe = module.RECIPE
    counts = {}
    for index in range(recipe.paper_images):
        label, _ = recipe.place(index)
        counts.setdefault(label, Counter())[recipe.split(SEED, index)] += 1
    for label, by_split in counts.items():
        share = by_split["test"] / sum(by_split.values())
        assert share == pytest.approx(0.2, abs=0.005), label


@pytest.mark.parametrize("module", [line_intersection, line_tracing, grid_patch])
def test_pictures_differ(module):
    seen = {module.draw(SEED, index).pixels_rgb.tobytes() for index in range(150)}
    assert len(seen) == 150
    assert module.draw(SEED + 1, 3).pixels_rgb.tobytes() not in seen
