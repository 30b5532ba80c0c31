"""evalkit tasks, models, validate: what there is, what can run here, and what is wrong."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.common import (
    EXIT_USER_ERROR,
    data_option,
    json_option,
    models_option,
    note,
    percent,
    print_json,
    tasks_option,
)

if TYPE_CHECKING:
    from model_adapters import ModelEntry


@click.command("tasks")
@tasks_option
@data_option
@json_option
def tasks_command(tasks_dir: Path | None, data_dir: Path, as_json: bool) -> None:
    """List the tasks: what they ask, how they are scored, whether their data are here."""
    from evalkit.datasets.disk import METADATA
    from evalkit.remote.folders import fetched
    from evalkit.task import load_task, task_files

    fetched(data_dir, only=(METADATA,))
    rows: list[dict[str, Any]] = []
    for path in task_files(tasks_dir):
        task = load_task(path.stem, tasks_dir)
        rows.append(
            {
                "name": task.name,
                "title": task.title,
                "description": task.description,
                "paper": task.paper,
                "dataset": task.dataset,
                "splits": task.splits,
                "parser": task.parser,
                "metric": task.metric,
                "chance": task.chance,
                "data": _data_state(data_dir, task.dataset),
            }
        )
    if as_json:
        print_json(rows)
        return
    for row in rows:
        click.echo(f"{row['name']:<18} {row['description']}")
        facts = [row["paper"] or "not in the paper", f"{row['parser']} -> {row['metric']}"]
        facts += [f"chance {percent(row['chance'])}"] if row["chance"] is not None else []
        click.echo(f"{'':<18} {' · '.join(facts)} · data: {row['data']}")


def _data_state(data_dir: Path, dataset: str) -> str:
    from evalkit.datasets import DATASETS

    folder = data_dir / dataset
    present = sorted(path.parent.name for path in folder.glob("*/metadata.jsonl"))
    if present:
        return f"{folder} ({', '.join(present)})"
    return f"not here; {DATASETS[dataset].command}"


@click.command("models")
@click.option(
    "--check",
    "ask",
    is_flag=True,
    help="Ask the endpoints that there is a key for whether they know the model.",
)
@models_option
@json_option
def models_command(ask: bool, models_file: Path | None, as_json: bool) -> None:
    """List the models: which can run here and, if not, what is missing."""
    from model_adapters import load_registry, missing

    rows: list[dict[str, Any]] = []
    for entry in load_registry(models_file).values():
        lacks = missing(entry)
        row = entry.model_dump(
            include={"name", "title", "adapter", "family", "checkpoint", "frame", "tasks", "scale", "retired"}
        )
        rows.append(
            row | {"ready": lacks is None, "missing": lacks} | (_checked(entry, lacks) if ask else {})
        )
    if as_json:
        print_json(rows)
        return
    for row in rows:
        _show_model(row)


def _checked(entry: "ModelEntry", lacks: str | None) -> dict[str, Any]:
    """What the endpoint of a hosted model says; `checked` is null where nobody was asked."""
    from model_adapters.checking import check
    from model_adapters.settings import API_KINDS

    if entry.adapter not in API_KINDS or lacks is not None:
        return {"checked": None}
    fault = check(entry)
    return {"checked": fault or "ok", "ready": fault is None}


def _show_model(row: dict[str, Any]) -> None:
    click.echo(f"{'ready' if row['ready'] else '-':<6} {row['name']:<18} {row['title']}")
    facts = [row["missing"]] if row["missing"] else []
    if row.get("checked"):
        facts.append("its endpoint knows it" if row["checked"] == "ok" else row["checked"])
    if row["retired"] and not row["missing"]:
        facts.append(f"answers until {row['retired']}")
    if row["tasks"]:
        facts.append(f"asked {', '.join(row['tasks'])}")
    if facts:
        click.echo(f"{'':<25} {'; '.join(facts)}")


@click.command("validate")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
@tasks_option
@models_option
@json_option
def validate_command(
    files: tuple[Path, ...], tasks_dir: Path | None, models_file: Path | None, as_json: bool
) -> None:
    """Check task files, templates, parser examples, registry, training configs and scales; a line a fault.

    FILES are task files, or folders of them; without any, all that come with evalkit are checked.
    """
    from evalkit.task import task_files
    from evalkit.validate import task_faults
    from model_adapters import check_registry
    from model_adapters.registry import REGISTRY

    entries, faults = check_registry(REGISTRY)
    if models_file is not None:
        own, own_faults = check_registry(models_file)
        entries, faults = entries | own, faults + own_faults
    families = {entry.family for entry in entries.values() if entry.family}
    paths = [p for f in files for p in (task_files(f) if f.is_dir() else [f])] or task_files(tasks_dir)
    for path in paths:
        faults += task_faults(path, families)
    faults += _frame_faults(paths, entries)
    if not files:
        faults += _paper_faults() + _training_faults(entries)
    if as_json:
        print_json({"ok": not faults, "faults": faults, "tasks": len(paths), "models": len(entries)})
    else:
        for fault in faults:
            click.echo(fault)
        found = f"{len(faults)} fault{'s' * (len(faults) != 1)}" if faults else "no faults"
        note(f"{len(paths)} task files, {len(entries)} models: {found}.")
    if faults:
        click.get_current_context().exit(EXIT_USER_ERROR)


def _training_faults(entries: dict[str, Any]) -> list[str]:
    """Training configs and scales that are not sound, or name models that the registry has not."""
    from evalkit.errors import ConfigError
    from trainers.scale import load_scale, scale_names
    from trainers.spec import config_files, make_spec, read_config

    faults: list[str] = []
    for path in config_files():
        try:
            spec = make_spec(read_config(path), str(path))
        except ConfigError as error:
            faults += str(error).splitlines()
            continue
        faults += [
            f"{path}: {key}: no model named {name!r} in the registry."
            for key, name in (("model", spec.model), ("base", spec.base))
            if name not in entries
        ]
    for name in scale_names():
        try:
            load_scale(name)
        except ConfigError as error:
            faults += str(error).splitlines()
    return faults


def _frame_faults(paths: list[Path], entries: dict[str, Any]) -> list[str]:
    """Models whose family is asked in `frame: model` but which declare none."""
    from evalkit.task import check_task_file

    faults = []
    for path in paths:
        task, _ = check_task_file(path)
        if task is None:
            continue
        for entry in entries.values():
            own = task.family_prompts.get(entry.family or "")
            if own is not None and own.frame == "model" and entry.frame is None:
                faults.append(
                    f"registry: {entry.name}: task {path.stem!r} asks in its own frame, but it has no `frame`."
                )
    return faults


def _paper_faults() -> list[str]:
    from evalkit.errors import EvalkitError
    from evalkit.report.paper import load_paper

    try:
        load_paper()
    except EvalkitError as error:
        return [str(error)]
    return []
