"""Pictures of unknown origin: known formats alone, bounded before they are decoded, RGB as a browser shows them."""

import contextlib
import io
import warnings

import numpy as np
import pytest
from PIL import Image

from evalkit.datasets.disk import pixels_sha256
from evalkit.datasets.pictures import NotAPicture, examine, looks_like_a_picture, save_rgb


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pattern(mode="RGB", size_wh=(31, 17)):
    width, height = size_wh
    pixels = np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def turned(kind="JPEG"):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    return encoded(pattern(), kind, exif=exif)


def stored(path, picture, tmp_path):
    """What a reader of the stored file sees."""
    target = tmp_path / f"stored{picture.suffix}"
    if picture.keep:
        target.write_bytes(path.read_bytes())
    else:
        save_rgb(path, target)
    with Image.open(target) as image:
        rgb = image.convert("RGB")
    return rgb


@pytest.mark.parametrize(
    ("content", "keep", "suffix"),
    [
        (encoded(pattern(), "JPEG"), True, ".jpg"),
        (encoded(pattern(), "PNG"), True, ".png"),
        (encoded(pattern(), "WEBP"), True, ".webp"),
        (encoded(pattern("L"), "JPEG"), False, ".png"),
        (encoded(pattern("CMYK"), "JPEG"), False, ".png"),
        (encoded(pattern("P"), "PNG"), False, ".png"),
        (encoded(pattern("RGBA"), "PNG"), False, ".png"),
        (encoded(pattern("I;16"), "PNG"), False, ".png"),
        (encoded(pattern("P"), "GIF"), False, ".png"),
        (encoded(pattern(), "GIF", save_all=True, append_images=[pattern("L")]), False, ".png"),
        (encoded(pattern(), "BMP"), False, ".png"),
        (encoded(pattern(), "TIFF"), False, ".png"),
        (turned(), False, ".png"),
        (turned("PNG"), False, ".png"),
    ],
)
def test_pictures_are_stored_as_rgb(tmp_path, content, keep, suffix):
    path = tmp_path / "file"
    path.write_bytes(content)
    picture = examine(path)
    assert (picture.keep, picture.suffix) == (keep, suffix)
    image = stored(path, picture, tmp_path)
    assert image.size == picture.size_wh
    assert pixels_sha256(image.size, image.tobytes()) == picture.pixels_sha256


def test_the_orientation_tag_is_applied(tmp_path):
    """Points were placed on the picture as a browser shows it."""
    path = tmp_path / "file"
    path.write_bytes(turned("PNG"))
    picture = examine(path)
    assert picture.size_wh == (17, 31)
    assert (
        stored(path, picture, tmp_path).tobytes() == pattern().transpose(Image.Transpose.ROTATE_270).tobytes()
    )


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) show\n"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "not_an_image"),
        (b"<html>", "not_an_image"),
        (EPS, "not_an_image"),  # would start Ghostscript
        (encoded(pattern(), "JPEG")[:-300], "truncated"),
        (encoded(pattern(), "PNG")[:-60], "truncated"),
        (encoded(pattern(size_wh=(400, 251)), "PNG"), "too_many_pixels"),
    ],
)
def test_what_is_no_picture(tmp_path, content, fault):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(NotAPicture) as refused:
        examine(path, max_pixels=100_000)
    assert refused.value.fault == fault
    assert "\n" not in str(refused.value)


def test_a_bomb_is_refused_by_its_header(tmp_path):
    bomb = pytest.importorskip("picture_server", reason="the `data` extra is not installed").bomb()
    path = tmp_path / "file"
    path.write_bytes(bomb)
    with pytest.raises(NotAPicture, match="pixels"):
        examine(path)


@pytest.mark.parametrize(
    ("head", "picture"),
    [(encoded(pattern(), kind)[:16], True) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
    + [(b"", False), (b"<!doctype html>", False), (b"RIFF....WAVE", False)],
)
def test_first_bytes(head, picture):
    assert looks_like_a_picture(head) is picture


def test_changed_bytes_raise_nothing_else(tmp_path):
    """Every format, some bytes changed or cut off: a picture, or NotAPicture with its reason."""
    random = np.random.default_rng(5)
    path = tmp_path / "file"
    seeds = [
        turned(),
        turned("PNG"),
        encoded(pattern(), "GIF"),
        encoded(pattern(), "BMP"),
        encoded(pattern(), "WEBP"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about what it skips
        for turn in range(400):
            content = bytearray(seeds[turn % len(seeds)])
            for place in random.integers(0, min(len(content), 300), 4):
                content[place] = random.integers(0, 256)
            path.write_bytes(content[: random.integers(1, 2 * len(content))])
            with contextlib.suppress(NotAPicture):
                examine(path)
