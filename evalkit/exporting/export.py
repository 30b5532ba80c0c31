"""evalkit data export: checked splits -> a folder that others read, with its card; whole or not at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit import __version__
from evalkit.datasets.disk import METADATA, Split, read_info, read_split
from evalkit.errors import ConfigError, DataError
from evalkit.exporting import FORMATS, Format, conversations, imagefolder, lmms_task, parquet, tsv
from evalkit.exporting.card import write_card
from evalkit.exporting.folder import check_place, write_folder
from evalkit.exporting.images import check_images
from evalkit.exporting.job import Job
from evalkit.extras import require
from evalkit.frames import Frame
from evalkit.prompts import resolve_frame
from evalkit.task import TaskSpec


def export(
    task: TaskSpec,
    data_dir: Path,
    out: Path,
    format: Format,
    *,
    splits: Sequence[str] = (),
    family: str | None = None,
    model_frame: Frame | None = None,
    wording: str = "any model",
    force: bool = False,
) -> dict[str, Any]:
    """Write the splits (default: all that lie there) to the folder `out`; returns what stands in its marker.

    family, model_frame: whose wording of the task, and the frame in which that model states coordinates;
    wording: how the card calls it. Raises DataError or ConfigError; nothing is written then.
    """
    if format not in FORMATS:
        raise ConfigError(f"No format {format!r}. Known: {', '.join(FORMATS)}.")
    if format == "parquet":
        require("Export to parquet", "data", "pyarrow")
    out = out.resolve()
    check_place(out, force)
    variant = task.variant(family)
    if format == "qwen-jsonl" and variant.answer is None:
        raise ConfigError(
            f"Task {task.name!r} has no `answer:` in the wording for {wording}: nothing to train on."
        )
    chosen = read_splits(data_dir, task.dataset, splits)
    job = Job(
        format=format,
        task=task,
        variant=variant,
        frame=resolve_frame(variant, model_frame, wording),
        wording=wording,
        splits=chosen,
        info=read_info(data_dir, task.dataset),
        stored=check_images(chosen),
    )
    return write_folder(out, lambda folder: _fill(job, folder))


def read_splits(data_dir: Path, dataset: str, names: Sequence[str]) -> tuple[Split, ...]:
    """The splits of those names, or all. Raises DataError: none there, one empty or without its images."""
    present = sorted(path.parent.name for path in (data_dir / dataset).glob(f"*/{METADATA}"))
    wanted = list(dict.fromkeys(names)) or [name for name in present if not name.startswith(".")]
    splits = tuple(read_split(data_dir, dataset, name) for name in wanted or ["test"])
    for split in splits:
        if not split.samples:
            raise DataError(f"{data_dir / dataset / split.name / METADATA}: no rows, nothing to export.")
        split.require_images()
    return splits


def _fill(job: Job, folder: Path) -> Mapping[str, Any]:
    """Write the files of the format and the card."""
    left_out: list[str] = []
    match job.format:
        case "hf":
            imagefolder.write(job, folder)
        case "parquet":
            parquet.write(job, folder)
            lmms_task.write(job, folder)
        case "qwen-jsonl":
            left_out = conversations.write(job, folder)
        case "lmms-tsv":
            tsv.write(job, folder)
    write_card(job, folder, left_out)
    return {
        "evalkit": __version__,
        "dataset": job.dataset,
        "format": job.format,
        "wording": job.wording,
        "splits": {
            split.name: {
                "exported_as": job.names[split.name],
                "images": len({sample.image_path for sample in split.samples}),
                "samples": len(split.samples),
                "fingerprint": split.fingerprint,
            }
            for split in job.splits
        },
        "straightened": sum(stored.straightened for stored in job.stored.values()),
        "left_out": left_out,
    }
