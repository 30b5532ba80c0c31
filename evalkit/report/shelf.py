"""Pictures beside the pages: those of a run's data, where they are here, linked into the leaderboard's folder."""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evalkit.datasets import DATASETS
from evalkit.datasets.disk import read_split
from evalkit.errors import DataError, StoreError
from evalkit.records import Sample

_LOG = logging.getLogger(__name__)
IMAGES_DIR = "images"


@dataclass
class Shelf:
    """The samples and pictures of the data sets below data_dir, each read and linked once.

    A run has the pictures of a split only if the split is the very data that it was run on (the same fingerprint).
    Pictures are hard links, copies where the file system has none; nothing of them is written twice.
    """

    data_dir: Path | None
    out_dir: Path
    _samples: dict[tuple[str, str, str], dict[str, Sample]] = field(default_factory=dict)
    _pictures: dict[tuple[str, str, str], dict[str, str]] = field(default_factory=dict)

    def samples(self, dataset: str, split: str, fingerprint: str) -> Mapping[str, Sample]:
        """Sample id -> sample; empty where the data are not here, or are others."""
        key = (dataset, split, fingerprint)
        if key not in self._samples:
            self._samples[key] = self._read(*key)
        return self._samples[key]

    def _read(self, dataset: str, split: str, fingerprint: str) -> dict[str, Sample]:
        # names come from run.json, which may come from elsewhere: they must not lead out of the data folder
        if self.data_dir is None or dataset not in DATASETS or not split.isidentifier():
            return {}
        try:
            found = read_split(self.data_dir, dataset, split)
        except (DataError, KeyError) as error:
            _LOG.info("no pictures of %s/%s: %s", dataset, split, error)
            return {}
        if found.fingerprint != fingerprint:
            return {}
        return {sample.sample_id: sample for sample in found.samples}

    def pictures(self, dataset: str, split: str, fingerprint: str) -> Mapping[str, str]:
        """Sample id -> its picture, relative to out_dir."""
        key = (dataset, split, fingerprint)
        if key not in self._pictures:
            self._pictures[key] = self._link(fingerprint, self.samples(*key))
        return self._pictures[key]

    def _link(self, fingerprint: str, samples: Mapping[str, Sample]) -> dict[str, str]:
        folder = self.out_dir / IMAGES_DIR / fingerprint[:12]
        placed: dict[Path, str] = {}
        found = {}
        for name, sample in samples.items():
            source = sample.image_path
            if source not in placed:
                target = folder / f"{len(placed):06d}{source.suffix.lower()}"
                if not _put(source, target):
                    continue
                placed[source] = target.relative_to(self.out_dir).as_posix()
            found[name] = placed[source]
        return found


def _put(source: Path, target: Path) -> bool:
    """Whether the picture is there now. A picture that the data lack is left out."""
    if not source.is_file():
        return False
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return True
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
    except OSError as error:
        raise StoreError(f"{target}: cannot be written ({error.strerror}).") from None
    return True
