"""PixMo-Points onto the disk: pictures and rows into train and test, dataset.json and the manifest beside them."""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit import __version__
from evalkit.datasets.disk import DATASET_FILE, fingerprint, write_json
from evalkit.datasets.pictures import NotAPicture, Picture, examine, save_rgb
from evalkit.datasets.pixmo_manifest import Entry, Log, counts, write_manifest
from evalkit.datasets.place import put_in_place, split_entry, sweep, write_metadata
from evalkit.errors import DataError

TASK = "pixmo_points"
MANIFEST = "manifest.jsonl"
SPLITS = ("train", "test")
LICENCE = "ODC-BY 1.0 (the points); the photographs belong to their owners"


def put(
    data_dir: Path,
    named: Sequence[Entry],
    log: Log,
    header: Mapping[str, Any],
    pictures: Mapping[str, Picture],
    missing: Mapping[str, int],
) -> dict[str, Any]:
    """Write both splits, dataset.json and the manifest; the downloads go once nothing is missing."""
    folder = data_dir / TASK
    named = sorted(named, key=lambda entry: (entry.row.label, entry.rank))
    inside = {entry.row.sha256: entry for entry in named}
    every = [inside.get(entry.row.sha256, entry) for entry in log.entries.values()]
    splits: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    try:
        sweep(folder, ".preparing-")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".preparing-") as temporary:
            for split in SPLITS:
                own = [
                    _store(entry, Path(temporary), log.path.parent, pictures)
                    for entry in named
                    if entry.split == split
                ]
                if own:
                    write_metadata(Path(temporary) / split, own)
                    splits[split] = split_entry(own, _source_words(header), LICENCE)
                rows += own
            info = {
                "dataset": TASK,
                "evalkit": __version__,
                "made_by": header["made_by"],
                "source": header["source"],
                "held_out": header["held_out"],
                "rejected": header["rejected"],
                "tried": counts(every),
                "missing": dict(missing),
                "fingerprint": fingerprint(rows),
                "splits": splits,
            }
            write_manifest(folder / MANIFEST, header, every)
            write_json(
                folder / DATASET_FILE, info
            )  # first: after a kill the splits do not fit it and are put anew
            for split in SPLITS:
                put_in_place(Path(temporary) / split, folder / split)
        if not missing:
            shutil.rmtree(log.path.parent, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}).") from None
    return info


def _source_words(header: Mapping[str, Any]) -> str:
    source = header["source"]
    revision = f" @ {source['revision']}" if source.get("revision") else ""
    return f"allenai/pixmo-points, {source['name']}{revision}; {header['held_out']}"


def _store(entry: Entry, folder: Path, downloads: Path, pictures: Mapping[str, Picture]) -> dict[str, Any]:
    """Put the picture of an entry into its split; its row. Raises DataError where the file was changed meanwhile."""
    assert entry.split is not None
    path = downloads / entry.row.sha256[:2] / entry.row.sha256
    try:
        picture = pictures.get(entry.row.sha256) or examine(path)
        target = folder / entry.split / "images" / f"{entry.sample_id}{picture.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if not picture.keep:
            save_rgb(path, target)
        else:
            _link(path, target)
    except NotAPicture as error:
        raise DataError(f"{path}: was changed while it was prepared ({error}).") from None
    size_wh, percent = picture.size_wh, entry.row.point_xy_percent
    point_xy_px = [round(share * side / 100, 2) for share, side in zip(percent, size_wh, strict=True)]
    return {
        "file_name": f"images/{target.name}",
        "sample_id": entry.sample_id,
        "image_id": entry.sample_id,
        "split": entry.split,
        "label": entry.row.label,
        "gold": point_xy_px,
        "stratum": entry.row.label,
        "width": size_wh[0],
        "height": size_wh[1],
        "pixels_sha256": picture.pixels_sha256,
        "geometry": {"point_xy_px": point_xy_px},
    }


def _link(path: Path, target: Path) -> None:
    """The same file under another name where the file system has links, else a copy."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
