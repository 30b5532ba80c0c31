"""What a card says of use: how the export is loaded, how replies are scored, and what to beware of."""

import re
from collections.abc import Sequence

from evalkit.exporting import lmms_task, tsv
from evalkit.exporting.job import Job
from evalkit.frames import Frame


def loading(job: Job) -> str:
    """By the format; the folder is the reader's, so no path is absolute."""
    first = job.names[job.splits[0].name]
    if job.format in ("hf", "parquet"):
        text = (
            f'```python\nfrom datasets import load_dataset\n\nload_dataset("THIS_FOLDER")["{first}"][0]\n```'
        )
        if job.format == "parquet":
            name = lmms_task.task_name(job, job.splits[0].name)
            text += (
                "\n\nWith lmms-eval, started in this folder; it scores as evalkit does, with evalkit-vlm installed:\n\n"
                f"```\npython -m lmms_eval --include_path {lmms_task.FOLDER} --tasks {name} --model ...\n```"
            )
        return text
    if job.format == "qwen-jsonl":
        text = (
            "An entry for `data_list` of qwen-vl-finetune:\n\n"
            f'```python\n{{"annotation_path": "THIS_FOLDER/{first}.jsonl", "data_path": "THIS_FOLDER"}}\n```'
        )
        if job.frame is not None and job.frame.kind == "resized_pixel":
            text += (
                f"\n\nTrain with `--min_pixels {job.frame.min_pixels} --max_pixels {job.frame.max_pixels}`: "
                "the answers' pixels are those of the image after that resize."
            )
        return text
    name = tsv.file_name(job, job.splits[0].name)
    return (
        f"Copy `{name}` to VLMEvalKit's `$LMUData` and ask for `--data {name.removesuffix('.tsv')}`. "
        "In pandas, exactly:\n\n"
        f'```python\npandas.read_csv("{name}", sep="\\t", dtype=str, keep_default_na=False)\n```'
    )


def scoring(job: Job) -> str:
    """`evalkit import`, whatever asked the model."""
    split, frame = job.splits[0].name, ""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", split):
        split = "SPLIT"  # a name of other signs would need quoting in a shell and here
    name = "NAME"
    if job.variant.frame == "model" and job.frame is not None:
        if job.frame == Frame(job.frame.kind, job.frame.order):
            frame = f" --frame {job.frame.kind}" + (":yx" if job.frame.order == "yx" else "")
        else:
            name = job.wording  # a model of the registry lends a frame with limits of its own
    return (
        'Write replies as `{"sample_id": ..., "reply": ...}`, one a line; evalkit scores them on the same data:\n\n'
        f"```\nevalkit import --task {job.task.name} --split {split} --model {name}{frame} replies.jsonl\n```\n\n"
        f"A reply is read by evalkit's parser `{job.task.parser}` and judged by `{job.task.metric}`."
    )


def limits(job: Job, left_out: Sequence[str]) -> str:
    """What could mislead a reader of this export."""
    lines = ["- Questions on one image (`image_id`) are not independent: intervals must be clustered by it."]
    if job.task.chance is not None:
        lines.append(f"- Guessing is right in {100 * job.task.chance:.1f} % of the questions.")
    straightened = sum(stored.straightened for stored in job.stored.values())
    if straightened:
        lines.append(
            f"- {straightened:,} image files are not byte for byte those of the set: their orientation tag was "
            "taken out (of a JPEG with its Exif and XMP; others were stored anew as PNG), since readers would "
            "turn them. The pixels are the same."
        )
    if job.format == "lmms-tsv":
        lines.append(
            "- VLMEvalKit stores what it decodes as JPEG files, so that models do not see the exact pixels."
        )
        lines.append(
            "- VLMEvalKit has no parser for these answers: score its predictions with `evalkit import`."
        )
    if left_out:
        lines.append(
            f"- {len(left_out):,} questions hold `<image>` or `<video>` themselves, which Qwen's code cannot take, "
            f"and are left out of the conversations; `evalkit-export.json` names them."
        )
    return "\n".join(lines)
