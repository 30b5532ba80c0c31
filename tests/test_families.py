"""Visual tokens: hand-worked places, round trips, and the real image processors."""

import random

import numpy as np
import pytest
from PIL import Image

from evalkit.errors import AdapterError, ConfigError, FrameError
from evalkit.frames import QWEN_MAX_PIXELS, smart_resize
from model_adapters.families import (
    Llava,
    Qwen25VL,
    expand_placeholder,
    family_class,
    messages,
    visual_positions,
)
from model_adapters.local_inputs import pad_to_square


@pytest.mark.parametrize(
    ("family", "size_wh", "rows_cols", "point_xy_px", "token"),
    [
        # 100 x 80 -> 112 x 84 px: 4 x 3 tokens; x * 4 / 100, y * 3 / 80
        (Qwen25VL(), (100, 80), (3, 4), (0, 0), 0),
        (Qwen25VL(), (100, 80), (3, 4), (50, 40), 1 * 4 + 2),
        (Qwen25VL(), (100, 80), (3, 4), (49.9, 26.6), 0 * 4 + 1),
        (Qwen25VL(), (100, 80), (3, 4), (99.9, 79.9), 11),
        (Qwen25VL(), (100, 80), (3, 4), (100, 80), 11),  # the far border belongs to the last token
        # 672 x 672 is kept: 24 x 24 tokens of 28 px
        (Qwen25VL(), (672, 672), (24, 24), (28, 27.9), 1),
        (Qwen25VL(), (672, 672), (24, 24), (28, 28), 25),
        # 1000 x 500 in at most 16 tokens: 140 x 84 would be 15; floor(1000 / 6.3131 / 28) = 5, 500: 2
        (Qwen25VL(3136, 12544), (1000, 500), (2, 5), (999, 1), 4),
        (Qwen25VL(3136, 12544), (1000, 500), (2, 5), (0, 250), 5),
        # 640 x 480 in a square of 640, 80 px above it: (0, 0) at y = 80 * 24 / 640 = 3 tokens
        (Llava(), (640, 480), (24, 24), (0, 0), 3 * 24),
        (Llava(), (640, 480), (24, 24), (639, 479), 20 * 24 + 23),
        (Llava(), (640, 480), (24, 24), (320, 240), 12 * 24 + 12),
        # 333 x 500: 83 px on the left, not 83.5: 83 * 24 / 500 = 3.984
        (Llava(), (333, 500), (24, 24), (0, 0), 3),
        (Llava(), (333, 500), (24, 24), (0.4, 0), 4),
        (Llava(image_size=56), (200, 100), (4, 4), (100, 0), 1 * 4 + 2),
    ],
)
def test_token_of_a_pixel(family, size_wh, rows_cols, point_xy_px, token):
    grid = family.grid(size_wh)
    assert (grid.rows, grid.cols) == rows_cols
    assert grid.token_of(point_xy_px) == token


@pytest.mark.parametrize("family", [Qwen25VL(), Qwen25VL(3136, 12544), Llava(), Llava(image_size=56)])
@pytest.mark.parametrize("size_wh", [(336, 336), (640, 480), (333, 500), (1000, 10), (17, 1201), (1, 1)])
def test_token_centre_round_trip(family, size_wh):
    grid = family.grid(size_wh)
    tokens = np.arange(len(grid))
    assert np.array_equal(grid.token_of(grid.centre_of(tokens)), tokens)


def test_centres_by_hand():
    # one token is 25 x 26.67 px of a 100 x 80 image
    assert Qwen25VL().grid((100, 80)).centre_of(6) == pytest.approx((62.5, 40))
    # 20 px a token in a square of 480 (content from y = 80): token (0, 0) is padding, above the image
    assert Llava().grid((480, 320)).centre_of(0) == pytest.approx((10, -70))


def test_points_in_arrays_keep_their_shape():
    points = np.array([[[0, 0], [99, 0]], [[0, 79], [99, 79]], [[50, 40], [50, 40]]])
    assert Qwen25VL().grid((100, 80)).token_of(points).tolist() == [[0, 3], [8, 11], [6, 6]]


def test_placeholder():
    ids = expand_placeholder([1, 7, 9], image_token_id=7, n_visual=3)
    assert ids == [1, 7, 7, 7, 9]
    assert visual_positions(ids, 7).tolist() == [1, 2, 3]


@pytest.mark.parametrize("ids", [[1, 9], [7, 1, 7]])
def test_placeholder_must_stand_once(ids):
    with pytest.raises(AdapterError, match=f"holds {ids.count(7)} image placeholders"):
        expand_placeholder(ids, 7, 3)


def test_messages():
    assert [m["role"] for m in messages(Qwen25VL, "Q")] == ["user"]
    system, user = messages(Llava, "Q")
    assert system["content"][0]["text"].startswith("A chat between a curious user")
    assert user["content"] == [{"type": "image"}, {"type": "text", "text": "Q"}]


def test_unknown_family():
    with pytest.raises(ConfigError, match=r"'molmo'. Known families: qwen2_5_vl, llava"):
        family_class("molmo")


def random_sizes(n):
    """Sizes of all kinds: ordinary, thin, tiny, huge, and multiples of half a factor, where rounding ties."""
    rng = random.Random(3)
    for _ in range(n):
        kind = rng.randrange(4)
        if kind == 0:
            yield rng.randint(10, 2000), rng.randint(10, 2000)
        elif kind == 1:
            short = rng.randint(1, 60)
            yield short, rng.randint(short, 200 * short)
        elif kind == 2:
            yield 14 * rng.randint(1, 150), 14 * rng.randint(1, 150)
        else:
            yield rng.randint(2000, 9000), rng.randint(2000, 9000)


@pytest.mark.local
def test_smart_resize_is_that_of_transformers():
    pytest.importorskip("transformers")
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as reference

    sizes = [(10, 1000), (1000, 10), (1, 1), (1, 200), (13, 2600), (14, 14), (42, 70), (672, 672)]
    for limits in [(3136, QWEN_MAX_PIXELS), (3136, 12544), (200_704, 1_003_520), (451_584, 451_584)]:
        for width, height in [*sizes, *random_sizes(3000)]:
            expected_hw = reference(height, width, 28, *limits)
            assert smart_resize((width, height), 28, *limits) == expected_hw[::-1], (width, height, limits)
    with pytest.raises(ValueError, match="aspect ratio"):
        reference(1, 201)
    with pytest.raises(FrameError):
        smart_resize((201, 1))


# (image, a point inside it): the pixels around the point are black, all else is white
SPOTS = [((336, 336), (20, 20)), ((640, 480), (500, 130)), ((300, 700), (40, 650)), ((1000, 250), (930, 30))]


def spotted(size_wh, point_xy_px):
    image = Image.new("RGB", size_wh, "white")
    radius = max(size_wh) // 60
    x, y = point_xy_px
    image.paste("black", (x - radius, y - radius, x + radius, y + radius))
    return image


@pytest.mark.local
@pytest.mark.parametrize(("size_wh", "point_xy_px"), SPOTS)
def test_qwen_processor_puts_the_spot_in_that_token(size_wh, point_xy_px):
    pytest.importorskip("transformers")
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    made = Qwen2VLImageProcessorPil()(images=[spotted(size_wh, point_xy_px)], return_tensors="np")
    grid = Qwen25VL(max_pixels=28 * 28 * 1280).grid(size_wh)
    assert made["image_grid_thw"].tolist() == [[1, 2 * grid.rows, 2 * grid.cols]]
    # four patches in a row are one token
    darkness = -made["pixel_values"].reshape(len(grid), -1).mean(axis=1)
    assert np.argmax(darkness) == grid.token_of(point_xy_px)


@pytest.mark.local
@pytest.mark.parametrize(("size_wh", "point_xy_px"), SPOTS)
def test_llava_processor_puts_the_spot_in_that_token(size_wh, point_xy_px):
    pytest.importorskip("transformers")
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    square = pad_to_square(spotted(size_wh, point_xy_px), (255, 255, 255))
    pixels = processor(images=[square], return_tensors="np")["pixel_values"][0]  # (3, 336, 336)
    assert pixels.shape == (3, 336, 336)
    darkness = -pixels.reshape(3, 24, 14, 24, 14).mean(axis=(0, 2, 4)).ravel()
    assert np.argmax(darkness) == Llava().grid(size_wh).token_of(point_xy_px)


@pytest.mark.parametrize(
    ("size_wh", "content_box"),
    [((4, 2), (0, 1, 4, 3)), ((3, 6), (1, 0, 4, 6)), ((5, 5), (0, 0, 5, 5))],
)
def test_padding_has_the_smaller_half_first(size_wh, content_box):
    square = pad_to_square(Image.new("RGB", size_wh, "white"), (122, 116, 104))
    assert square.size == (max(size_wh), max(size_wh))
    white = np.all(np.asarray(square) == 255, axis=-1)
    x0, y0, x1, y1 = content_box
    assert white[y0:y1, x0:x1].all()
    assert white.sum() == size_wh[0] * size_wh[1]
