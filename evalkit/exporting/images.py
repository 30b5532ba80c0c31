"""Image files as they go out: checked against the set's pixels, and never turned by who reads them.

`datasets` turns an image as its EXIF orientation says when it decodes it, which would move every coordinate.
Such a file is straightened: a JPEG loses its APP1 segments (Exif and XMP) and nothing else, so that not a
pixel changes; any other is stored anew as PNG. All others go out byte for byte.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import ExifTags, Image
from tqdm import tqdm

from evalkit.datasets.disk import Split, pixels_sha256
from evalkit.datasets.pictures import FORMATS
from evalkit.datasets.verify import BAD_IMAGE
from evalkit.errors import DataError
from evalkit.records import Sample

_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),  # a JPEG of several pictures; the first is meant
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
_NAMED = 5  # how many damaged images an error names
_THREADS = 4
_APP1, _SCAN = 0xE1, 0xDA


@dataclass(frozen=True, slots=True)
class Stored:
    """How an image goes out. suffix: of the file that is written; straightened: not byte for byte."""

    suffix: str
    straightened: bool


def check_images(splits: Iterable[Split]) -> dict[str, Stored]:
    """Decode every image once: path -> how it goes out.

    Raises DataError, which names the first damaged ones and counts them; nothing is written before.
    """
    samples = {str(sample.image_path): sample for split in splits for sample in split.samples}
    stored: dict[str, Stored] = {}
    faults: list[str] = []
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(total=len(samples), desc="checking", unit="image", disable=None) as bar,
    ):
        for path, found in zip(samples, pool.map(_checked, samples.values()), strict=True):
            if isinstance(found, Stored):
                stored[path] = found
            else:
                faults.append(f"{path}: {found}.")
            bar.update(1)
    if faults:
        more = f"\n... and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise DataError(
            "\n".join(faults[:_NAMED]) + f"{more}\nNothing was exported: see `evalkit data verify`."
        )
    return stored


def image_bytes(path: Path, stored: Stored) -> bytes:
    """The file as it goes out."""
    data = path.read_bytes()
    return _straightened(data)[0] if stored.straightened else data


def _checked(sample: Sample) -> Stored | str:
    """How it goes out, or what is wrong with it."""
    try:
        with Image.open(sample.image_path, formats=FORMATS) as image:
            if image.size != sample.image_size_wh:
                return f"{image.width} x {image.height} pixels, the set says {sample.image_size_wh}"
            kind = image.format or ""
            found = pixels_sha256(image.size, image.convert("RGB").tobytes())
            turned = _is_turned(image)  # once decoded: of a TIFF, Pillow has then followed the tag itself
        if found != sample.pixels_sha256:
            return "other pixels than were recorded"
        suffixes = _SUFFIXES.get(kind)
        if turned or suffixes is None:
            return Stored(_straightened(sample.image_path.read_bytes())[1], straightened=True)
    except FileNotFoundError:
        return "missing"
    except BAD_IMAGE as error:
        return f"cannot be decoded ({error})"
    suffix = sample.image_path.suffix
    return Stored(suffix if suffix.lower() in suffixes else suffixes[0], straightened=False)


def _is_turned(image: Image.Image) -> bool:
    """Whether a reader that follows the orientation (Exif, or else XMP) would turn or mirror it."""
    return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)


def _straightened(data: bytes) -> tuple[bytes, str]:
    """The same pixels in a file that says nothing of an orientation, and its suffix."""
    if data[:2] == b"\xff\xd8":
        bare = _without_app1(data)
        with Image.open(BytesIO(bare), formats=FORMATS) as image:
            image.load()
            if not _is_turned(image):
                return bare, ".jpg"
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        out = BytesIO()
        plain = Image.frombytes("RGB", image.size, image.convert("RGB").tobytes())  # pixels, no metadata
        plain.save(out, format="PNG")
    return out.getvalue(), ".png"


def _without_app1(jpeg: bytes) -> bytes:
    """A JPEG without its APP1 segments; the scan and all other segments as they are."""
    kept, at = bytearray(jpeg[:2]), 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF and jpeg[at + 1] != _SCAN:
        if jpeg[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] != _APP1:
            kept += jpeg[at:end]
        at = end
    return bytes(kept + jpeg[at:])
