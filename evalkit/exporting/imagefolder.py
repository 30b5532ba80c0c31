"""The Hub's ImageFolder: SPLIT/metadata.jsonl and SPLIT/images, a line a question."""

import json
from pathlib import Path

from evalkit.exporting.columns import columns, record
from evalkit.exporting.job import Job, write_images


def write(job: Job, folder: Path) -> None:
    """Splits keep their names through `configs:` in the card. Several questions on one image are several lines."""
    named = columns(job)
    for split in job.splits:
        target = folder / job.names[split.name]
        files = write_images(job, split, target)
        with (target / "metadata.jsonl").open("w", encoding="utf-8") as file:
            for sample in split.samples:
                row = {"file_name": files[str(sample.image_path)]} | record(job, sample, named)
                file.write(json.dumps(row) + "\n")
