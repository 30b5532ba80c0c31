"""The card of an export, README.md: a YAML header for the Hub, then what a reader must know, in Markdown."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from evalkit import __version__
from evalkit.exporting.card_header import header
from evalkit.exporting.card_usage import limits, loading, scoring
from evalkit.exporting.columns import columns
from evalkit.exporting.job import Job, clean

_FRAMES = {
    "pixel": "pixels of the original image",
    "resized_pixel": "pixels of the image after Qwen's own resize",
    "unit": "0 to 1 of width and height",
    "percent": "0 to 100 of width and height",
    "per_mille": "0 to 1000 of width and height",
    "padded_unit": "0 to 1 of the image padded to a square, its content in the middle",
    "grid_24": "cells of a 24 x 24 grid, from 0; index i is the middle of cell i",
}
_RIGHTS = {
    "pixmo_points": "The annotations are from allenai/pixmo-points, ODC-BY 1.0. The pictures belong to their owners.",
    "refcoco": "Expressions and boxes are of RefCOCO (UNC); the pictures are photographs from Flickr, by way of COCO.",
}
_PAPER = "arXiv 2511.12738"


def write_card(job: Job, folder: Path, left_out: Sequence[str]) -> None:
    """FOLDER/README.md."""
    top = yaml.safe_dump(header(job), sort_keys=False, allow_unicode=False, width=1000)
    parts = (
        f"# {job.task.title}",
        f"{job.task.description} Exported by evalkit {__version__} as `{job.format}`.",
        "## Rights\n\n" + _rights(job),
        "## Splits\n\n" + _splits(job),
        "## Columns\n\n" + _columns(job),
        "## Wording\n\n" + _wording(job),
        "## How it was made\n\n" + _made(job),
        "## Loading\n\n" + loading(job),
        "## Scoring\n\n" + scoring(job),
        "## Known limits\n\n" + limits(job, left_out),
        f"## Citation\n\nThe task is that of {_PAPER}; cite it, and the source of the data named above:\n\n"
        "```bibtex\n@misc{arxiv_2511_12738,\n  eprint = {2511.12738},\n  archivePrefix = {arXiv}\n}\n```",
    )
    (folder / "README.md").write_text(f"---\n{top}---\n\n" + "\n\n".join(parts) + "\n", encoding="utf-8")


def quoted(text: Any) -> str:
    """Foreign text inside a line of Markdown: no markup, no HTML, no table cells, no lines of its own."""
    line = " ".join(clean(str(text)).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#!|~$])", r"\\\1", line)


def _rights(job: Job) -> str:
    lines = [_RIGHTS[job.dataset]] if job.dataset in _RIGHTS else []
    for split in job.splits:
        licence = job.info["splits"].get(split.name, {}).get("licence")
        lines.append(
            f"- `{job.names[split.name]}`: {quoted(licence) if licence else 'no licence is recorded'}"
        )
    if job.dataset in _RIGHTS:
        lines.insert(
            1,
            "\n**These are photographs of other people. Whether you may pass them on, and on what terms, "
            "is for you to find out and to decide; evalkit grants no right to them.**\n",
        )
    return "\n".join(lines)


def _splits(job: Job) -> str:
    lines = ["| split | images | questions | fingerprint |", "|---|---|---|---|"]
    for split in job.splits:
        name = job.names[split.name]
        was = "" if name == split.name else f" (in evalkit {quoted(split.name)})"
        images = len({sample.image_path for sample in split.samples})
        lines.append(f"| `{name}`{was} | {images:,} | {len(split.samples):,} | `{split.fingerprint}` |")
    lines.append(
        "\nThe fingerprint is evalkit's: sha256 over the set's rows, which carry the sha256 of their image's pixels."
    )
    return "\n".join(lines)


def _columns(job: Job) -> str:
    lines = [
        "Coordinates are continuous pixels of the original image, origin top left, x to the right, y down.\n"
    ]
    if job.format == "qwen-jsonl":
        lines += [
            "- `image`: the picture's file, below this folder",
            "- `conversations`: one question with `<image>` before it, and the answer to learn",
            "- `sample_id`: names the question",
        ]
        if job.dataset == "refcoco":
            lines.append(
                "- in `rec_*.jsonl`: `sent` the expression, `bbox` `[x0, y0, x1, y1]` in pixels, `height`, `width`"
            )
        return "\n".join(lines)
    if job.format == "lmms-tsv":
        lines += [
            "- `index`: the row, from 0; `image`: the picture's file in base64, or the index of the row that holds it",
            "- `question`, `answer`, `category` (the stratum), `split`, `image_id`, `sample_id`",
            "- `record`: all of the following as one JSON object\n",
        ]
    else:
        lines.append("- `image`: the picture")
    for column in columns(job):
        lines.append(f"- {_column_name(column.name)} ({column.kind}): {column.meaning}")
    return "\n".join(lines)


def _wording(job: Job) -> str:
    lines = [
        f"The wording for {quoted(job.wording)}:\n",
        *(f"    {line}" for line in job.variant.prompt.split("\n")),
    ]
    if job.frame is not None:
        limits = ""
        if job.frame.kind == "resized_pixel":
            limits = f", at least {job.frame.min_pixels:,} and at most {job.frame.max_pixels:,} pixels"
        lines.append(
            f"\nCoordinates in `answer` and in a reply are {_FRAMES[job.frame.kind]}{limits}; x first in `answer`."
        )
    return "\n".join(lines)


def _made(job: Job) -> str:
    """The sources, and all else that dataset.json records of how the splits and the set came about."""
    lines = []
    for split in job.splits:
        entry = job.info["splits"].get(split.name, {})
        source = quoted(entry["source"]) if entry.get("source") else "no source is recorded"
        lines.append(f"- `{job.names[split.name]}`: {source}")
        lines += [f"  - {fact}" for fact in _facts(entry)]
    lines += [f"- of the set as a whole: {fact}" for fact in _facts(job.info, "source")]
    return "\n".join(lines)


# What the card says elsewhere, or of all splits and not only of those that are exported.
_TOLD = ("dataset", "evalkit", "splits", "images", "samples", "fingerprint", "licence", "classes", "answers")
_LONGEST = 600  # characters of a fact


def _facts(entry: Mapping[str, Any], *also: str) -> list[str]:
    keys = [key for key in entry if key not in _TOLD and (key != "source" or key in also)]
    return [f"{quoted(key)}: {quoted(_plain(entry[key])[:_LONGEST])}" for key in keys]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items() if inner is not None)
    return value if isinstance(value, str) else json.dumps(value)


def _column_name(name: str) -> str:
    return f"`{name}`" if re.fullmatch(r"\w+", name) else quoted(name)
