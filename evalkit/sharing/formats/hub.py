"""What the Hugging Face Hub shows of a model: `.eval_results/*.yaml`, and the older `model-index` of a model card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from evalkit.errors import ConfigError
from evalkit.extras import require
from evalkit.sharing.formats.shared import HUB_DATASETS, Finished, file_safe, finished, write_text


def write_eval_results(folders: list[Path], out_dir: Path, datasets: dict[str, str]) -> list[Path]:
    """<model>/.eval_results/<task>-<split>.yaml, to be put into the model's repository
    (https://huggingface.co/docs/hub/eval-results). Values are percent.
    """
    require("The Hub's form", "data", "huggingface_hub")
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    paths = []
    for run in map(finished, folders):
        entry = EvalResultEntry(
            dataset_id=_dataset(run, datasets),
            task_id=f"{run.task}-{run.split}",
            value=round(100 * run.numbers["accuracy"], 2),
            date=run.ended.isoformat(),
            notes="; ".join(run.remarks),
        )
        text = yaml.safe_dump(
            eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=False, width=100
        )
        place = out_dir / file_safe(run.model) / ".eval_results"
        paths.append(write_text(place / f"{_stem(run)}.yaml", text))
    return paths


def write_model_index(folders: list[Path], out_dir: Path, datasets: dict[str, str]) -> list[Path]:
    """<model>.md: the front matter of a model card (https://huggingface.co/docs/hub/model-cards), a file a model."""
    require("The Hub's form", "data", "huggingface_hub")
    from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

    by_model: dict[str, list[Finished]] = {}
    for run in map(finished, folders):
        by_model.setdefault(run.model, []).append(run)
    paths = []
    for model, runs in sorted(by_model.items()):
        results = [
            EvalResult(
                task_type="image-text-to-text",
                task_name=str(run.meta["task"]["title"]),
                dataset_type=_dataset(run, datasets, needed=False),
                dataset_name=str(run.meta["task"]["title"]),
                dataset_config=run.task,
                dataset_split=run.split,
                dataset_args={"fingerprint": run.meta["dataset"]["fingerprint"]},
                metric_type="accuracy",
                metric_name=f"Accuracy ({'; '.join(run.remarks)})",
                metric_value=round(100 * run.numbers["accuracy"], 2),
                metric_args={"n": run.numbers["n"], "low": run.numbers["low"], "high": run.numbers["high"]},
            )
            for run in sorted(runs, key=lambda run: run.name)
        ]
        index: Any = {"model-index": eval_results_to_model_index(model, results)}
        text = yaml.safe_dump(index, sort_keys=False, allow_unicode=False, width=100)
        paths.append(write_text(out_dir / f"{file_safe(model)}.md", f"---\n{text}---\n"))
    return paths


def _stem(run: Finished) -> str:
    """Runs of a model on one split may differ in what it was trained on, and in the seed: the hash tells them apart."""
    return file_safe(f"{run.task}-{run.split}-{run.name.rpartition('-')[2]}")


def _dataset(run: Finished, datasets: Mapping[str, str], needed: bool = True) -> str:
    found = datasets.get(run.task) or HUB_DATASETS.get(run.task)
    if found is None and needed:
        raise ConfigError(
            f"{run.name}: the Hub files results under a data set of its own, and none is known for {run.task}. "
            f"Put yours there (evalkit data export) and name it: --dataset {run.task}=OWNER/NAME"
        )
    return found or run.task
