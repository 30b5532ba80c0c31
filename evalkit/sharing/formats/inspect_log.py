"""Inspect's `.eval` logs (https://inspect.aisi.org.uk/eval-logs.html), by inspect_ai itself: for its viewer and API."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import StoreError
from evalkit.extras import require
from evalkit.sharing.formats.shared import Finished, file_safe, finished

_SCORER = "evalkit"


def write(folders: list[Path], out_dir: Path, datasets: dict[str, str]) -> list[Path]:
    """<date>_<task>_<model>_<hash>.eval, a log a run."""
    require("Inspect's log", "inspect", "inspect_ai")
    from inspect_ai.log import write_eval_log

    paths = []
    for run in map(finished, folders):
        stamp = run.ended.strftime("%Y-%m-%dT%H-%M-%S")
        name = f"{stamp}_{file_safe(run.task)}-{file_safe(run.split)}_{file_safe(run.model)}_{run.name[-8:]}.eval"
        path = out_dir / name
        try:
            out_dir.mkdir(parents=True, exist_ok=True)
            write_eval_log(_log(run), path.as_posix(), format="eval")
        except OSError as error:
            raise StoreError(f"{path}: cannot be written ({error.strerror}).") from None
        paths.append(path)
    return paths


def _log(run: Finished) -> Any:
    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalMetric,
        EvalResults,
        EvalScore,
        EvalSpec,
        EvalStats,
    )

    numbers = run.numbers
    metrics = {
        "accuracy": EvalMetric(name="accuracy", value=numbers["accuracy"]),
        "ci95_low": EvalMetric(name="ci95_low", value=numbers["low"]),
        "ci95_high": EvalMetric(name="ci95_high", value=numbers["high"]),
    }
    samples = [_sample(run, row) for row in run.rows]
    ident = run.name.rpartition("-")[2]
    return EvalLog(
        status="success",
        eval=EvalSpec(
            eval_id=ident,
            run_id=ident,
            task_id=ident,
            created=run.ended.isoformat(),
            task=f"{run.task}-{run.split}",
            task_display_name=str(run.meta["task"]["title"]),
            dataset=EvalDataset(
                name=str(run.meta["dataset"].get("name", run.task)),
                samples=numbers["n"],
                sample_ids=[row["sample_id"] for row in run.rows],
            ),
            model=run.model_id,
            config=EvalConfig(limit=run.meta["selection"].get("limit")),
            packages={"evalkit-vlm": str(run.meta.get("versions", {}).get("evalkit", "unknown"))},
            metadata={"remarks": run.remarks, "evalkit": {**run.meta, "counts": dict(run.meta["counts"])}},
        ),
        results=EvalResults(
            total_samples=numbers["n"],
            completed_samples=numbers["n_rows"],
            scores=[EvalScore(name=_SCORER, scorer=_SCORER, metrics=metrics)],
        ),
        stats=EvalStats(started_at=str(run.meta["started"]), completed_at=run.ended.isoformat()),
        samples=samples,
    )  # fmt: skip


def _sample(run: Finished, row: Mapping[str, Any]) -> Any:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import (
        ChatCompletionChoice,
        ChatMessageAssistant,
        ChatMessageUser,
        ModelOutput,
        ModelUsage,
    )
    from inspect_ai.scorer import Score

    usage = row.get("usage") if isinstance(row.get("usage"), dict) else {}
    spent = {key: value for key, value in (usage or {}).items() if key in ("input_tokens", "output_tokens")}
    counted = ModelUsage(**spent, total_tokens=sum(spent.values())) if spent else None
    reason = {"length": "max_tokens", "content_filter": "content_filter"}.get(
        str(row.get("finish_reason")), "stop"
    )
    prompt, reply = str(run.meta["task"].get("prompt", "")), row.get("reply") or ""
    said = ChatMessageAssistant(id=f"{row['sample_id']}-reply", content=reply, model=run.model_id)
    known = ("cluster", "stratum", "distance", "iou", "answer_px", "prompt_sha256", "latency_s", "attempts")
    return EvalSample(
        id=row["sample_id"],
        epoch=1,
        input=prompt,
        target=json.dumps(row.get("gold")),
        messages=[ChatMessageUser(id=f"{row['sample_id']}-prompt", content=prompt), said],
        output=ModelOutput(
            model=run.model_id,
            choices=[ChatCompletionChoice(message=said, stop_reason=reason)],
            usage=counted,
        ),
        scores={
            _SCORER: Score(
                value="C" if row["verdict"] == "correct" else "I",
                answer=None if row.get("answer") is None else json.dumps(row["answer"]),
                explanation=row.get("reason"),
                metadata={"verdict": row["verdict"]},
            )
        },
        metadata={key: row[key] for key in known if row.get(key) is not None},
        uuid=f"{run.name.rpartition('-')[2]}-{row['sample_id']}",
    )  # fmt: skip
