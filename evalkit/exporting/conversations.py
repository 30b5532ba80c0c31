"""Qwen's training conversations (qwen-vl-finetune), and for RefCOCO the lines of its REC evaluation.

https://github.com/QwenLM/Qwen2.5-VL/tree/main/qwen-vl-finetune: {"image", "conversations"} a line, `image` below
the data_path of the data set's entry, one <image> in the first question. The REC lines are those that
Qwen-VL's eval_mm/evaluate_grounding.py reads: {"image", "sent", "bbox" xyxy in pixels, "height", "width"}.
"""

import json
import re
from pathlib import Path
from typing import Any

from evalkit.exporting.job import Job, write_images
from evalkit.records import Sample

# Qwen's code splits a question at these, wherever they stand.
_PLACEHOLDERS = re.compile(r"<image>|<video>")


def write(job: Job, folder: Path) -> list[str]:
    """FOLDER/SPLIT.jsonl, FOLDER/SPLIT/images, for boxes FOLDER/rec_SPLIT.jsonl; the sample ids left out.

    Left out is what Qwen's code cannot train on: a question that holds a placeholder of its own.
    """
    left_out: list[str] = []
    for split in job.splits:
        name = job.names[split.name]
        files = write_images(job, split, folder / name)
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for sample in split.samples:
                question = job.question(sample)
                if _PLACEHOLDERS.search(question):
                    left_out.append(f"{split.name}: {sample.sample_id}")
                    continue
                line = _conversation(job, sample, f"{name}/{files[str(sample.image_path)]}", question)
                file.write(json.dumps(line) + "\n")
        if job.dataset == "refcoco":
            with (folder / f"rec_{name}.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(
                    json.dumps(_expression(sample, f"{name}/{files[str(sample.image_path)]}")) + "\n"
                    for sample in split.samples
                )
    return left_out


def _conversation(job: Job, sample: Sample, image: str, question: str) -> dict[str, Any]:
    return {
        "sample_id": sample.sample_id,
        "image": image,
        "conversations": [
            {"from": "human", "value": f"<image>\n{question}"},
            {"from": "gpt", "value": job.answer(sample)},
        ],
    }


def _expression(sample: Sample, image: str) -> dict[str, Any]:
    return {
        "image": image,
        "sent": sample.variables["expression"],
        "bbox": sample.gold,
        "height": sample.image_size_wh[1],
        "width": sample.image_size_wh[0],
        "sample_id": sample.sample_id,
    }
