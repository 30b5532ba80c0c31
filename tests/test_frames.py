"""Frames: hand-worked conversions, round trips, and what a wrong frame does to a score."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import FrameError
from evalkit.frames import FRAME_KINDS, Frame, from_pixels, grid_units, smart_resize, to_pixels

SIZE_WH = (640, 428)


@pytest.mark.parametrize(
    ("frame", "stated", "pixels"),
    [
        (Frame("pixel"), [468.3, 0.91], [468.3, 0.91]),
        (Frame("unit"), [0.5, 0.25], [320, 107]),
        (Frame("percent"), [61.5, 40.4], [393.6, 172.912]),
        (Frame("per_mille"), [500, 250], [320, 107]),
        (Frame("per_mille", "yx"), [250, 500], [320, 107]),
        # padded to 640 x 640: (640 - 428) // 2 = 106 rows above the picture
        (Frame("padded_unit"), [0.5, 0.5], [320, 214]),
        (Frame("padded_unit"), [0.0, 0.0], [0, -106]),
        # cell 12 of 24: centre at 12.5 cells; 640 / 24 = 26.667, 428 / 24 = 17.833
        (Frame("grid_24"), [12, 0], [333.3333, 8.9167]),
        # 640 x 428 is resized to 644 x 420
        (Frame("resized_pixel"), [644, 420], [640, 428]),
        (Frame("per_mille", "yx"), [393, 67, 574, 206], [42.88, 168.204, 131.84, 245.672]),
    ],
)
def test_to_pixels(frame, stated, pixels):
    assert to_pixels(stated, frame, SIZE_WH) == pytest.approx(pixels, abs=1e-3)


def test_tall_images_pad_to_the_left():
    # 100 x 300 padded to 300: 100 columns to the left; 0.5 of 300 is 150, 50 in the picture
    assert to_pixels([0.5, 0.5], Frame("padded_unit"), (100, 300)) == [50, 150]


@given(
    kind=st.sampled_from(FRAME_KINDS),
    order=st.sampled_from(["xy", "yx"]),
    size_wh=st.tuples(st.integers(28, 4000), st.integers(28, 4000)),
    values=st.one_of(
        st.lists(st.floats(-5e3, 5e3), min_size=2, max_size=2),
        st.lists(st.floats(-5e3, 5e3), min_size=4, max_size=4),
    ),
)
def test_round_trip(kind, order, size_wh, values):
    frame = Frame(kind, order)
    stated = from_pixels(values, frame, size_wh)
    assert to_pixels(stated, frame, size_wh) == pytest.approx(values, rel=1e-9, abs=1e-6)
    assert from_pixels(to_pixels(values, frame, size_wh), frame, size_wh) == pytest.approx(
        values, rel=1e-9, abs=1e-6
    )


def test_frames_differ():
    """The same numbers mean another place in each frame: nothing is guessed."""
    places = {tuple(to_pixels([0.4, 0.7], Frame(kind), SIZE_WH)) for kind in FRAME_KINDS}
    assert len(places) == len(FRAME_KINDS)


def test_grid_units_are_continuous():
    assert grid_units([320, 107], SIZE_WH) == (12.0, 6.0)


@pytest.mark.parametrize("values", [[], [1], [1, 2, 3], [1, 2, 3, 4, 5]])
def test_only_points_and_boxes(values):
    with pytest.raises(FrameError, match=f"found {len(values)}"):
        to_pixels(values, Frame("unit"), SIZE_WH)


@pytest.mark.parametrize(("kind", "order"), [("grid", "xy"), ("unit", "xyxy")])
def test_unknown_frame(kind, order):
    with pytest.raises(FrameError, match=r"No (frame|axis order)"):
        Frame(kind, order)


@pytest.mark.parametrize(
    ("size_wh", "limits", "resized"),
    [
        ((640, 480), {}, (644, 476)),
        ((28, 28), {}, (56, 56)),  # below 56 * 56: enlarged
        ((42, 70), {"min_pixels": 28 * 28}, (56, 56)),  # 1.5 and 2.5 factors round half to even: 2, 2
        ((1000, 1000), {"max_pixels": 672 * 672}, (672, 672)),
        ((4000, 2000), {"max_pixels": 12544}, (140, 56)),
    ],
)
def test_smart_resize(size_wh, limits, resized):
    assert smart_resize(size_wh, **limits) == resized


def test_smart_resize_refuses_slivers():
    with pytest.raises(FrameError, match="aspect ratios up to 200"):
        smart_resize((28, 28 * 201))
