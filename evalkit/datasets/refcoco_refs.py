"""A ref of RefCOCO (UNC): one object, the sentences that refer to it, and what the published splits count.

Annotations: Yu et al., Modeling Context in Referring Expressions, https://github.com/lichengunc/refer
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import category

from evalkit.errors import DataError

SPLITS = ("train", "val", "testA", "testB")
# Images, refs, sentences.
PUBLISHED: Mapping[str, tuple[int, int, int]] = {
    "train": (16_994, 42_404, 120_624),
    "val": (1_500, 3_811, 10_834),
    "testA": (750, 1_975, 5_657),
    "testB": (750, 1_810, 5_095),
}
# A box may pass the picture's edge by what rounding explains.
_SLACK_PX = 1.0
_IMG_ID = re.compile(r"(COCO_train2014_[0-9]{12})_[0-9]{1,9}", re.ASCII)
_IMAGE = re.compile(r"COCO_train2014_[0-9]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Ref:
    """img_id: `<image>_<number>` as annotated, or made of the box where the source has none (`ref_of_box`).

    bbox_xyxy: continuous pixels, rounded to hundredths. sentences: in their published order.
    """

    split: str
    img_id: str
    image: str  # COCO_train2014_000000580957
    bbox_xyxy: tuple[float, float, float, float]
    size_wh: tuple[int, int]
    sentences: tuple[str, ...]


def make_ref(
    split: str, img_id: Any, bbox_xyxy: Sequence[float], size_wh: Any, sentences: Iterable[Any]
) -> Ref:
    """Checks everything. Raises ValueError with what was found and what is allowed."""
    named = _IMG_ID.fullmatch(img_id) if isinstance(img_id, str) else None
    if named is None:
        raise ValueError(f"img_id {str(img_id)[:60]!r}; expected COCO_train2014_<12 digits>_<number>")
    return _made(split, named[0], named[1], bbox_xyxy, size_wh, sentences)


def ref_of_box(
    split: str, image: Any, bbox_xyxy: Sequence[float], size_wh: Any, sentences: Iterable[Any]
) -> Ref:
    """A ref of a source without img_id: its id is made of the box, `<image>_box468.3,0.91,640,117.03`."""
    if not isinstance(image, str) or not _IMAGE.fullmatch(image):
        raise ValueError(f"image {str(image)[:60]!r}; expected COCO_train2014_<12 digits>.jpg")
    ref = _made(split, "", image, bbox_xyxy, size_wh, sentences)
    words = ",".join(f"{value:g}" for value in ref.bbox_xyxy)
    return Ref(split, f"{image}_box{words}", image, ref.bbox_xyxy, ref.size_wh, ref.sentences)


def _made(
    split: str, img_id: str, image: str, bbox: Sequence[float], size_wh: Any, sentences: Iterable[Any]
) -> Ref:
    width, height = size_wh
    if not all(type(side) is int and 0 < side < 100_000 for side in (width, height)):
        raise ValueError(f"width {width!r}, height {height!r}; expected whole numbers above 0")
    x0, y0, x1, y1 = (round(value, 2) for value in bbox)
    inside = -_SLACK_PX <= x0 < x1 <= width + _SLACK_PX and -_SLACK_PX <= y0 < y1 <= height + _SLACK_PX
    if not inside:
        raise ValueError(
            f"bbox_xyxy {[x0, y0, x1, y1]} has no area or leaves the picture of {width} x {height}"
        )
    if not isinstance(sentences, list | tuple):
        raise ValueError(f"sentences {str(sentences)[:60]!a}; expected a list of texts")
    texts = tuple(sentences)
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("a sentence is missing or empty")
    clean = tuple(" ".join(text.split()) for text in texts)
    if broken := [text for text in clean if any(category(letter) in ("Cc", "Cs") for letter in text)]:
        raise ValueError(f"a sentence has control characters: {broken[0][:80]!a}")
    return Ref(split, img_id, image, (x0, y0, x1, y1), (width, height), clean)


def numbers(value: Any) -> tuple[float, float, float, float]:
    """Four finite numbers. Raises ValueError."""
    if value is None or isinstance(value, str | bytes) or len(value) != 4:
        raise ValueError(f"bbox {str(value)[:60]!r}; expected four numbers")
    if not all(type(v) in (int, float) and abs(v) <= sys.float_info.max for v in value):
        raise ValueError(f"bbox {str(list(value))[:60]}; expected four finite numbers")
    a, b, c, d = (float(v) for v in value)
    return a, b, c, d


def from_xywh(value: Any) -> tuple[float, float, float, float]:
    """[x, y, width, height] -> bbox_xyxy."""
    x, y, wide, high = numbers(value)
    return x, y, x + wide, y + high


def check_refs(refs: Sequence[Ref], where: str) -> None:
    """Raises DataError where an img_id stands twice."""
    seen: set[tuple[str, str]] = set()
    for ref in refs:
        if (ref.split, ref.img_id) in seen:
            raise DataError(f"{where}: {ref.split}/{ref.img_id} stands there twice.")
        seen.add((ref.split, ref.img_id))


def count(refs: Iterable[Ref]) -> tuple[int, int, int]:
    """Images, refs, sentences."""
    own = list(refs)
    return len({ref.image for ref in own}), len(own), sum(len(ref.sentences) for ref in own)


def size_faults(refs: Sequence[Ref], splits: Iterable[str], *, by_box: bool) -> list[str]:
    """How the splits differ from the published ones, a line each.

    by_box: refs were told apart by their boxes, and two of one box are one then: they are not counted.
    """
    lines = []
    for split in splits:
        found = count(ref for ref in refs if ref.split == split)
        for name, here, published in zip(
            ("images", "refs", "sentences"), found, PUBLISHED[split], strict=True
        ):
            if here != published and not (by_box and name == "refs"):
                lines.append(f"{split}: {here:,} {name} found, {published:,} published")
    return lines
