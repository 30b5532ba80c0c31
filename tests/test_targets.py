"""Target maps: hand-worked tokens of every task, exact traversal, smoothing, and what preprocessing crops away."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evalkit.errors import TargetError
from evalkit.records import Sample
from evalkit.targets import Marks, marks, target_map, target_patches
from model_adapters.families import Llava, Qwen25VL, TokenGrid

UNIT = TokenGrid(4, 6, (0.1, 0.1))  # 60 x 40 px, tokens of 10 px


def sample(gold, geometry, variables=None, size_wh=(60, 40)):
    return Sample("s1", "i1", "test", Path("x.png"), size_wh, "0", gold, "", variables or {}, geometry)


def tokens(dataset, one, grid=UNIT):
    """Row, column pairs of I_P."""
    return {
        tuple(rc) for rc in np.argwhere(target_patches(marks(dataset, one), grid, one.sample_id)).tolist()
    }


def test_crossings():
    one = sample(2, {"crossings_xy": [[5, 5], [59.9, 20]], "blue_xy": [], "red_xy": []})
    assert tokens("line_intersection", one) == {(0, 0), (2, 5)}
    assert not marks("line_intersection", one).absent


def test_without_crossings_both_curves():
    one = sample(0, {"crossings_xy": [], "blue_xy": [[5, 5], [55, 5]], "red_xy": [[5, 35], [25, 35]]})
    assert tokens("line_intersection", one) == {(0, c) for c in range(6)} | {(3, 0), (3, 1), (3, 2)}
    assert marks("line_intersection", one).absent


TRACING = {
    "edges": [["A", "B"], ["C", "D"]],
    "curves_xy": [[[5, 5], [25, 5]], [[5, 35], [5, 25]]],
    "queried_xy": [[5, 5], [55, 15]],
}


def test_the_path_of_a_yes():
    one = sample("yes", TRACING | {"path_xy": [[5, 5], [5, 15], [25, 15]]}, {"node_a": "A", "node_b": "B"})
    assert tokens("line_tracing", one) == {(0, 0), (1, 0), (1, 1), (1, 2)}


def test_a_no_is_both_nodes_and_the_curves_that_leave_them():
    one = sample("no", TRACING | {"path_xy": []}, {"node_a": "A", "node_b": "E"})
    assert tokens("line_tracing", one) == {(0, 0), (0, 1), (0, 2), (1, 5)}  # C-D is not asked about


def test_the_cell_fills_the_tokens_it_overlaps():
    one = sample([20, 10], {"bbox_xyxy": [10, 5, 30, 15]})
    assert tokens("grid_patch", one) == {(0, 1), (0, 2), (1, 1), (1, 2)}
    exact = sample([15, 15], {"bbox_xyxy": [10, 10, 20, 20]})
    assert tokens("grid_patch", exact) == {(1, 1)}
    small = sample([12, 12], {"bbox_xyxy": [11, 11, 13, 13]})
    assert tokens("grid_patch", small) == {(1, 1)}


def test_every_cell_of_grid_patch_is_one_token_of_both_families():
    for family in (Qwen25VL(), Llava()):
        grid = family.grid((672, 672))
        for column, row in [(0, 0), (23, 0), (7, 15), (23, 23)]:
            box = [28 * column, 28 * row, 28 * column + 28, 28 * row + 28]
            assert tokens("grid_patch", sample([0, 0], {"bbox_xyxy": box}), grid) == {(row, column)}


def test_the_point_also_on_the_border():
    assert tokens("pixmo_points", sample([60.0, 40.0], {})) == {(3, 5)}
    assert tokens("pixmo_points", sample([0.0, 0.0], {})) == {(0, 0)}


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([12, 2, 18, 38], {(0, 1), (1, 1), (2, 1), (3, 1)}),  # upright: x = 15
        ([2, 12, 58, 18], {(1, c) for c in range(6)}),  # lying: y = 15
        ([10, 10, 20, 20], {(1, 1)}),  # square: upright, 10 to 20
    ],
)
def test_the_centre_line_of_a_box(box, expected):
    assert tokens("refcoco", sample(box, {})) == expected


def test_traversal_is_exact_where_sampling_would_miss():
    """A line that cuts one thousandth of a token's corner still passes through it."""
    grid = TokenGrid(2, 2, (1.0, 1.0))
    near = Marks(curves_xy_px=[[(0.0, 1.001), (2.0, 0.9989)]])  # crosses v = 1 at u = 0.952
    assert target_patches(near, grid, "s").tolist() == [[True, True], [True, False]]


def test_traversal_equals_dense_sampling():
    rng = np.random.default_rng(0)
    grid = TokenGrid(9, 7, (0.05, 0.08), (0.3, -0.2))
    for _ in range(200):
        curve = rng.uniform(-20, 160, (4, 2))
        units = np.concatenate(
            [
                np.linspace(a, b, 40_001)
                for a, b in zip(*(grid.token_units(curve)[i:][:3] for i in (0, 1)), strict=True)
            ]
        )
        inside = ((units > 0) & (units < (7, 9))).all(axis=1)
        expected = np.zeros((9, 7), bool)
        cells = np.floor(units[inside]).astype(int)
        expected[cells[:, 1], cells[:, 0]] = True
        found = target_patches(Marks(curves_xy_px=[curve.tolist()], points_xy_px=[[20, 40]]), grid, "s")
        expected[grid.token_of([20, 40]) // 7, grid.token_of([20, 40]) % 7] = True
        missed = expected & ~found
        assert not missed.any()
        assert (found & ~expected).sum() <= 1  # a corner smaller than the sampling's step


def test_smoothing_by_hand():
    patches = np.zeros((1, 5), bool)
    patches[0, 2] = True
    g1, g2 = np.exp(-0.5), np.exp(-2.0)
    expected = np.array([g2, g1, 1, g1, g2])
    assert target_map(patches, 1.0) == pytest.approx(expected / expected.sum())
    assert target_map(patches, 0.0).tolist() == [0, 0, 1, 0, 0]
    assert target_map(patches, 0.0, floor=0.25) == pytest.approx(np.array([1, 1, 4, 1, 1]) / 8)


def test_smoothing_is_cut_at_three_sigma_and_at_the_border():
    patches = np.zeros((1, 20), bool)
    patches[0, 0] = True
    smooth = target_map(patches, 1.0)
    assert np.count_nonzero(smooth) == 4
    assert smooth.sum() == pytest.approx(1)
    assert smooth[0] == smooth.max()


def test_smoothing_does_not_mix_rows_and_columns():
    patches = np.zeros((3, 4), bool)
    patches[0, 3] = True
    assert np.argmax(target_map(patches, 0.5)) == 3


def test_several_patches_weigh_alike():
    patches = np.zeros((8, 8), bool)
    patches[1, 1] = patches[6, 6] = True
    smooth = target_map(patches, 0.7)
    assert smooth[9] == pytest.approx(smooth[54])
    assert smooth.sum() == pytest.approx(1)


@pytest.mark.parametrize(("sigma", "floor"), [(-1, 0), (1, 1), (1, -0.1)])
def test_bad_settings(sigma, floor):
    with pytest.raises(TargetError, match="sigma"):
        target_map(np.ones((2, 2), bool), sigma, floor)


def test_what_a_crop_takes_away_is_an_error_with_a_name():
    crop = Llava(layout="crop").grid((640, 320))  # x below 160 and above 480 is gone
    assert tokens("pixmo_points", sample([170.0, 160.0], {}), crop) == {(12, 0)}
    with pytest.raises(
        TargetError, match=r"s1: the point \(150, 160\) px lies outside of the 24 x 24 visual"
    ):
        tokens("pixmo_points", sample([150.0, 160.0], {}), crop)
    with pytest.raises(TargetError, match="s1: its target lies outside"):
        tokens("refcoco", sample([20.0, 10, 100, 60], {}), crop)
    # of a line that is half inside, the visible half counts
    assert tokens("refcoco", sample([100.0, 0, 220, 20], {}), crop) == {(0, c) for c in range(5)}


def test_geometry_that_lacks_a_key():
    with pytest.raises(TargetError, match="s1: its geometry has no 'crossings_xy'"):
        marks("line_intersection", sample(1, {}))
    with pytest.raises(TargetError, match="s1: no target map for data set 'jokes'"):
        marks("jokes", sample(1, {}))


@pytest.mark.local
@pytest.mark.parametrize(
    ("size_wh", "point_xy_px"), [((640, 480), (500, 130)), ((300, 700), (40, 400)), ((1000, 250), (550, 30))]
)
def test_the_cropping_processor_puts_the_spot_in_that_token(size_wh, point_xy_px):
    pytest.importorskip("transformers")
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    image = Image.new("RGB", size_wh, "white")
    x, y = point_xy_px
    radius = max(2, min(size_wh) // 60)
    image.paste("black", (x - radius, y - radius, x + radius, y + radius))
    processor = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    pixels = processor(images=[image], return_tensors="np")["pixel_values"][0]
    darkness = -pixels.reshape(3, 24, 14, 24, 14).mean(axis=(0, 2, 4)).ravel()
    grid = Llava(layout="crop").grid(size_wh)
    patches = target_patches(Marks(points_xy_px=[point_xy_px]), grid, "s")
    assert np.argmax(darkness) == np.argmax(patches.ravel())
