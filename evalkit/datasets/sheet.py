"""What a data set looks like: one sample with its geometry, or a contact sheet of many."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from evalkit.datasets.disk import read_split, splits_of
from evalkit.datasets.pictures import FORMATS
from evalkit.datasets.verify import BAD_IMAGE
from evalkit.errors import DataError
from evalkit.records import Sample

_COLUMNS, _ROWS = 6, 4
_SHOWN_FIRST = ("test", "val", "testA", "testB", "train")
_TILE, _CAPTION, _GAP, _LINE = 240, 36, 14, 19
_PATCH, _SHADE = (224, 168, 0), (222, 225, 230)
_INK, _SOFT, _MARK = (29, 33, 38), (91, 100, 112), (0, 150, 80)


def draw_sample(sample: Sample) -> Image.Image:
    """The picture, its geometry drawn over it in green: crossings, the connecting path, the cell, the gold.

    Raises DataError where the image is missing or damaged.
    """
    image = _opened(sample)
    pen = ImageDraw.Draw(image)
    unit = max(2, max(image.size) // 160)
    for key, value in sample.geometry.items():
        _draw_geometry(pen, key, value, unit)
    if isinstance(sample.gold, list) and len(sample.gold) == 2:
        _ring(pen, sample.gold, 3 * unit, unit)
    return image


def _opened(sample: Sample) -> Image.Image:
    try:
        with Image.open(sample.image_path, formats=FORMATS) as image:
            return image.convert("RGB")
    except BAD_IMAGE as error:
        raise DataError(f"{sample.image_path}: cannot be opened ({error}).") from None


def _draw_geometry(pen: ImageDraw.ImageDraw, key: str, value: Any, unit: int) -> None:
    if not value:
        return
    if key == "crossings_xy":
        for point_xy_px in value:
            _ring(pen, point_xy_px, 4 * unit, unit)
    elif key == "path_xy":
        pen.line([tuple(point) for point in value], fill=_MARK, width=2 * unit, joint="curve")
    elif key == "bbox_xyxy":
        x0, y0, x1, y1 = value
        pen.rectangle((x0 - 2 * unit, y0 - 2 * unit, x1 + 2 * unit, y1 + 2 * unit), outline=_MARK, width=unit)
    elif key.startswith("queried") and isinstance(value[0], list):
        for point_xy_px in value:
            _ring(pen, point_xy_px, 8 * unit, unit)


def _ring(pen: ImageDraw.ImageDraw, point_xy_px: list[float], radius: int, width: int) -> None:
    x, y = point_xy_px
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_MARK, width=width)


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two pictures side by side at the height of the first, with a gap."""
    right = right.resize((max(1, round(right.width * left.height / right.height)), left.height))
    canvas = Image.new("RGB", (left.width + _GAP + right.width, left.height), "white")
    canvas.paste(left, (0, 0))
    canvas.paste(right, (left.width + _GAP, 0))
    return canvas


@dataclass(frozen=True, slots=True)
class Target:
    """A target map over an image, for draw_target.

    patches: (rows, cols) bool, I_P; values: (rows * cols,) P; extent_xyxy: what the tokens cover, pixels.
    """

    patches: NDArray[np.bool_]
    values: NDArray[np.float64]
    extent_xyxy: tuple[float, float, float, float]


def draw_target(sample: Sample, target: Target) -> Image.Image:
    """The picture, faded, with P in green and the tokens of I_P framed in yellow, as in the paper's Fig. 2.

    What lies beyond the image (padding) is drawn too, in grey.
    """
    image = _opened(sample)
    x0, y0, x1, y1 = (round(v) for v in target.extent_xyxy)
    canvas = Image.new("RGB", (max(x1, image.width) - min(x0, 0), max(y1, image.height) - min(y0, 0)), _SHADE)
    left, top = -min(x0, 0), -min(y0, 0)
    canvas.paste(Image.blend(image, Image.new("RGB", image.size, "white"), 0.35), (left, top))
    rows, cols = target.patches.shape
    strength = (255 * 0.8 * target.values.reshape(rows, cols) / target.values.max()).astype(np.uint8)
    mask = Image.fromarray(strength).resize((x1 - x0, y1 - y0), Image.Resampling.NEAREST)
    canvas.paste(_MARK, (left + x0, top + y0), mask)
    pen = ImageDraw.Draw(canvas)
    wide, high = (x1 - x0) / cols, (y1 - y0) / rows
    for row, col in np.argwhere(target.patches).tolist():
        x, y = left + x0 + col * wide, top + y0 + row * high
        pen.rectangle((x, y, x + wide - 1, y + high - 1), outline=_PATCH, width=max(2, canvas.width // 200))
    return canvas


def write_sheet(
    data_dir: Path,
    task: str,
    ask: Callable[[Sample], str],
    draw: Callable[[Sample], Image.Image] | None = None,
    name: str = "sheet.png",
) -> Path:
    """DATA/TASK/NAME: samples spread evenly over test (or val; a tiny set has train alone) with question and gold.

    ask: a sample's question. Where all ask the same, it stands once, above the samples.
    draw: how a sample is drawn; by default its image as it is.
    """
    there = splits_of(data_dir, task)
    split = next((name for name in _SHOWN_FIRST if name in there), there[0] if there else "test")
    samples = read_split(data_dir, task, split).samples
    count = min(_COLUMNS * _ROWS, len(samples))
    chosen = [samples[i * len(samples) // count] for i in range(count)]
    questions = [ask(sample) for sample in chosen]
    same = len(set(questions)) == 1
    heading = textwrap.wrap(questions[0], _COLUMNS * _TILE // 7) if same else []
    top = _GAP + len(heading) * _LINE + (_GAP if heading else 0)
    width = _COLUMNS * (_TILE + _GAP) + _GAP
    height = top + -(-count // _COLUMNS) * (_TILE + _CAPTION + _GAP)
    sheet = Image.new("RGB", (width, height), (244, 245, 247))
    pen = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(14), ImageFont.load_default(11)
    for i, line in enumerate(heading):
        pen.text((_GAP, _GAP + i * _LINE), line, fill=_INK, font=font)
    for i, (sample, question) in enumerate(zip(chosen, questions, strict=True)):
        x = _GAP + i % _COLUMNS * (_TILE + _GAP)
        y = top + i // _COLUMNS * (_TILE + _CAPTION + _GAP)
        tile = (draw or _opened)(sample)
        tile.thumbnail((_TILE, _TILE), Image.Resampling.LANCZOS)
        sheet.paste(tile, (x + (_TILE - tile.width) // 2, y + (_TILE - tile.height) // 2))
        caption = _gold(sample) if same else f"{_about(sample) or question} {_gold(sample)}"
        pen.text((x, y + _TILE + 4), _fitted(pen, caption, font), fill=_INK, font=font)
        pen.text((x, y + _TILE + 21), _fitted(pen, sample.sample_id, small), fill=_SOFT, font=small)
    path = data_dir / task / name
    try:
        sheet.save(path, optimize=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}).") from None
    return path


def _about(sample: Sample) -> str | None:
    """The words that tell one question about a photograph from the next."""
    return next(
        (str(sample.variables[key]) for key in ("label", "expression") if key in sample.variables), None
    )


def _fitted(pen: ImageDraw.ImageDraw, text: str, font: Any) -> str:
    """Cut to the width of a tile."""
    if pen.textlength(text, font=font) <= _TILE:
        return text
    while text and pen.textlength(text + "…", font=font) > _TILE:
        text = text[:-1]
    return text + "…"


def _gold(sample: Sample) -> str:
    cell_xy = sample.geometry.get("cell_xy")
    return f"({cell_xy[0]}, {cell_xy[1]})" if cell_xy else str(sample.gold)
