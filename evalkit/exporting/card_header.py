"""The YAML header of a card: what the Hub and `datasets` read."""

from collections.abc import Mapping
from typing import Any

from evalkit.exporting import tsv
from evalkit.exporting.job import Job

_ODC_BY, _APACHE = "odc-by", "apache-2.0"
# https://github.com/huggingface/hub-docs/blob/main/datasetcard.md: the bounds of size_categories
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
)
_SYNTHETIC = ("line_intersection", "line_tracing", "grid_patch")
_TASKS = {"refcoco": ["visual-question-answering", "object-detection"]}


def header(job: Job) -> dict[str, Any]:
    """pretty_name, licence, categories, sizes and, where `datasets` can load the export, `configs`."""
    n = sum(len(split.samples) for split in job.splits)
    head: dict[str, Any] = {
        "pretty_name": f"{job.task.title} (evalkit)",
        **licence(job),
        "language": ["en"],
        "task_categories": _TASKS.get(job.dataset, ["visual-question-answering"]),
        "size_categories": [next((name for bound, name in _SIZES if n < bound), "1M<n<10M")],
        "tags": [
            "evalkit",
            "visual-grounding",
            "vision-language-models",
            job.dataset.replace("_", "-"),
            "arxiv:2511.12738",
        ],
        "configs": [{"config_name": "default", "data_files": [_data_files(job, s.name) for s in job.splits]}],
    }
    return head


def licence(job: Job) -> Mapping[str, str]:
    """`license` as the Hub spells it, and a name where it is none of the Hub's."""
    found = {str(job.info["splits"].get(split.name, {}).get("licence") or "") for split in job.splits}
    if job.dataset == "pixmo_points":
        return {"license": _ODC_BY}
    if job.dataset in _SYNTHETIC and found == {"Apache-2.0"}:
        return {"license": _APACHE}
    return {"license": "other", "license_name": "see-the-card"} if found != {""} else {"license": "unknown"}


def _data_files(job: Job, split: str) -> dict[str, str]:
    """Which files are a split; without this `datasets` would guess it from their names."""
    name = job.names[split]
    patterns = {
        "hf": f"{name}/**",
        "parquet": f"data/{name}-*.parquet",
        "qwen-jsonl": f"{name}.jsonl",
        "lmms-tsv": tsv.file_name(job, split),
    }
    return {"split": name, "path": patterns[job.format]}
