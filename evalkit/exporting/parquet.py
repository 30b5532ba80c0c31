"""Parquet as the Hub keeps it: a row a question, the image's file inside it, shards and row groups of bounded size."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evalkit.datasets.disk import Split
from evalkit.exporting.columns import Column, columns, record
from evalkit.exporting.job import Job
from evalkit.extras import require

SHARD_BYTES = 400_000_000
# A reader holds a whole row group at once; the Hub's own is of 100 rows for images.
GROUP_BYTES, GROUP_ROWS = 32_000_000, 100

# `Sequence` is what every version of `datasets` reads; from 4.0 on it calls it `List`.
_FEATURES: dict[str, Any] = {
    "text": {"dtype": "string", "_type": "Value"},
    "json": {"dtype": "string", "_type": "Value"},
    "int": {"dtype": "int64", "_type": "Value"},
    "float": {"dtype": "float64", "_type": "Value"},
    "floats": {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "Sequence"},
}


def write(job: Job, folder: Path) -> None:
    """FOLDER/data/SPLIT-00000-of-0000N.parquet, written as a stream: memory holds one row group."""
    require("Export to parquet", "data", "pyarrow")
    (folder / "data").mkdir()
    named = columns(job)
    schema = _schema(named)
    for split in job.splits:
        _write_split(job, split, named, schema, folder / "data")


def _schema(named: tuple[Column, ...]) -> Any:
    """The Arrow schema, with the metadata by which `datasets` knows the column of images."""
    import pyarrow as pa

    types = {
        "text": pa.string(),
        "json": pa.string(),
        "int": pa.int64(),
        "float": pa.float64(),
        "floats": pa.list_(pa.float64()),
    }
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"image": {"_type": "Image"}} | {column.name: _FEATURES[column.kind] for column in named}
    return pa.schema(
        [("image", image), *((column.name, types[column.kind]) for column in named)],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


def _write_split(job: Job, split: Split, named: tuple[Column, ...], schema: Any, folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    shards: list[Path] = []
    writer, size = None, 0
    try:
        for group, group_size in _groups(_rows(job, split, named)):
            if writer is None or size + group_size > SHARD_BYTES:
                if writer is not None:
                    writer.close()
                shards.append(folder / f"{len(shards)}.part")
                # No dictionaries: Arrow would hold one of whole images, which hardly ever repeat.
                writer, size = pq.ParquetWriter(shards[-1], schema, use_dictionary=False), 0
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            size += group_size
    finally:
        if writer is not None:
            writer.close()
    for number, path in enumerate(shards):
        path.rename(folder / f"{job.names[split.name]}-{number:05d}-of-{len(shards):05d}.parquet")


def _rows(job: Job, split: Split, named: tuple[Column, ...]) -> Iterator[dict[str, Any]]:
    files = job.image_names(split)
    last, data = "", b""
    for sample in split.samples:
        path = str(sample.image_path)
        if path != last:  # the questions of one image mostly stand together
            last, data = path, job.image_bytes(path)
        yield {"image": {"bytes": data, "path": Path(files[path]).name}} | record(job, sample, named)


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Row groups, each with the bytes of its images."""
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row["image"]["bytes"])
        if len(group) == GROUP_ROWS or size >= GROUP_BYTES:
            yield group, size
            group, size = [], 0
    if group:
        yield group, size
