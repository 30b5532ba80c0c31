"""What is damaged in a data set on disk: images against the recorded pixels, rows against the fingerprint."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from evalkit.datasets import DATASETS
from evalkit.datasets.disk import (
    DATASET_FILE,
    METADATA,
    fingerprint,
    pixels_sha256,
    read_info,
    read_rows,
    splits_of,
)
from evalkit.datasets.pictures import FORMATS, TORN
from evalkit.datasets.recipe import SPLITS
from evalkit.datasets.rows import picture_and_rows, recipe_of
from evalkit.errors import DataError

# What Pillow raises on files that are no images, torn or hostile.
BAD_IMAGE = (*TORN, Image.DecompressionBombError)


def verify(data_dir: Path, tasks: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One entry a split, with its `faults`. Raises DataError where there is nothing of a task asked for."""
    entries: list[dict[str, Any]] = []
    for dataset in DATASETS:
        for split in splits_of(data_dir, dataset) if not tasks or dataset in tasks else ():
            entry: dict[str, Any] = {"dataset": dataset, "split": split}
            try:
                rows = read_rows(data_dir, dataset, split)
                entry["images"] = len({row["file_name"] for row in rows})
                entry |= {"samples": len(rows), "fingerprint": fingerprint(rows)}
            except DataError:
                entry |= {"images": None, "samples": None, "fingerprint": None}  # the faults say why
            entries.append(entry | {"faults": damage(data_dir, dataset, split)})
    if absent := sorted(set(tasks) - {entry["dataset"] for entry in entries}):
        raise DataError(f"No data of {', '.join(absent)} in {data_dir}.")
    return entries


def damage(data_dir: Path, dataset: str, split: str) -> list[str]:
    """A line for each image that is missing, undecodable or of other pixels, and for each changed row."""
    folder = data_dir / dataset / split
    if not (folder / METADATA).is_file():
        return [f"{folder}: missing, though {DATASET_FILE} records it."]
    try:
        rows = read_rows(data_dir, dataset, split)
    except DataError as error:
        return [str(error)]
    expected = {row["file_name"]: row["pixels_sha256"] for row in rows}
    lines = [
        fault
        for name, sha256 in expected.items()
        if sha256 is not None and (fault := _image_fault(folder / name, sha256))
    ]
    info = read_info(data_dir, dataset)
    if split not in info["splits"]:
        lines.append(f"{folder}: not in {DATASET_FILE}, so that its rows cannot be checked.")
    elif info["splits"][split].get("fingerprint") != fingerprint(rows):
        lines += _changed_rows(dataset, split, info, rows, folder / METADATA)
    return lines


def _image_fault(path: Path, sha256: str) -> str | None:
    try:
        with Image.open(path, formats=FORMATS) as image:
            found = pixels_sha256(image.size, image.convert("RGB").tobytes())
    except FileNotFoundError:
        return f"{path}: missing."
    except BAD_IMAGE as error:
        return f"{path}: cannot be decoded ({error})."
    return None if found == sha256 else f"{path}: other pixels than were recorded."


def _changed_rows(
    dataset: str, split: str, info: Mapping[str, Any], rows: list[dict[str, Any]], path: Path
) -> list[str]:
    """Rows of a set that this version can build are drawn anew and named; others only as a whole."""
    every = f"{path}: rows differ from the fingerprint in {DATASET_FILE}."
    made_by = info.get("made_by") or {}
    if DATASETS[dataset].origin != "build" or split not in SPLITS:
        return [every]
    if made_by.get("recipe_version") != recipe_of(dataset).version:
        return [every]
    recipe, seed = recipe_of(dataset), made_by["seed"]
    drawn = (row for index in range(made_by["n"]) for row in picture_and_rows(recipe, seed, index)[1])
    expected = {row["sample_id"]: row for row in drawn if row["split"] == split}
    lines = []
    for number, row in enumerate(rows, 1):
        right = expected.pop(row["sample_id"], None)
        if right is None:
            lines.append(f"{path}:{number}: row {row['sample_id']!r} does not belong here, or stands twice.")
        elif fingerprint([row]) != fingerprint([right]):
            keys = ", ".join(
                sorted(key for key in row.keys() | right.keys() if row.get(key) != right.get(key))
            )
            lines.append(f"{path}:{number}: row {row['sample_id']!r} was changed ({keys}).")
    lines += [f"{path}: row {sample_id!r} is missing." for sample_id in expected]
    return [every, *lines]
