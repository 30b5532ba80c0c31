"""Files of unknown content -> pictures that can be trusted: known formats, bounded pixels, decoded to the end."""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from evalkit.datasets.disk import pixels_sha256

MAX_PIXELS = 64_000_000
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
# What is opened, whatever a file is called. None of them starts another program, as PostScript does.
FORMATS = (*_SUFFIXES, "GIF", "BMP", "TIFF")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
# What Pillow's decoders raise on torn and hostile files, found by changing bytes of good ones.
TORN = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    ZeroDivisionError, MemoryError, RuntimeError, AssertionError, struct.error, zlib.error,
)  # fmt: skip

Fault = Literal["not_an_image", "too_many_pixels", "truncated"]


class NotAPicture(Exception):
    """A file that is no usable picture: `fault` says of which kind, the message why."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault: Fault = fault


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as it will be stored.

    pixels_sha256: over the RGB pixels that the stored file decodes to. keep: the file's bytes are stored as
    they are, else its pixels as an RGB PNG (a palette, transparency, CMYK, an orientation, several frames).
    """

    size_wh: tuple[int, int]
    pixels_sha256: str
    suffix: str
    keep: bool


def looks_like_a_picture(head: bytes) -> bool:
    """Whether a file's first bytes are those of a picture format."""
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def examine(path: Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a file to its last pixel. The size in its header is checked first, so a bomb costs no memory.

    Raises NotAPicture.
    """
    image, keep, suffix = _decoded(path, max_pixels)
    return Picture(image.size, pixels_sha256(image.size, image.tobytes()), suffix if keep else ".png", keep)


def save_rgb(path: Path, target: Path, max_pixels: int = MAX_PIXELS) -> None:
    """Store the pixels of a picture as an RGB PNG. Raises NotAPicture."""
    _decoded(path, max_pixels)[0].save(target, format="PNG")


def _decoded(path: Path, max_pixels: int) -> tuple[Image.Image, bool, str]:
    """The RGB pixels as a browser shows them, turned as the file says; whether it can be kept; its suffix."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise NotAPicture("too_many_pixels", f"{image.width} x {image.height} pixels")
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            plain = image.mode == "RGB" and getattr(image, "n_frames", 1) == 1 and not turned
            keep = plain and image.format in _SUFFIXES
            suffix = _SUFFIXES.get(image.format or "", ".png")
            image.load()
            return (ImageOps.exif_transpose(image) if turned else image).convert("RGB"), keep, suffix
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise NotAPicture("too_many_pixels", _line(error)) from None
    except UnidentifiedImageError:
        raise NotAPicture("not_an_image", "not a picture of a known format") from None
    except TORN as error:
        raise NotAPicture("truncated", _line(error)) from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
