"""Line Tracing: a centre node and 3 to 6 labelled nodes around it, some joined by polygonal curves; which?

The paper's own set (Sec. 4.1.1 of arXiv 2511.12738): 1,064 images and 5,360 balanced questions. Every
connected pair is asked, and as many unconnected ones. 3a + 2b = 2,680 Yes questions on a + b = 1,064
images leave exactly a = 552 images with three edges and b = 512 with two. Edges are disjoint, so two
edges have 4 or 5 nodes and three have 6 or 7.

Who is joined to whom is drawn before any geometry and never drawn again: a pair that is hard to join
cleanly stays, so that neither distance nor place tells the answer. All curves of an image have one
colour, so that colour does not tell it either.
"""

from collections.abc import Mapping
from functools import lru_cache
from itertools import combinations, pairwise
from math import cos, pi, sin

import numpy as np

from evalkit.datasets.drawing import FULL, RGB, WHITE, Canvas, Stamp, cover
from evalkit.datasets.glyphs import LETTERS, glyph
from evalkit.datasets.planar import (
    Point,
    Unclear,
    clear_crossings,
    cos_turn,
    crossing,
    distance,
    point_to_curve,
    segments_apart,
)
from evalkit.datasets.recipe import Picture, Question, Recipe
from evalkit.datasets.stream import Stream

NAME = "line_tracing"
IMAGES, THREE_EDGES = 1064, 552
SIDE = 448  # px: 16 x 16 merged visual tokens of 28 px

NODE_RADIUS = 16.0
STAMP = 36  # px a side of a drawn node
LINE_WIDTH = 3.5
LETTER_HEIGHT = 15.0
MARGIN = 12.0  # of curves to the border
INK: RGB = (25, 28, 33)
COLORS: tuple[RGB, ...] = (
    (31, 95, 168),
    (178, 34, 34),
    (22, 120, 72),
    (120, 60, 150),
    (176, 96, 0),
    (60, 66, 74),
)

# What keeps a drawing readable, px
NODES_APART = 84.0
FOREIGN_NODE = NODE_RADIUS + 13.0  # curve to the centre of a node that is not its end
CURVES_APART = 15.0
CROSSING_TO_KNOT = 17.0
CROSSING_TO_CROSSING = 26.0
CROSSING_TO_NODE = 40.0
SIN2_ANGLE = 0.33  # 35 degrees
COS_TURN = 0.5  # interior angles of at least 60 degrees
SHORTEST_SEGMENT = 32.0
MOST_CROSSINGS = 3

_TRIES_A_CURVE, _TRIES_A_LAYOUT = 60, 6


def place(index: int) -> tuple[str, int]:
    """Images with three and with two edges alternate so that 1,064 have exactly 552 and 512."""
    threes = index * THREE_EDGES // IMAGES
    if (index + 1) * THREE_EDGES // IMAGES > threes:
        return "3", threes
    return "2", index - threes


def _matching(stream: Stream, n_nodes: int, n_edges: int) -> list[tuple[int, int]]:
    order = stream.shuffled(range(n_nodes))
    return [(order[2 * i], order[2 * i + 1]) for i in range(n_edges)]


def _layout(stream: Stream, n_nodes: int) -> list[Point]:
    """Node positions, the centre node first; the others stand around it at uneven angles and distances."""
    around = n_nodes - 1
    turn = stream.uniform(0, 2 * pi)
    middle = SIDE / 2
    nodes = [(float(round(middle + stream.uniform(-18, 18))), float(round(middle + stream.uniform(-18, 18))))]
    for k in range(around):
        angle = turn + 2 * pi * (k + stream.uniform(-0.22, 0.22)) / around
        radius = stream.uniform(0.29, 0.41) * SIDE
        # whole pixels: nodes are stamped, and the last bit of a platform's cosine cannot reach a pixel
        nodes.append((float(round(middle + radius * cos(angle))), float(round(middle + radius * sin(angle)))))
    return nodes


def _curve(stream: Stream, a: Point, b: Point) -> list[Point]:
    """A polygonal curve from a to b with 1 to 3 bends, beside the straight line or far around."""
    bends = 1 + stream.below(3)
    span = distance(a, b)
    ux, uy = (b[0] - a[0]) / span, (b[1] - a[1]) / span
    reach = stream.choice((0.35, 0.6, 0.9)) * max(span, 110.0)
    side = stream.choice((-1.0, 1.0))
    points = [a]
    for k in range(1, bends + 1):
        along = (k + stream.uniform(-0.3, 0.3)) / (bends + 1) * span
        off = side * stream.uniform(0.15, 1.0) * reach
        if stream.below(4) == 0:
            off = -off  # a zigzag now and then
        points.append((round(a[0] + ux * along - uy * off, 2), round(a[1] + uy * along + ux * off, 2)))
    return [*points, b]


def _well_formed(curve: list[Point], foreign: list[Point]) -> bool:
    """Inside the image, bends not too sharp, clear of itself and of nodes it does not join."""
    low, high = MARGIN, SIDE - MARGIN
    if not all(low <= x <= high and low <= y <= high for x, y in curve):
        return False
    if any(distance(p, q) < SHORTEST_SEGMENT for p, q in pairwise(curve)):
        return False
    if any(cos_turn(p, q, r) > COS_TURN for p, q, r in zip(curve, curve[1:], curve[2:], strict=False)):
        return False
    if any(point_to_curve(node, curve) < FOREIGN_NODE for node in foreign):
        return False
    if min(distance(bend, end) for bend in curve[1:-1] for end in (curve[0], curve[-1])) < SHORTEST_SEGMENT:
        return False
    segments = list(pairwise(curve))
    return all(
        crossing(*one, *two) is None and segments_apart(*one, *two) >= 2 * CURVES_APART
        for i, one in enumerate(segments)
        for two in segments[i + 2 :]
    )


def _crossings(curve: list[Point], others: list[list[Point]], nodes: list[Point]) -> list[Point] | None:
    """Crossings with the curves drawn so far, None if one of them would be hard to read."""
    found: list[Point] = []
    for other in others:
        try:
            found += clear_crossings(
                curve,
                other,
                from_knots=CROSSING_TO_KNOT,
                from_each_other=CROSSING_TO_CROSSING,
                sin2_angle=SIN2_ANGLE,
                apart=CURVES_APART,
            )
        except Unclear:
            return None
    near_node = any(distance(p, node) < CROSSING_TO_NODE for p in found for node in nodes)
    near_other = any(distance(p, q) < CROSSING_TO_CROSSING for p, q in combinations(found, 2))
    return None if near_node or near_other else found


def _joined(
    stream: Stream, nodes: list[Point], edges: list[tuple[int, int]]
) -> tuple[list[list[Point]], list[Point]] | None:
    """A curve for each edge, and all crossings; None where the layout does not let them through."""
    curves: list[list[Point]] = []
    crossings: list[Point] = []
    for i, j in edges:
        foreign = [node for k, node in enumerate(nodes) if k not in (i, j)]
        for _ in range(_TRIES_A_CURVE):
            curve = _curve(stream, nodes[i], nodes[j])
            if not _well_formed(curve, foreign):
                continue
            new = _crossings(curve, curves, nodes)
            if new is None or len(crossings) + len(new) > MOST_CROSSINGS:
                continue
            if all(distance(p, q) >= CROSSING_TO_CROSSING for p in new for q in crossings):
                curves.append(curve)
                crossings += new
                break
        else:
            return None
    return curves, crossings


def graph(
    seed: int, index: int
) -> tuple[list[Point], list[tuple[int, int]], list[list[Point]], list[Point], Stream]:
    """Node positions, edges, a curve for each edge and the crossings, in pixels; and the stream, to go on with."""
    label, rank = place(index)
    n_edges = int(label)
    n_nodes = 2 * n_edges + rank % 2
    stream = Stream(seed, NAME, index)
    edges = _matching(stream, n_nodes, n_edges)
    while True:
        nodes = _layout(stream, n_nodes)
        if any(distance(p, q) < NODES_APART for p, q in combinations(nodes, 2)):
            continue
        for _ in range(_TRIES_A_LAYOUT):
            if (joined := _joined(stream, nodes, edges)) is not None:
                return nodes, edges, *joined, stream


@lru_cache(maxsize=len(LETTERS))
def node_stamp(letter: str) -> Stamp:
    """A white disc with a dark rim and its letter, (STAMP, STAMP) px, centred; drawn once a process."""
    canvas = Canvas(STAMP, STAMP)
    middle = (STAMP / 2, STAMP / 2)
    shape = canvas.index.shape
    rim = np.zeros(shape, np.uint8)
    flat, level = cover([(middle, middle)], NODE_RADIUS, shape)
    rim.reshape(-1)[flat] = level
    canvas.stroke([(middle, middle)], 2 * NODE_RADIUS, INK)
    canvas.stroke([(middle, middle)], 2 * (NODE_RADIUS - 2), WHITE)
    canvas.stroke(glyph(letter, middle, LETTER_HEIGHT), 2.2, INK)
    solid = rim == FULL
    edge = np.where(solid, 0, rim).astype(np.uint8)
    return Stamp(solid, canvas.index, tuple(canvas.palette), edge, INK)


def draw(seed: int, index: int) -> Picture:
    nodes, edges, curves, crossings, stream = graph(seed, index)
    letters = stream.shuffled(LETTERS[: len(nodes)])
    canvas = Canvas(SIDE, SIDE)
    canvas.stroke(curves, LINE_WIDTH, stream.choice(COLORS))
    for (x, y), letter in zip(nodes, letters, strict=True):
        canvas.stamp(node_stamp(letter), int(x) - STAMP // 2, int(y) - STAMP // 2)
    shared = {
        "labels": letters,
        "nodes_xy": [list(node) for node in nodes],
        "edges": [[letters[i], letters[j]] for i, j in edges],
        "curves_xy": [[list(p) for p in curve] for curve in curves],
        "crossings_xy": [[round(x, 2), round(y, 2)] for x, y in crossings],
        "node_radius": NODE_RADIUS,
        "line_width": LINE_WIDTH,
    }
    connected = {frozenset(edge): curve for edge, curve in zip(edges, curves, strict=True)}
    apart = [pair for pair in combinations(range(len(nodes)), 2) if frozenset(pair) not in connected]
    asked = [*edges, *stream.shuffled(apart)[: len(edges)]]
    questions = []
    for pair in asked:
        a, b = stream.shuffled(pair)
        path = connected.get(frozenset(pair), [])
        gold = "yes" if path else "no"
        if path and path[0] != nodes[a]:
            path = path[::-1]
        geometry = {
            **shared,
            "queried_xy": [list(nodes[a]), list(nodes[b])],
            "path_xy": [list(p) for p in path],
        }
        variables = {"node_a": letters[a], "node_b": letters[b]}
        questions.append(Question(gold, f"{len(edges)} edges, {gold}", variables, geometry))
    return Picture(canvas.index, canvas.palette_rgb, tuple(stream.shuffled(questions)))


def describe(images_by_class: Mapping[str, int]) -> str:
    return ", ".join(f"{images_by_class.get(n, 0)} images with {n} edges" for n in ("3", "2"))


RECIPE = Recipe(
    name=NAME,
    version=1,
    paper_images=IMAGES,
    draw=draw,
    place=place,
    describe=describe,
    source="drawn by evalkit after Sec. 4.1.1 of arXiv 2511.12738",
)
