"""evalkit data import: images with labels made elsewhere -> a split of Line Intersection."""

import csv
import re
import shutil
import tempfile
from pathlib import Path, PurePath
from typing import Any

from PIL import Image

from evalkit.datasets.disk import DATASET_FILE, METADATA, fingerprint, pixels_sha256, read_info, write_json
from evalkit.datasets.pictures import FORMATS
from evalkit.datasets.place import put_in_place, split_entry, write_metadata
from evalkit.datasets.verify import BAD_IMAGE, damage
from evalkit.errors import DataError

TASK = "line_intersection"
MAX_CROSSINGS = 5
# `datasets` would count a folder named so, or with such a part (my_test, val2), to its own train,
# validation or test: https://huggingface.co/docs/hub/datasets-file-names-and-splits
LOADER_SPLITS = {
    "train", "training", "test", "testing", "eval", "evaluation", "val", "valid", "validation", "dev",
}  # fmt: skip


def import_folder(source: Path, data_dir: Path, name: str, *, force: bool = False) -> dict[str, Any]:
    """Copy `source` (labels.csv and the images it names) to DATA/line_intersection/<name>.

    Columns: image, intersections, and optionally image_id (images of one id are one cluster). All faults
    are named at once, a line each, and nothing is written then. Raises DataError.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]*", name) or LOADER_SPLITS & set(re.split(r"[_0-9]", name)):
        raise DataError(
            f"--name {name!r}: letters, digits and underscores, and neither train nor test "
            "(nor another word that `datasets` reads as one of them, such as dev) as a part."
        )
    rows, faults = _read(source, name)
    if faults:
        raise DataError("\n".join(faults))
    folder, info = data_dir / TASK, read_info(data_dir, TASK)
    if (folder / name / METADATA).exists() and not force:
        same = info["splits"].get(name, {}).get("fingerprint") == fingerprint(rows.values())
        if same and not damage(data_dir, TASK, name):
            return {"split": name, **info["splits"][name], "fresh": False}
        raise DataError(f"{folder / name} holds other or damaged images; --force replaces them.")
    _write(folder, name, rows)
    entry = split_entry(
        list(rows.values()), f"imported from a folder named {source.resolve().name}", licence=None
    )
    info = {"dataset": TASK, **info}
    info["splits"] = {**info["splits"], name: entry}
    write_json(folder / DATASET_FILE, info)
    return {"split": name, **entry, "fresh": True}


def _read(source: Path, split: str) -> tuple[dict[Path, dict[str, Any]], list[str]]:
    """Image file -> row, and one line a fault."""
    labels = source / "labels.csv"
    try:
        with labels.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            absent = {"image", "intersections"} - set(reader.fieldnames or ())
            if absent:
                raise DataError(f"{labels}: no column {sorted(absent)[0]!r}; there is: {reader.fieldnames}.")
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{labels}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    rows: dict[Path, dict[str, Any]] = {}
    faults: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, 2):
        try:
            path, row = _row(source, line, split)
        except DataError as error:
            faults.append(f"{labels}:{number}: {error}")
            continue
        if row["sample_id"] in seen:
            faults.append(
                f"{labels}:{number}: image {line['image']!r}: a file of this name stands there twice."
            )
        seen.add(row["sample_id"])
        rows[path] = row
    return rows, faults or ([] if rows else [f"{labels}: no rows."])


def _row(source: Path, line: dict[str, str], split: str) -> tuple[Path, dict[str, Any]]:
    label = (line["intersections"] or "").strip()
    if not re.fullmatch(r"\d{1,3}", label) or int(label) > MAX_CROSSINGS:
        raise DataError(f"intersections {label!r}: expected a whole number of 0 to {MAX_CROSSINGS}.")
    name = PurePath(line["image"] or "")
    if name.is_absolute() or ".." in name.parts:  # a link may lead elsewhere, as in a cache of the Hub
        raise DataError(f"image {line['image']!r} lies outside {source}.")
    path = source / name
    try:
        with Image.open(path, formats=FORMATS) as image:
            size_wh, pixels = image.size, image.convert("RGB").tobytes()
    except FileNotFoundError:
        raise DataError(f"image {line['image']!r} is missing.") from None
    except BAD_IMAGE as error:
        raise DataError(f"image {line['image']!r} cannot be decoded ({error}).") from None
    return path, {
        "file_name": f"images/{path.name}",
        "sample_id": path.stem,
        "image_id": f"{label}-{line['image_id']}" if line.get("image_id") else path.stem,
        "split": split,
        "gold": int(label),
        "stratum": label,
        "width": size_wh[0],
        "height": size_wh[1],
        "pixels_sha256": pixels_sha256(size_wh, pixels),
        "geometry": {},
    }


def _write(folder: Path, name: str, rows: dict[Path, dict[str, Any]]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".importing-") as temporary:
            target = Path(temporary) / name
            (target / "images").mkdir(parents=True)
            for path, row in rows.items():
                shutil.copyfile(path, target / row["file_name"])
            write_metadata(target, rows.values())
            put_in_place(target, folder / name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}).") from None
