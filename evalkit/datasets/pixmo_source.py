"""allenai/pixmo-points as it is published: parquet on the Hub or in a folder -> rows that may be asked.

Columns image_url, image_sha256, points (list of {x, y}, percent of width and height), count, label (an older
schema: annotation), collection_method. https://huggingface.co/datasets/allenai/pixmo-points (ODC-BY 1.0)
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from evalkit.datasets.hub import snapshot
from evalkit.errors import DataError

REPO, EVAL_REPO = "allenai/pixmo-points", "allenai/pixmo-points-eval"
_HEX = frozenset("0123456789abcdef")
_BATCH_ROWS = 16_384
_MAX_LABEL, _MAX_URL = 200, 8_000


@dataclass(frozen=True, slots=True)
class PointRow:
    """One object in one photograph. label is normalised; the point is in percent of width and height."""

    url: str
    sha256: str
    label: str
    point_xy_percent: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Source:
    """Parquet files, and what they are called in a record. n_rows: of all files together."""

    name: str
    revision: str | None
    files: tuple[Path, ...]
    n_rows: int

    def describe(self) -> dict[str, Any]:
        files = [{"name": file.name, "bytes": file.stat().st_size} for file in self.files]
        return {"name": self.name, "revision": self.revision, "n_rows": self.n_rows, "files": files}


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What must not be chosen: the pictures of an evaluation set, by URL and by sha256."""

    urls: frozenset[str]
    sha256s: frozenset[str]


NOTHING_HELD_OUT = HeldOut(frozenset(), frozenset())


def open_source(source: str, repo: str = REPO) -> Source:
    """`hub`, or a folder with parquet files anywhere below it. Raises DataError."""
    folder: Path = Path(source)
    revision: str | None = None
    if source == "hub":
        folder, revision = snapshot(repo, ["**/*.parquet"], "A local copy serves too: --source DIR.")
    files = tuple(sorted(folder.rglob("*.parquet"))) if folder.is_dir() else ()
    if repo == REPO:  # a copy of the evaluation set may lie beside
        files = tuple(file for file in files if "pixmo-points-eval" not in file.relative_to(folder).parts)
    if not files:
        raise DataError(f"--source {source}: no folder with *.parquet below it (or `hub` for {repo}).")
    return Source(repo if source == "hub" else f"folder {folder.name}", revision, files, _count(files))


def _count(files: tuple[Path, ...]) -> int:
    import pyarrow
    import pyarrow.parquet as parquet

    n_rows = 0
    for file in files:
        try:
            n_rows += parquet.read_metadata(file).num_rows
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{file}: not a parquet file ({_line(error)}).") from None
    return n_rows


def read_held_out(where: str, source: str) -> tuple[HeldOut, str]:
    """The pictures of allenai/pixmo-points-eval, and how a record names them. Raises DataError.

    where: `auto` (the Hub for source `hub`, else a folder pixmo-points-eval in or beside the source), `hub`,
    a folder of parquet, a JSON file of rows, or `none`.
    """
    if where == "none":
        return NOTHING_HELD_OUT, "nothing held out"
    if where == "auto":
        where = "hub" if source == "hub" else _beside(Path(source))
    if Path(where).is_file() and where.endswith(".json"):
        rows = _json_rows(Path(where))
    else:
        rows = [
            {"image_url": url, "image_sha256": sha256}
            for batch in _batches(open_source(where, EVAL_REPO).files, ["image_url", "image_sha256"])
            for url, sha256 in zip(*_cells(batch, ("image_url", "image_sha256"), EVAL_REPO), strict=True)
        ]
    urls = frozenset(str(row["image_url"]) for row in rows if row.get("image_url"))
    sha256s = frozenset(str(row["image_sha256"]).lower() for row in rows if row.get("image_sha256"))
    return HeldOut(urls, sha256s), f"{EVAL_REPO}, {len(rows)} rows"


def _beside(folder: Path) -> str:
    for place in (folder / "pixmo-points-eval", folder.parent / "pixmo-points-eval"):
        if place.is_dir():
            return str(place)
    raise DataError(
        f"--holdout: the pictures of {EVAL_REPO} must not be used, and there is no pixmo-points-eval in or beside "
        f"{folder}. Give its folder, `hub`, or on purpose `none`."
    )


def _json_rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"--holdout {path}: cannot be read ({_line(error)}).") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"--holdout {path}: expected a list of rows with image_url and image_sha256.")
    return rows


def eligible_rows(source: Source, held_out: HeldOut, rejected: Counter[str]) -> Iterator[PointRow]:
    """Rows of one point that was pointed at, one after the other; memory does not grow with the source.

    `rejected` counts the others by reason, each by the first that applies. Raises DataError on another schema.
    """
    import pyarrow
    import pyarrow.compute as compute

    label = _label_column(source)
    columns = ["image_url", "image_sha256", "points", "count", label, "collection_method"]
    for batch in _batches(source.files, columns):
        pointed = compute.equal(batch.column("collection_method"), "pointing").fill_null(False)
        rejected["not by pointing"] += batch.num_rows - (pointed.true_count)
        batch = batch.filter(pointed)
        one = compute.equal(batch.column("count"), pyarrow.scalar(1, batch.column("count").type)).fill_null(
            False
        )
        rejected["not one point"] += batch.num_rows - one.true_count
        batch = batch.filter(one)
        cells = _cells(batch, ("image_url", "image_sha256", label, "points"), source.name)
        for url, sha256, text, points in zip(*cells, strict=True):
            row = _row(url, sha256, text, points, held_out)
            if isinstance(row, PointRow):
                yield row
            else:
                rejected[row] += 1


def _row(url: Any, sha256: Any, text: Any, points: Any, held_out: HeldOut) -> PointRow | str:
    """The row, or why it cannot be asked."""
    if not isinstance(points, list) or len(points) != 1 or not isinstance(points[0], dict):
        return "not one point"
    if not is_web_address(url):
        return "no http address"
    if not is_sha256(sha256):
        return "no sha256"
    if url in held_out.urls or sha256 in held_out.sha256s:
        return "held out for pixmo-points-eval"
    label = normalised(text)
    if not is_label(label):
        return "no label" if not label else "label not fit to print"
    x, y = points[0].get("x"), points[0].get("y")
    if not in_percent(x) or not in_percent(y):
        return "point outside the picture"
    return PointRow(url, sha256, label, (float(x), float(y)))


def normalised(text: Any) -> str:
    """A label in NFC and lower case, blank space trimmed and single. Normalised again, it stays as it is."""
    if not isinstance(text, str):
        return ""
    lower = unicodedata.normalize(
        "NFC", text
    ).lower()  # a capital and its accent may only be one letter in lower case
    return " ".join(unicodedata.normalize("NFC", lower).split())


def is_label(label: str) -> bool:
    """Whether a normalised label can stand in a question and on a terminal: 1 to 200 printable letters."""
    return 0 < len(label) <= _MAX_LABEL and label.isprintable()


def is_web_address(url: Any) -> bool:
    """http or https, printable, of a length that servers take."""
    return (
        isinstance(url, str)
        and url.lower().startswith(("http://", "https://"))
        and len(url) <= _MAX_URL
        and url.isprintable()
    )


def is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= _HEX


def in_percent(value: Any) -> TypeGuard[float]:
    """A number of 0 to 100, both included."""
    return type(value) in (int, float) and 0 <= value <= 100


def _label_column(source: Source) -> str:
    """`label`, or `annotation` in the older schema; the same in all files, which must have the other columns."""
    import pyarrow.parquet as parquet

    need = {"image_url", "image_sha256", "points", "count", "collection_method"}
    found = set()
    for file in source.files:
        names = set(parquet.read_schema(file).names)
        label = "label" if "label" in names else "annotation"
        _check_types(file, parquet.read_schema(file))
        if absent := sorted((need | {label}) - names):
            raise DataError(
                f"{file}: no column {absent[0]!r}, as {REPO} has; there is: {', '.join(sorted(names))}."
            )
        found.add(label)
    if len(found) > 1:
        raise DataError(f"{source.name}: files of both schemas, `label` and `annotation`; keep those of one.")
    return found.pop()


def _check_types(file: Path, schema: Any) -> None:
    """Raises DataError where the columns that rows are filtered by are not of their types, or one stands twice."""
    from pyarrow import types

    def is_text(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return bool(types.is_string(kind) or types.is_large_string(kind))

    if repeated := [name for name, n in Counter(schema.names).items() if n > 1]:
        raise DataError(f"{file}: column {repeated[0]!r} stands there twice.")
    wanted = {"count": types.is_integer, "collection_method": is_text}
    for name, fits in wanted.items():
        if name in schema.names and not fits(schema.field(name).type):
            raise DataError(f"{file}: column {name!r} is of type {schema.field(name).type}.")


def _batches(files: tuple[Path, ...], columns: list[str]) -> Iterator[Any]:
    """Record batches of some columns; row groups are read in pieces, not whole."""
    import pyarrow
    import pyarrow.parquet as parquet

    for file in files:
        try:
            with parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as opened:
                if absent := [name for name in columns if name not in opened.schema_arrow.names]:
                    raise DataError(f"{file}: no column {absent[0]!r}.")
                yield from opened.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{file}: cannot be read ({_line(error)}).") from None


def _cells(batch: Any, names: tuple[str, ...], source: str) -> list[list[Any]]:
    """The values of some columns. Raises DataError for texts that are no UTF-8 and times that are none."""
    try:
        return [batch.column(name).to_pylist() for name in names]
    except (ValueError, OverflowError) as error:
        raise DataError(f"{source}: a value of {', '.join(names)} cannot be read ({_line(error)}).") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
