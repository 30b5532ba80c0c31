"""The columns of a row, the same in every split: names, types and what they mean."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evalkit.datasets import DATASETS
from evalkit.exporting.job import Job, clean
from evalkit.records import Sample

Kind = Literal["text", "int", "float", "floats", "json"]

_GOLD: Mapping[str, tuple[Kind, str]] = {
    "int": ("int", "the right answer: how many"),
    "yes_no": ("text", "the right answer: `yes` or `no`"),
    "point_xy_px": ("floats", "the right answer: a point `[x, y]` in pixels"),
    "bbox_xyxy": ("floats", "the right answer: a box `[x0, y0, x1, y1]` in pixels"),
}
_FIXED = (
    "image", "file_name", "sample_id", "image_id", "split", "question", "answer", "gold", "stratum", "width",
    "height", "pixels_sha256", "geometry",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind
    meaning: str


def columns(job: Job) -> tuple[Column, ...]:
    """All columns but the image's. A variable is text or a number; one of several kinds, or lists, is JSON."""
    gold_kind, gold_meaning = _GOLD[DATASETS[job.dataset].gold]
    return (
        Column("sample_id", "text", "names the question; replies are given by it"),
        Column("image_id", "text", "the cluster: questions of one `image_id` are not independent"),
        Column("split", "text", "the split as evalkit names it"),
        *(Column(_column_name(name), kind, "a variable of the question") for name, kind in _variables(job)),
        Column("question", "text", "what is asked, in the wording named below"),
        Column("answer", "text", "the right answer in that wording"),
        Column("gold", gold_kind, gold_meaning),
        Column("stratum", "text", "the class that is kept in proportion when a part is drawn"),
        Column("width", "int", "of the image, in pixels"),
        Column("height", "int", "of the image, in pixels"),
        Column(
            "pixels_sha256", "text", "sha256 over the decoded RGB pixels, behind `RGB <width> <height>\\n`"
        ),
        Column("geometry", "json", "JSON: what the answer rests on, in pixels"),
    )


def record(job: Job, sample: Sample, names: tuple[Column, ...]) -> dict[str, Any]:
    """A sample as a row of these columns. Coordinates are always floats, so that types hold in every row."""
    values: dict[str, Any] = {
        "sample_id": sample.sample_id,
        "image_id": sample.image_id,
        "split": sample.split,
        "question": job.question(sample),
        "answer": job.answer(sample),
        "gold": sample.gold,
        "stratum": sample.stratum,
        "width": sample.image_size_wh[0],
        "height": sample.image_size_wh[1],
        "pixels_sha256": sample.pixels_sha256,
        "geometry": dict(sample.geometry),
    }
    values |= {_column_name(name): value for name, value in sample.variables.items()}
    return {column.name: _as(column.kind, values.get(column.name)) for column in names}


def _as(kind: Kind, value: Any) -> Any:
    if kind == "json":
        return json.dumps(value)
    if value is None:
        return None
    if kind == "text":
        return clean(value)
    if kind == "floats":
        return [float(v) for v in value]
    return float(value) if kind == "float" else value


def _variables(job: Job) -> list[tuple[str, Kind]]:
    """The question's variables in the order in which they first stand, and what holds all their values."""
    kinds: dict[str, Kind] = {}
    for split in job.splits:
        for sample in split.samples:
            for name, value in sample.variables.items():
                kind = _kind(value)
                kinds[name] = kind if kinds.get(name, kind) == kind else "json"
    return list(kinds.items())


def _kind(value: Any) -> Kind:
    if isinstance(value, str):
        return "text"
    if type(value) is int and abs(value) < 2**53:
        return "int"
    return "float" if isinstance(value, float) else "json"


def _column_name(variable: str) -> str:
    """A variable keeps its name, but where another column has it."""
    return f"variable_{variable}" if variable in _FIXED else variable
