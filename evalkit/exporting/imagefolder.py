"""The Hub's ImageFolder: SPLIT/metadata.jsonl and SPLIT/images, a line a question."""

import json
import re
from pathlib import Path

from evalkit.errors import DataError
from evalkit.exporting.columns import columns, record
from evalkit.exporting.job import Job, write_images

# What Arrow's reader of JSON takes for a time where a whole column is so.
_TIME = re.compile(r"\d{4}-\d\d-\d\d([ T].*)?")


def write(job: Job, folder: Path) -> None:
    """Splits keep their names through `configs:` in the card. Several questions on one image are several lines.

    Raises DataError where `datasets` would not read back what was written.
    """
    named = columns(job)
    for split in job.splits:
        target = folder / job.names[split.name]
        files = write_images(job, split, target)
        times = {column.name for column in named if column.kind == "text"}
        with (target / "metadata.jsonl").open("w", encoding="utf-8") as file:
            for sample in split.samples:
                row = record(job, sample, named)
                times = {name for name in times if row[name] is None or _TIME.fullmatch(row[name])}
                file.write(json.dumps({"file_name": files[str(sample.image_path)]} | row) + "\n")
        if times:
            name = min(times)
            raise DataError(
                f"{split.name}: every {name} looks like a date ({row[name]!r}), and `datasets` would read dates "
                "from an ImageFolder, whose lines say nothing of types. --format parquet keeps them."
            )
