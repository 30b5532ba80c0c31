"""VLMEvalKit's TSV: index, image in base64, question, answer; a file a split.

https://github.com/open-compass/VLMEvalKit/blob/main/docs/en/Development.md: an image of at most 64 characters is the
index of the row that holds it. `openended` in the name has an unknown data set treated as questions and answers,
not as multiple choice (vlmeval.dataset.DATASET_TYPE).
"""

import base64
import csv
import json
from pathlib import Path
from typing import Any

from evalkit.datasets.disk import Split
from evalkit.exporting.columns import columns, record
from evalkit.exporting.job import Job

COLUMNS = ("index", "image", "question", "answer", "category", "split", "image_id", "sample_id", "record")


def file_name(job: Job, split: str) -> str:
    return f"evalkit_{job.dataset}_{job.names[split]}_openended.tsv"


def write(job: Job, folder: Path) -> None:
    """FOLDER/evalkit_DATASET_SPLIT_openended.tsv. Every cell but the index is quoted, quotes are doubled.

    `record` repeats the row as JSON: pandas, as VLMEvalKit calls it, reads 000123 as a number and NA as nothing.
    """
    for split in job.splits:
        with (folder / file_name(job, split.name)).open("w", encoding="utf-8", newline="") as file:
            _write_split(job, split, csv.writer(file, "excel-tab", quoting=csv.QUOTE_NONNUMERIC))


def _write_split(job: Job, split: Split, writer: Any) -> None:
    named = columns(job)
    writer.writerow(COLUMNS)
    first: dict[str, int] = {}
    for index, sample in enumerate(split.samples):
        path = str(sample.image_path)
        if path in first:
            image = str(first[path])
        else:
            first[path] = index
            image = base64.b64encode(job.image_bytes(path)).decode("ascii")
        row = record(job, sample, named)
        cells = (row["question"], row["answer"], row["stratum"], row["split"], row["image_id"])
        writer.writerow((index, image, *cells, row["sample_id"], json.dumps(row)))
