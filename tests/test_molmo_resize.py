"""Molmo's resize without tensorflow: values by hand, tensorflow itself where it is installed, and no trace left."""

import sys

import numpy as np
import pytest

from evalkit.errors import AdapterError
from model_adapters import molmo_resize

pytest.importorskip("torch")

pytestmark = pytest.mark.local


@pytest.fixture
def no_tensorflow():
    if molmo_resize.has_tensorflow():
        pytest.skip("tensorflow is installed: the stand-in is not used")


@pytest.mark.usefixtures("no_tensorflow")
def test_the_stand_in_is_there_only_while_needed():
    assert "tensorflow" not in sys.modules
    with molmo_resize.resize_at_hand():
        import tensorflow as tf

        assert tf.image.ResizeMethod.BILINEAR == "bilinear"
    assert "tensorflow" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        __import__("tensorflow")


@pytest.mark.usefixtures("no_tensorflow")
def test_an_error_takes_the_stand_in_away_too():
    with pytest.raises(KeyError), molmo_resize.resize_at_hand():
        raise KeyError
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("pixels", "size", "expected"),
    [
        # halved: every other pixel's triangle of radius 2 covers 4 pixels with weights 1 3 3 1, cut at the border
        ([0, 80, 160, 240], 2, [(3 * 0 + 3 * 80 + 160) / 7, (80 + 3 * 160 + 3 * 240) / 7]),
        ([0, 240], 4, [0, 60, 180, 240]),  # doubled: the centres lie at -1/4, 1/4, 3/4, 5/4
        ([7, 9, 11], 3, [7, 9, 11]),
    ],
)
def test_the_resize_by_hand(pixels, size, expected):
    """Two equal rows of grey pixels along x, then along y. Values worked out from the filter's definition."""
    tf = molmo_resize.stand_in()
    rows = np.broadcast_to(np.array(pixels, np.uint8)[None, :, None], (2, len(pixels), 3)).copy()
    for along_y, target in ((False, [2, size]), (True, [size, 2])):
        image = rows.swapaxes(0, 1).copy() if along_y else rows
        unit = tf.image.convert_image_dtype(tf.constant(image), dtype=tf.float32)
        made = tf.image.resize(unit, target, method=tf.image.ResizeMethod.BILINEAR, antialias=True)
        values = tf.clip_by_value(made, 0.0, 1.0).numpy()
        assert values.shape == (*target, 3)
        lines = values[..., 1].T if along_y else values[..., 1]
        assert lines[0] * 255 == pytest.approx(expected, abs=1e-3)
        assert np.array_equal(lines[0], lines[1])


def test_another_resize_is_refused():
    tf = molmo_resize.stand_in()
    image = tf.constant(np.zeros((4, 4, 3), np.float32))
    for settings in ({"method": "nearest", "antialias": True}, {"method": "bilinear"}):
        with pytest.raises(AdapterError, match="pip install tensorflow-cpu"):
            tf.image.resize(image, [2, 2], **settings)


def test_the_stand_in_against_tensorflow_itself():
    tensorflow = pytest.importorskip("tensorflow")
    ours, image = molmo_resize.stand_in(), np.random.default_rng(0).integers(0, 256, (97, 120, 3), np.uint8)
    for size in ([336, 336], [27, 33], [60, 336]):
        made = [
            tf.image.resize(
                tf.image.convert_image_dtype(tf.constant(image), dtype=tf.float32),
                size,
                method=tf.image.ResizeMethod.BILINEAR,
                antialias=True,
            ).numpy()
            for tf in (ours, tensorflow)
        ]
        assert np.abs(made[0] - made[1]).max() < 2e-4
