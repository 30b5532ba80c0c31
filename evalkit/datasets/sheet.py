"""What a data set looks like: one sample with its geometry, or a contact sheet of many."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from evalkit.datasets.disk import read_split, splits_of
from evalkit.datasets.verify import BAD_IMAGE
from evalkit.errors import DataError
from evalkit.records import Sample

_COLUMNS, _ROWS = 6, 4
_TILE, _CAPTION, _GAP, _LINE = 240, 36, 14, 19
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
        with Image.open(sample.image_path) as image:
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


def write_sheet(data_dir: Path, task: str, ask: Callable[[Sample], str]) -> Path:
    """DATA/TASK/sheet.png: samples spread evenly over test (a tiny set has train alone) with question and gold.

    ask: a sample's question. Where all ask the same, it stands once, above the samples.
    """
    split = "test" if "test" in splits_of(data_dir, task) else "train"
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
        sheet.paste(_opened(sample).resize((_TILE, _TILE), Image.Resampling.LANCZOS), (x, y))
        caption = _gold(sample) if same else f"{question} {_gold(sample)}"
        pen.text((x, y + _TILE + 4), caption, fill=_INK, font=font)
        pen.text((x, y + _TILE + 21), sample.sample_id, fill=_SOFT, font=small)
    path = data_dir / task / "sheet.png"
    try:
        sheet.save(path, optimize=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}).") from None
    return path


def _gold(sample: Sample) -> str:
    cell_xy = sample.geometry.get("cell_xy")
    return f"({cell_xy[0]}, {cell_xy[1]})" if cell_xy else str(sample.gold)
