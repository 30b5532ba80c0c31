"""Names that every consumer takes: of splits and of image files."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from evalkit.records import Sample


def safe_splits(names: Iterable[str]) -> dict[str, str]:
    """Split -> its name in the export: letters, digits and underscores, as `datasets` asks, each once."""
    return _once({name: re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or "split" for name in names})


def image_names(samples: Iterable[Sample], suffixes: Mapping[str, str]) -> dict[str, str]:
    """Image file -> its path below the split's folder: images/NAME, each once.

    suffixes: image file -> the suffix of what is written. NAME keeps ASCII letters, digits, `-`, `_` and dots;
    `datasets` skips names that begin with a dot or two underscores, and splits others at `::`, `#` or `*`.
    """
    wanted: dict[str, str] = {}
    for path in dict.fromkeys(str(sample.image_path) for sample in samples):
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(path).stem).lstrip("._-")
        wanted[path] = f"{stem or 'image'}{suffixes[path]}"
    return {path: f"images/{name}" for path, name in _once(wanted).items()}


def _once(wanted: Mapping[str, str]) -> dict[str, str]:
    """The wanted names; one that is taken, in whatever case, is numbered from 2."""
    given: dict[str, str] = {}
    taken: set[str] = set()
    for key, name in wanted.items():
        path, number, fresh = PurePosixPath(name), 2, name
        while fresh.lower() in taken:
            fresh = f"{path.stem}_{number}{path.suffix}"
            number += 1
        taken.add(fresh.lower())
        given[key] = fresh
    return given
