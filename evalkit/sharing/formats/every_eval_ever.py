"""Every Eval Ever 0.3 (https://github.com/evaleval/every_eval_ever): a JSON file a run, and its samples as JSONL."""

import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalkit.sharing.formats.shared import HUB_DATASETS, Finished, file_safe, finished, write_text

_VERSION = "0.3.0"


def write(folders: list[Path], out_dir: Path, datasets: dict[str, str]) -> list[Path]:
    """data/<task>/<developer>/<model>/<uuid>.json and <uuid>_samples.jsonl, as that project files them."""
    paths = []
    for folder in folders:
        run = finished(folder)
        place = f"data/{file_safe(run.task)}/{file_safe(_developer(run))}/{file_safe(run.model)}"
        # fixed by the run, in the form of a random one, which the schema asks for
        name = str(uuid.UUID(bytes=hashlib.sha256(run.name.encode()).digest()[:16], version=4))
        samples = "".join(
            json.dumps(_sample(run, row), ensure_ascii=True, allow_nan=False) + "\n" for row in run.rows
        )
        about = {
            "format": "jsonl",
            "file_path": f"{place}/{name}_samples.jsonl",
            "hash_algorithm": "sha256",
            "checksum": hashlib.sha256(samples.encode()).hexdigest(),
            "total_rows": len(run.rows),
        }
        whole = _aggregate(run, {**HUB_DATASETS, **datasets}) | {"detailed_evaluation_results": about}
        text = json.dumps(whole, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
        paths.append(write_text(out_dir / place / f"{name}.json", text))
        paths.append(write_text(out_dir / place / f"{name}_samples.jsonl", samples))
    return paths


def _developer(run: Finished) -> str:
    owner = run.model_id.partition("/")[0] if "/" in run.model_id else ""
    return owner or {"openai_api": "OpenAI", "gemini_api": "Google"}.get(
        str(run.meta["model"].get("adapter")), "unknown"
    )


def _evaluation_id(run: Finished) -> str:
    return f"{run.task}/{run.model_id.replace('/', '_')}/{run.ended.timestamp():.0f}"


def _strings(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items() if value is not None}


def _aggregate(run: Finished, datasets: Mapping[str, str]) -> dict[str, Any]:
    stamp = f"{run.ended.timestamp():.0f}"
    api = str(run.meta["model"].get("adapter")).endswith("_api")
    results = [_accuracy(run, datasets)]
    if run.numbers["mean_iou"] is not None:
        results.append(_mean_iou(run, datasets))
    return {
        "schema_version": _VERSION,
        "evaluation_id": _evaluation_id(run),
        "evaluation_timestamp": stamp,
        "retrieved_timestamp": stamp,
        "source_metadata": {
            "source_name": "evalkit",
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "other",
        },
        "eval_library": {
            "name": "evalkit",
            "version": str(run.meta.get("versions", {}).get("evalkit", "unknown")),
            "additional_details": _strings({"git_commit": run.meta.get("git_commit"), "run": run.name}),
        },
        "model_info": {
            "name": str(run.meta["model"]["title"]),
            "id": run.model_id,
            "developer": _developer(run),
            **({"inference_platform": _developer(run)} if api else _engine(run)),
            "additional_details": {
                "deployment_type": "externally_managed" if api else "self_deployed",
                "model_availability": "closed_weights" if api else "open_weights",
                **_strings(
                    {
                        "registry_name": run.model,
                        "revision": run.meta["model"].get("revision"),
                        "scale": run.meta["model"].get("scale"),
                        "trained_on": run.meta["trained_on"],
                        "training_seed": run.numbers["train_seed"] if run.meta["trained_on"] else None,
                    }
                ),
            },
        },
        "evaluation_results": results,
    }


def _engine(run: Finished) -> dict[str, Any]:
    ran_on = run.meta.get("ran_on") or {}
    engine = ran_on.get("engine")
    if not isinstance(engine, str):
        return {}
    return {"inference_engine": {"name": engine, "version": str(ran_on.get(engine, "unknown"))}}


def _source(run: Finished, datasets: Mapping[str, str]) -> dict[str, Any]:
    facts = _strings({"fingerprint": run.meta["dataset"]["fingerprint"], "split": run.split})
    name = str(run.meta["dataset"].get("name", run.task))
    if hub := datasets.get(run.task):
        return {"dataset_name": name, "source_type": "hf_dataset", "hf_repo": hub, "hf_split": run.split,
                "samples_number": run.numbers["n_split"], "additional_details": facts}  # fmt: skip
    return {"dataset_name": name, "source_type": "other", "additional_details": facts}


def _result(run: Finished, key: str, datasets: Mapping[str, str]) -> dict[str, Any]:
    return {
        "evaluation_result_id": f"{_evaluation_id(run)}/{run.split}/{key}",
        "evaluation_name": f"{run.meta['task']['title']} ({run.split})",
        "source_data": _source(run, datasets),
        "evaluation_timestamp": f"{run.ended.timestamp():.0f}",
    }


def _accuracy(run: Finished, datasets: Mapping[str, str]) -> dict[str, Any]:
    numbers = run.numbers
    task, decoding = run.meta["task"], run.meta.get("decoding") or {}
    arguments = {"prompt_template": task.get("prompt"), "max_tokens": task.get("max_new_tokens"),
                 "temperature": decoding.get("temperature")}  # fmt: skip
    return _result(run, "accuracy", datasets) | {
        "metric_config": {
            "evaluation_description": str(task.get("description", "")),
            "metric_id": "accuracy",
            "metric_name": "Accuracy",
            "metric_kind": "accuracy",
            "metric_unit": "proportion",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
            "additional_details": _strings(
                {"metric": task.get("metric"), "parser": task.get("parser"), "chance": numbers["chance"]}
            ),
        },
        "score_details": {
            "score": numbers["accuracy"],
            "details": _strings(
                {"correct": numbers["correct"], "selected": numbers["n"], "remarks": "; ".join(run.remarks)}
                | {verdict: run.meta["counts"].get(verdict) for verdict in run.meta["counts"]}
                | {"median_latency_s": numbers["latency_p50_s"], "cost_usd": numbers["cost_usd"]}
            ),
            "uncertainty": {
                "confidence_interval": {
                    "lower": numbers["low"],
                    "upper": numbers["high"],
                    "confidence_level": 0.95,
                    "method": numbers["interval"],
                },
                "num_samples": numbers["n"],
            },
        },
        "generation_config": {
            "generation_args": {key: value for key, value in arguments.items() if value is not None}
        },
    }


def _mean_iou(run: Finished, datasets: Mapping[str, str]) -> dict[str, Any]:
    return _result(run, "mean_iou", datasets) | {
        "metric_config": {
            "metric_id": "mean_iou",
            "metric_name": "Mean IoU",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
        },
        "score_details": {
            "score": run.numbers["mean_iou"],
            "uncertainty": {"num_samples": run.numbers["n"]},
        },
    }


def _sample(run: Finished, row: Mapping[str, Any]) -> dict[str, Any]:
    prompt, gold = str(run.meta["task"].get("prompt", "")), json.dumps(row.get("gold"))
    answered = row.get("answer") is not None
    known = {
        key: row.get(key) for key in ("verdict", "cluster", "stratum", "distance", "iou", "finish_reason")
    }
    return {
        "schema_version": _VERSION,
        "evaluation_id": _evaluation_id(run),
        "model_id": run.model_id,
        "evaluation_name": f"{run.meta['task']['title']} ({run.split})",
        "evaluation_result_id": f"{_evaluation_id(run)}/{run.split}/accuracy",
        "sample_id": row["sample_id"],
        "sample_hash": hashlib.sha256((prompt + gold).encode()).hexdigest(),
        "interaction_type": "single_turn",
        "input": {"raw": prompt, "reference": [gold]},
        "output": {"raw": [row.get("reply") or ""]},
        "messages": None,
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": json.dumps(row["answer"]) if answered else "",
                "extraction_method": str(run.meta["task"].get("parser", "unknown")),
                "is_terminal": True,
            }
        ],
        "evaluation": {
            "score": float(row["verdict"] == "correct"),
            "is_correct": row["verdict"] == "correct",
        },
        "token_usage": _usage(row.get("usage")),
        "performance": _latency(row),
        "error": row.get("reason") if row["verdict"] in ("blocked", "failed", "truncated") else None,
        "metadata": _strings(known | {"prompt_sha256": row.get("prompt_sha256")}),
    }


def _latency(row: Mapping[str, Any]) -> dict[str, Any] | None:
    taken = row.get("latency_s")
    return None if row.get("batched") or not isinstance(taken, int | float) else {"latency_ms": 1000 * taken}


def _usage(usage: Any) -> dict[str, int] | None:
    if not isinstance(usage, dict):
        return None
    given, made = usage.get("input_tokens"), usage.get("output_tokens")
    if not isinstance(given, int) or not isinstance(made, int):
        return None
    return {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
