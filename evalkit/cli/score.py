"""evalkit score, evalkit import: verdicts for replies that are already there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from evalkit.cli.common import (
    EXIT_UNFINISHED,
    Folder,
    data_option,
    json_option,
    models_option,
    note,
    print_json,
    results_option,
    tasks_option,
)
from evalkit.cli.running import show_summary


@click.command("score")
@click.argument("run", required=False, type=Folder())
@click.option("--all", "every", is_flag=True, help="Every run below RESULTS/runs.")
@click.option("--dry-run", is_flag=True, help="Say which verdicts would flip; change nothing.")
@click.option(
    "--show",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Flipped verdicts to show of a run.",
)
@results_option
@tasks_option
@models_option
@json_option
def score_command(
    run: Path | None,
    every: bool,
    dry_run: bool,
    show: int,
    results_dir: Path,
    tasks_dir: Path | None,
    models_file: Path | None,
    as_json: bool,
) -> None:
    """Read stored replies again with today's parsers and metrics; no model is asked.

    RUN is a run's folder or URL. The verdicts that flip are listed; in --json all of them, as `flipped`. With --all
    and --json the document is a list.
    """
    from evalkit.remote.folders import fetched
    from evalkit.store import find_runs

    if every == (run is not None):
        raise click.UsageError("Name one run folder, or --all.")
    folders = find_runs(fetched(results_dir, "runs")) if run is None else [fetched(run)]
    results = []
    for folder in folders:
        result, flipped = _score_one(folder, tasks_dir, models_file, write=not dry_run)
        results.append(result | {"flipped": flipped})
        if not as_json:
            show_summary(result, False)
            _show_flipped(flipped, show, dry_run)
    if as_json:
        print_json(results if every else results[0])
    elif not folders:
        note(f"No runs below {results_dir / 'runs'}.")


def _show_flipped(flipped: list[dict[str, Any]], show: int, dry_run: bool) -> None:
    """How many verdicts flipped which way, and the first of them with their replies."""
    from collections import Counter

    from evalkit.report.pages import plain

    word = "would change" if dry_run else "changed"
    note(f"  {len(flipped)} verdict{'s' * (len(flipped) != 1)} {word}.")
    ways = Counter((one["before"]["verdict"], one["after"]["verdict"]) for one in flipped)
    for (before, after), count in ways.most_common():
        note(f"  {before} -> {after}: {count}")
    for one in flipped[:show]:
        before, after = one["before"], one["after"]
        note(
            f"    {plain(one['sample_id'])}: {before['verdict']} ({plain(before['answer'])}) -> "
            f"{after['verdict']} ({plain(after['answer'])}), gold {plain(one['gold'])}; "
            f"said {plain(repr(one['reply']))}"
        )
    if len(flipped) > show > 0:
        note(f"    and {len(flipped) - show} more; all in --json")


def _score_one(
    folder: Path, tasks_dir: Path | None, models_file: Path | None, *, write: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from evalkit.remote.run import open_run
    from evalkit.runner import rescore, settle, summary
    from evalkit.scoring import Scorer
    from evalkit.store import RunStore, read_meta
    from evalkit.task import load_task

    read_meta(folder)  # refuses what is no run before anything is opened for writing
    with open_run(folder) if write else RunStore(folder) as store:
        meta = read_meta(folder)
        stored = meta["task"]
        task = load_task(stored["name"], tasks_dir)
        parser = stored["parser"] if meta["frame_source"] == "option" else task.parser
        frame = _frame(meta, models_file)
        flipped = rescore(store, Scorer(parser, task.metric, frame), write=write)
        if not write:
            return summary(meta, store.rows, folder), flipped
        status = meta["status"]
        meta = settle(
            meta | {"task": stored | {"parser": parser, "metric": task.metric}, "frame": _as_dict(frame)},
            store.rows.values(),
            meta["selection"]["n"],
        )
        meta["status"] = "running" if status == "running" else meta["status"]
        store.write_meta(meta)
        return summary(meta, store.rows, folder), flipped


def _frame(meta: Mapping[str, Any], models_file: Path | None) -> Any:
    """The frame of a run's replies: today's registry entry where the registry declared it, else as stored."""
    from evalkit.frames import Frame
    from model_adapters import load_registry

    if meta["frame"] is None:
        return None
    entry = load_registry(models_file).get(meta["model"]["name"])
    if meta["frame_source"] == "registry" and entry is not None and entry.frame is not None:
        return entry.frame.frame()
    return Frame(**meta["frame"])


def _as_dict(frame: Any) -> dict[str, Any] | None:
    from dataclasses import asdict

    return None if frame is None else asdict(frame)


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--task", "task_name", required=True, help="The task that the replies answer.")
@click.option("--split", "split_name", required=True, help="The split that the sample ids are of.")
@click.option("--model", "model_name", required=True, help="Who answered; a registry name lends its frame.")
@click.option("--frame", "frame_text", metavar="KIND[:yx][:max_pixels=N]", help="How coordinates are stated.")
@click.option("--parser", "parser_name", help="Read replies with another parser of the same kind of answer.")
@data_option
@results_option
@tasks_option
@models_option
@json_option
def import_command(
    file: Path,
    task_name: str,
    split_name: str,
    model_name: str,
    frame_text: str | None,
    parser_name: str | None,
    data_dir: Path,
    results_dir: Path,
    tasks_dir: Path | None,
    models_file: Path | None,
    as_json: bool,
) -> None:
    """Score replies made elsewhere: FILE has {"sample_id", "reply"} a line.

    A partial set is scored over what was given and marked. Unknown and repeated sample ids are
    refused by name, and then nothing is stored.
    """
    from evalkit.datasets.disk import read_split
    from evalkit.importing import import_replies
    from evalkit.remote.folders import fetched
    from evalkit.remote.run import open_run
    from evalkit.runner import summary
    from evalkit.task import load_task
    from model_adapters import load_registry
    from model_adapters.registry import parse_frame

    task = load_task(task_name, tasks_dir)
    entry = load_registry(models_file).get(model_name)
    plan, replies = import_replies(
        file,
        task=task,
        split=read_split(fetched(data_dir, task.dataset), task.dataset, split_name),
        model_name=model_name,
        model=entry.model_dump() if entry else None,
        model_frame=entry.frame.frame() if entry and entry.frame else None,
        frame=parse_frame(frame_text) if frame_text else None,
        parser=parser_name,
    )
    folder = results_dir / "runs" / plan.name
    with open_run(folder) as store:
        from evalkit.importing import store_replies

        meta = store_replies(plan, store, replies)
        result = summary(meta, store.rows, folder)
        show_summary(result, as_json)
    if result["status"] != "complete":
        note(f"Unfinished: {result['verdicts']['failed']} samples have no reply in {file}.")
        click.get_current_context().exit(EXIT_UNFINISHED)
