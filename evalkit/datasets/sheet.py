"""What a data set looks like: one sample with its geometry, or a contact sheet of many."""

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from evalkit.datasets.disk import read_split
from evalkit.records import Sample

_COLUMNS, _ROWS = 6, 4
_TILE, _CAPTION, _GAP = 240, 34, 14
_INK, _SOFT, _MARK = (29, 33, 38), (91, 100, 112), (0, 150, 80)


def draw_sample(sample: Sample) -> Image.Image:
    """The picture, its geometry drawn over it in green: crossings, the connecting path, the cell, the gold."""
    with Image.open(sample.image_path) as opened:
        image = opened.convert("RGB")
    pen = ImageDraw.Draw(image)
    unit = max(2, max(image.size) // 160)
    for key, value in sample.geometry.items():
        _draw_geometry(pen, key, value, unit)
    if isinstance(sample.gold, list) and len(sample.gold) == 2:
        _ring(pen, sample.gold, 3 * unit, unit)
    return image


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


def write_sheet(data_dir: Path, task: str, split: str = "test") -> Path:
    """DATA/TASK/sheet.png: samples spread evenly over the split, as asked and with their gold."""
    samples = read_split(data_dir, task, split).samples
    count = min(_COLUMNS * _ROWS, len(samples))
    chosen = [samples[i * len(samples) // count] for i in range(count)]
    rows = -(-count // _COLUMNS)
    width = _COLUMNS * (_TILE + _GAP) + _GAP
    height = rows * (_TILE + _CAPTION + _GAP) + _GAP
    sheet = Image.new("RGB", (width, height), (244, 245, 247))
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for i, sample in enumerate(chosen):
        x = _GAP + i % _COLUMNS * (_TILE + _GAP)
        y = _GAP + i // _COLUMNS * (_TILE + _CAPTION + _GAP)
        with Image.open(sample.image_path) as opened:
            tile = opened.convert("RGB").resize((_TILE, _TILE), Image.Resampling.LANCZOS)
        sheet.paste(tile, (x, y))
        pen.text((x, y + _TILE + 4), _caption(sample), fill=_INK, font=font)
        pen.text((x, y + _TILE + 19), sample.sample_id, fill=_SOFT, font=ImageFont.load_default(11))
    path = data_dir / task / "sheet.png"
    sheet.save(path, optimize=True)
    return path


def _caption(sample: Sample) -> str:
    question = " ".join(str(value) for value in sample.variables.values())
    gold = sample.geometry.get("cell_xy", sample.gold)
    return f"{question}: {gold}" if question else f"{gold}"
