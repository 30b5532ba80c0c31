"""A data set on disk: DATA/<task>/<split>/metadata.jsonl and images, the Hub's ImageFolder form.

A row has file_name, sample_id, image_id (the cluster), split, gold, stratum, width, height,
pixels_sha256, the question's variables, and geometry in pixels. Where a set was prepared without its
images, pixels_sha256 is null and file_name says what the image would be called. DATA/<task>/dataset.json says how each
split came about and carries its fingerprint, which is over rows and pixels, not over file bytes.
"""

import hashlib
import json
import os
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from evalkit.datasets import DATASETS, GoldKind
from evalkit.errors import DataError
from evalkit.lazy import held
from evalkit.records import Sample

METADATA = "metadata.jsonl"
DATASET_FILE = "dataset.json"
# Everything else at the top of a row is a variable of the question.
RESERVED = (
    "file_name", "sample_id", "image_id", "split", "gold", "stratum", "width", "height", "pixels_sha256", "geometry",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Split:
    """One split, read. `fingerprint` is recomputed from its rows, so it is never out of date."""

    dataset: str
    name: str
    samples: Sequence[Sample]  # of a large split each is read from disk when it is asked for
    fingerprint: str

    def require_images(self) -> None:
        """Raises DataError where the split was prepared without its images."""
        if any(sample.pixels_sha256 is None for sample in self.samples):
            raise DataError(
                f"{self.dataset}/{self.name} was prepared without its images, for `evalkit import` and scoring: "
                f"to ask a model or to train, prepare it with them ({DATASETS[self.dataset].command} --help)."
            )


def fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """sha256 over the canonical JSON of the rows; they carry the sha256 of their image's pixels."""
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def pixels_sha256(size_wh: tuple[int, int], rgb: bytes) -> str:
    """Identity of a picture: its size and decoded RGB bytes, whatever the file's encoding."""
    return hashlib.sha256(f"RGB {size_wh[0]} {size_wh[1]}\n".encode() + rgb).hexdigest()


def read_rows(data_dir: Path, dataset: str, split: str) -> list[dict[str, Any]]:
    """The rows of metadata.jsonl. Raises DataError: what is missing and what to type, or the damaged line."""
    with _opened(data_dir, dataset, split) as file:
        return [row for _, row in _rows(file, dataset)]


def _opened(data_dir: Path, dataset: str, split: str) -> BinaryIO:
    path = data_dir / dataset / split / METADATA
    if not path.is_file():
        raise DataError(_missing(data_dir, dataset, split))
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}).") from None


def _rows(file: BinaryIO, dataset: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(where it starts in bytes, row) of each line. Raises DataError."""
    path, start = file.name, 0
    lines = iter(file)
    for number in count(1):
        try:
            line = next(lines, b"")  # only \n ends it: U+2028 and its like may stand in a JSON text
            if not line:
                return
            text = line.decode()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read ({error}).") from None
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: not a JSON object.")
        if fault := row_fault(row, DATASETS[dataset].gold):
            raise DataError(f"{path}:{number}: {fault}.")
        yield start, row
        start += len(line)


def row_fault(row: Mapping[str, Any], gold: GoldKind) -> str | None:
    """What is wrong with a row of metadata.jsonl, or None. File names must stay inside the split's folder."""
    if absent := [key for key in RESERVED if key not in row]:
        return f"key {absent[0]!r} is missing"
    for key in ("file_name", "sample_id", "image_id", "split", "stratum", "pixels_sha256"):
        if key == "pixels_sha256" and row[key] is None:
            continue
        if not isinstance(row[key], str) or not row[key]:
            return f"{key} must be text, found {row[key]!r}"
    file_name = PurePosixPath(row["file_name"])
    if file_name.is_absolute() or ".." in file_name.parts:
        return f"file_name {row['file_name']!r} lies outside the split's folder"
    if not all(type(row[key]) is int and row[key] > 0 for key in ("width", "height")):
        return f"width and height must be whole numbers above 0, found {row['width']!r} and {row['height']!r}"
    if not isinstance(row["geometry"], dict):
        return f"geometry must be a mapping, found {type(row['geometry']).__name__}"
    if not _is_gold(row["gold"], gold):
        return f"gold must be {_GOLD_WORDS[gold]}, found {row['gold']!r}"
    try:
        json.dumps(row, allow_nan=False)
    except ValueError:
        return "a number in it is not finite (NaN or Infinity)"
    return None


_GOLD_WORDS = {
    "int": "a whole number",
    "yes_no": "yes or no",
    "point_xy_px": "two numbers [x, y]",
    "bbox_xyxy": "four numbers [x0, y0, x1, y1]",
}


def _is_gold(value: Any, kind: GoldKind) -> bool:
    if kind == "int":
        return type(value) is int
    if kind == "yes_no":
        return value in ("yes", "no")
    length = 2 if kind == "point_xy_px" else 4
    return (
        isinstance(value, list)
        and len(value) == length
        and all(type(v) in (int, float) and abs(v) <= sys.float_info.max for v in value)
    )


def _missing(data_dir: Path, dataset: str, split: str) -> str:
    info = DATASETS[dataset]
    present = sorted(path.parent.name for path in (data_dir / dataset).glob(f"*/{METADATA}"))
    if present:
        return f"No split {split!r} of {dataset} in {data_dir}. Splits there: {', '.join(present)}."
    return f"No data of {dataset} in {data_dir}: make them: {info.command}."


def read_split(data_dir: Path, dataset: str, split: str) -> Split:
    """One split as samples. Raises DataError in one line."""
    folder = data_dir / dataset / split
    starts = array("Q")
    seen: set[str] = set()

    def checked(file: BinaryIO) -> Iterator[dict[str, Any]]:
        for start, row in _rows(file, dataset):
            if row["sample_id"] in seen:
                raise DataError(f"{folder / METADATA}: sample id {row['sample_id']!r} stands there twice.")
            seen.add(row["sample_id"])
            starts.append(start)
            yield row

    with _opened(data_dir, dataset, split) as file:
        found = fingerprint(checked(file))
        starts.append(file.tell())
        samples = held(len(seen), _Reader(file, starts, folder))
    return Split(dataset, split, samples, found)


class _Reader:
    """Reads sample i from the file as it was opened, also where another takes its name meanwhile."""

    def __init__(self, file: BinaryIO, starts: Sequence[int], folder: Path) -> None:
        self._fd, self._starts, self._folder = os.dup(file.fileno()), starts, folder

    def __call__(self, i: int) -> Sample:
        line = os.pread(self._fd, self._starts[i + 1] - self._starts[i], self._starts[i])
        try:
            return _sample(json.loads(line), self._folder)
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{self._folder / METADATA}: was changed while it was read.") from None

    def __del__(self) -> None:
        os.close(self._fd)


def _sample(row: Mapping[str, Any], folder: Path) -> Sample:
    return Sample(
        sample_id=row["sample_id"],
        image_id=row["image_id"],
        split=row["split"],
        image_path=folder / row["file_name"],
        image_size_wh=(row["width"], row["height"]),
        pixels_sha256=row["pixels_sha256"],
        gold=row["gold"],
        stratum=row["stratum"],
        variables={key: value for key, value in row.items() if key not in RESERVED},
        geometry=row["geometry"],
    )


def read_info(data_dir: Path, dataset: str) -> dict[str, Any]:
    """dataset.json, or an empty description where there is none. Raises DataError."""
    path = data_dir / dataset / DATASET_FILE
    if not path.is_file():
        return {"splits": {}}
    try:
        info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}). Delete it, and build or import with --force."
        ) from None
    splits = info.get("splits") if isinstance(info, dict) else None
    if not isinstance(splits, dict) or not all(isinstance(entry, dict) for entry in splits.values()):
        raise DataError(
            f"{path}: expected an object with `splits`. Delete it, and build or import with --force."
        )
    return info


def splits_of(data_dir: Path, dataset: str) -> list[str]:
    """The splits that dataset.json records or that lie there, by name."""
    present = {path.parent.name for path in (data_dir / dataset).glob(f"*/{METADATA}")}
    return sorted(present | read_info(data_dir, dataset)["splits"].keys())


def list_datasets(data_dir: Path) -> list[dict[str, Any]]:
    """What is there: one entry a split, with its size (bytes on disk too) and fingerprint."""
    found = []
    for dataset in DATASETS:
        info = read_info(data_dir, dataset)
        for path in sorted((data_dir / dataset).glob(f"*/{METADATA}")):
            split = path.parent.name
            rows = read_rows(data_dir, dataset, split)
            stored = info["splits"].get(split, {})
            found.append(
                {
                    "dataset": dataset,
                    "split": split,
                    "images": len({row["file_name"] for row in rows}),
                    "samples": len(rows),
                    "bytes": sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file()),
                    "fingerprint": fingerprint(rows),
                    "source": stored.get("source"),
                    "licence": stored.get("licence"),
                }
            )
    return found


def write_json(path: Path, value: Any) -> None:
    """Replace the file in one step. Raises DataError where it cannot be written."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}).") from None
