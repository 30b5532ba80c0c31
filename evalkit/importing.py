"""Replies made elsewhere -> a run like any other: {"sample_id", "reply"} a line, checked and scored."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.datasets.disk import Split
from evalkit.errors import ConfigError, DataError
from evalkit.frames import Frame
from evalkit.parsers import PARSERS
from evalkit.prompts import resolve_frame
from evalkit.provenance import digest
from evalkit.records import FinishReason, Reply
from evalkit.runner import Plan, make_plan, make_row, new_meta, settle
from evalkit.store import RunStore
from evalkit.task import TaskSpec

_FINISH: tuple[FinishReason, ...] = ("stop", "length", "content_filter", "error")
_NAMED = 5  # how many offending ids an error names


def import_replies(
    file: Path,
    *,
    task: TaskSpec,
    split: Split,
    model_name: str,
    model: Mapping[str, Any] | None,
    model_frame: Frame | None,
    frame: Frame | None,
    parser: str | None,
) -> tuple[Plan, dict[str, Reply]]:
    """Read and check a file of replies. Raises DataError or ConfigError; nothing is stored then."""
    replies = _read(file)
    known = {sample.sample_id for sample in split.samples}
    if unknown := [sample_id for sample_id in replies if sample_id not in known]:
        raise DataError(f"{file}: {_named(unknown)} not in {split.dataset}/{split.name}.")
    given = replace(split, samples=tuple(s for s in split.samples if s.sample_id in replies))
    plan = make_plan(
        _with_parser(task, parser),
        task.variant(model["family"] if model else None),
        given,
        model=model or {"name": _file_safe(model_name), "title": model_name, "scale": None},
        identity={"replies": digest({key: [r.text, r.finish_reason] for key, r in replies.items()})},
        frame=None,
        frame_source=None,
    )
    source, chosen = _frame(task, plan, model_frame, frame, model_name)
    if parser is not None:
        source = "option"
    identity = {**plan.identity, "frame": repr(chosen) if source == "option" else None, "parser": parser}
    plan = replace(plan, split=split, frame=chosen, frame_source=source, origin="import", identity=identity)
    return plan, replies


def store_replies(plan: Plan, store: RunStore, replies: Mapping[str, Reply]) -> dict[str, Any]:
    """Score the replies and write the run in one step; returns run.json."""
    pairs = zip(plan.samples, plan.prompts, strict=True)
    rows = [make_row(plan.scorer, sample, prompt, replies[sample.sample_id]) for sample, prompt in pairs]
    meta = settle(new_meta(plan) | {"ran_on": {}}, rows, len(rows))
    store.replace_rows(rows)
    store.write_meta(meta)
    return meta


def _frame(
    task: TaskSpec, plan: Plan, model_frame: Frame | None, given: Frame | None, name: str
) -> tuple[str | None, Frame | None]:
    if not task.has_coordinates:
        if given is not None:
            raise ConfigError(f"--frame: task {task.name!r} has no coordinates; leave it out.")
        return None, None
    if given is not None:
        return "option", given
    frame = resolve_frame(plan.variant, model_frame, name)
    return ("registry" if plan.variant.frame == "model" else "prompt"), frame


def _with_parser(task: TaskSpec, parser: str | None) -> TaskSpec:
    if parser is None or parser == task.parser:
        return task
    if parser not in PARSERS:
        raise ConfigError(f"--parser: no parser named {parser!r}; known: {', '.join(PARSERS)}.")
    raise ConfigError(f"--parser {parser}: task {task.name!r} is answered by parser {task.parser!r} alone.")


def _read(file: Path) -> dict[str, Reply]:
    replies: dict[str, Reply] = {}
    repeated: list[str] = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").split("\n"), 1):
        if line.strip():
            reply = _reply(line, f"{file}:{number}")
            if reply.sample_id in replies:
                repeated.append(reply.sample_id)
            replies[reply.sample_id] = reply
    if repeated:
        raise DataError(f"{file}: {_named(repeated)} given more than once.")
    if not replies:
        raise DataError(f"{file}: no replies in it.")
    return replies


def _reply(line: str, where: str) -> Reply:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: not a JSON object.") from None
    if not isinstance(row, dict) or not isinstance(row.get("sample_id"), str) or "reply" not in row:
        raise DataError(f'{where}: expected {{"sample_id": "...", "reply": "..."}}.')
    text, finish = row["reply"], row.get("finish_reason", "stop")
    if not isinstance(text, str | None):
        raise DataError(f"{where}: reply must be a string or null, found {type(text).__name__}.")
    if finish not in _FINISH:
        raise DataError(f"{where}: finish_reason {finish!r}; allowed: {', '.join(_FINISH)}.")
    return Reply(
        sample_id=row["sample_id"],
        text=text,
        finish_reason=finish,
        latency_s=_number(row.get("latency_s", 0.0), f"{where}: latency_s"),
        usage=_usage(row.get("usage") or {}, where),
        answered_by=None if row.get("answered_by") is None else str(row["answered_by"]),
        error="no reply in the imported file" if text is None else None,
    )


def _usage(value: Any, where: str) -> dict[str, int]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: usage must be a mapping of token counts, found {type(value).__name__}.")
    return {str(key): int(_number(count, f"{where}: usage.{key}")) for key, count in value.items()}


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise DataError(f"{where}: expected a number of at least 0, found {str(value)[:60]}.")
    return float(value)


def _named(ids: list[str]) -> str:
    shown = ", ".join(repr(sample_id) for sample_id in ids[:_NAMED])
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"sample id{'s' * (len(ids) > 1)} {shown}{more}"


def _file_safe(name: str) -> str:
    """A model's name as a folder's name: anything but letters, digits, dot, dash, underscore becomes a dash."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name).strip(".-")
    if not safe:
        raise ConfigError(f"--model {name!r}: needs a letter or a digit.")
    return safe
