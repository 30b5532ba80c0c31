"""What is exported, in whose words: the splits, the task's wording, and what of each sample goes out."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.datasets.disk import Split
from evalkit.exporting import Format
from evalkit.exporting.images import Stored, image_bytes
from evalkit.exporting.names import image_names, safe_splits
from evalkit.frames import Frame
from evalkit.prompts import make_answer, make_prompt
from evalkit.records import Sample
from evalkit.task import PromptVariant, TaskSpec


@dataclass(frozen=True, slots=True)
class Job:
    """One export.

    frame: of the coordinates in answers, None for tasks without. wording: whose words, for the card.
    info: dataset.json. stored: image file -> how it goes out, of images.check_images.
    """

    format: Format
    task: TaskSpec
    variant: PromptVariant
    frame: Frame | None
    wording: str
    splits: tuple[Split, ...]
    info: Mapping[str, Any]
    stored: Mapping[str, Stored]

    @property
    def dataset(self) -> str:
        return self.task.dataset

    @property
    def names(self) -> dict[str, str]:
        """Split -> its name in the export."""
        return safe_splits(split.name for split in self.splits)

    def question(self, sample: Sample) -> str:
        return clean(make_prompt(self.task, self.variant, sample).text)

    def answer(self, sample: Sample) -> str:
        """The gold in the task's words; where it has none for this wording, as JSON, in pixels."""
        if self.variant.answer is None:
            return json.dumps(sample.gold)
        return clean(make_answer(self.task, self.variant, self.frame, sample))

    def image_names(self, split: Split) -> dict[str, str]:
        return image_names(split.samples, {path: stored.suffix for path, stored in self.stored.items()})

    def image_bytes(self, path: str) -> bytes:
        return image_bytes(Path(path), self.stored[path])

    def images(self, split: Split) -> Iterator[tuple[str, bytes]]:
        """(path below the split's folder, file), each image once, read when it is its turn."""
        for path, name in self.image_names(split).items():
            yield name, self.image_bytes(path)


def clean(text: str) -> str:
    """Text that UTF-8 can hold: half of a surrogate pair, which JSON lets through, becomes `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")


def write_images(job: Job, split: Split, folder: Path) -> dict[str, str]:
    """FOLDER/images/...; image file -> its path below FOLDER."""
    (folder / "images").mkdir(parents=True)
    for name, data in job.images(split):
        (folder / name).write_bytes(data)
    return job.image_names(split)
