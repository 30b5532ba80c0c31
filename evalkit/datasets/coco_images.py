"""COCO's train2014 pictures, from a folder or from the zip as it is published."""

import io
import lzma
import zipfile
import zlib
from pathlib import Path

from PIL import Image

from evalkit.datasets.disk import pixels_sha256
from evalkit.datasets.verify import BAD_IMAGE
from evalkit.errors import DataError

_MAX_BYTES = 64 << 20  # the largest of train2014 has less than 1 MB
# What zipfile raises on members that are torn, encrypted (RuntimeError) or packed in a way it does not know.
_UNREADABLE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


class CocoImages:
    """The files below a folder or in a zip, by name. Raises DataError where there is neither."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._zip: zipfile.ZipFile | None = None
        self._members: dict[str, str] = {}
        if place.is_dir():
            return
        try:
            self._zip = zipfile.ZipFile(place)
        except (*_UNREADABLE, ValueError) as error:
            raise DataError(f"--images {place}: neither a folder nor a zip ({error}).") from None
        self._members = {name.rpartition("/")[2]: name for name in self._zip.namelist()}

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()

    def read(self, name: str) -> bytes | None:
        """The bytes of a picture, or None where there is none of the name. Nothing is extracted by path.

        Raises ValueError, which says what is wrong with it: damaged, encrypted, too large.
        """
        try:
            return self._read(name)
        except _UNREADABLE as error:
            raise ValueError(f"cannot be read ({' '.join(str(error).split())[:120]})") from None

    def _read(self, name: str) -> bytes | None:
        if self._zip is None:
            found = (self._place / name, self._place / "train2014" / name)
            path = next((path for path in found if path.is_file()), None)
            return None if path is None else path.read_bytes()
        member = self._members.get(name)
        if member is None:
            return None
        if self._zip.getinfo(member).file_size > _MAX_BYTES:
            raise OSError(f"more than {_MAX_BYTES:,} bytes")
        return self._zip.read(member)


def size_of(content: bytes) -> tuple[int, int]:
    """(width, height) by a picture's header. Raises ValueError."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            return image.size
    except BAD_IMAGE as error:
        raise ValueError(f"the picture cannot be opened ({' '.join(str(error).split())[:120]})") from None


def rgb_sha256(content: bytes, size_wh: tuple[int, int]) -> str:
    """Identity of a picture's pixels. Raises ValueError, which says what is wrong, unless it has that size.

    An orientation tag is not applied: annotations are on the pixels as they are stored.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            if image.size != size_wh:
                found, annotated = (f"{w} x {h}" for w, h in (image.size, size_wh))
                raise ValueError(f"has {found} pixels, annotated are {annotated}")
            return pixels_sha256(image.size, image.convert("RGB").tobytes())
    except BAD_IMAGE as error:
        if "annotated are" in str(error):
            raise
        raise ValueError(f"cannot be decoded ({' '.join(str(error).split())[:120]})") from None
