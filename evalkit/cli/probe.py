"""evalkit probe: where a model looks when it answers."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.common import (
    data_option,
    first_of_ranks,
    json_option,
    models_option,
    note,
    parse_settings,
    print_json,
    results_option,
    tasks_option,
)

if TYPE_CHECKING:
    from evalkit.runner import Plan
    from model_adapters import ModelEntry
    from trainers.ranks import Ranks


@click.command("probe")
@click.option("--model", "model_name", required=True, help="A local model of the registry.")
@click.option("--task", "task_name", required=True, help="A name of `evalkit tasks`, or a task file.")
@click.option("--split", "split_name", help="Split of the data set.  [default: the task's first]")
@click.option("--limit", type=click.IntRange(min=1), help="As of the run whose answers are probed.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of --limit.")
@click.option(
    "--trained-on", metavar="TASK", help="Which checkpoint of a trained model.  [default: the task]"
)
@click.option(
    "--train-seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of which training seed."
)
@click.option(
    "--checkpoint", metavar="PATH", help="A checkpoint folder or Hub id, instead of the registry's."
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="An option of the model's adapter."
)
@click.option(
    "--answer",
    type=click.Choice(["reply", "gold"]),
    default="reply",
    show_default=True,
    help="Probe the model's own stored replies, or the gold answers.",
)
@click.option(
    "--query",
    type=click.Choice(["last_answer", "eos", "before_answer"]),
    default="last_answer",
    show_default=True,
    help="The position whose attention is taken.",
)
@click.option(
    "--maps", type=click.IntRange(min=0), default=12, show_default=True, help="Keep this many samples' maps."
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "vllm", "vllm_server", "hf_local"]),
    default="auto",
    show_default=True,
    help="The engine of the run whose replies are probed; the probe itself runs in transformers.",
)
@data_option
@results_option
@tasks_option
@models_option
@json_option
def probe_command(
    model_name: str,
    task_name: str,
    split_name: str | None,
    limit: int | None,
    seed: int,
    trained_on: str | None,
    train_seed: int,
    checkpoint: str | None,
    settings: tuple[str, ...],
    answer: str,
    query: str,
    maps: int,
    engine: str,
    data_dir: Path,
    results_dir: Path,
    tasks_dir: Path | None,
    models_file: Path | None,
    as_json: bool,
) -> None:
    """Measure where a model looks when it answers (Fig. 4, Table 5, the maps of Figs. 3 and 5).

    The answers are those of the model's stored run on the same samples; `evalkit run` comes first. Rows are
    stored as they come; the same command again does nothing, or finishes what is missing. On several GPUs:
    torchrun --nproc-per-node N -m evalkit probe ...; each probes a part of the samples.
    """
    from evalkit.cli.planning import Choice, chosen_entry, plan_for, with_chosen_engine
    from evalkit.provenance import digest
    from evalkit.remote.folders import fetched
    from evalkit.remote.run import held

    choice = Choice(
        *(model_name, task_name, split_name, limit, seed, trained_on, train_seed, checkpoint),
        settings=parse_settings(settings),
        engine=engine,
    )
    _, plan = plan_for(choice, data_dir, tasks_dir, models_file, runnable=True)
    chosen, _ = chosen_entry(choice, plan.task, tasks_dir, models_file)
    _require_local(chosen)
    entry, _ = with_chosen_engine(chosen, "hf_local")
    how = {"answer": answer, "query": query, "maps": maps}
    name = f"{plan.name.rpartition('-')[0]}-{digest([plan.name, how])[:8]}"
    folder = results_dir / "probes" / name
    with first_of_ranks() as first:
        with held(folder) if first else nullcontext():
            # the others' copy of a shared folder may be older: the first one decides for all
            if not _of_first(lambda: (folder / "probe.json").is_file()):
                fetched(results_dir / "runs" / plan.name)
                texts = _gold(entry, plan) if answer == "gold" else _replies(results_dir, plan, choice.model)
                _probe(entry, plan, texts, how, folder)
        if first:
            meta = json.loads((folder / "probe.json").read_text(encoding="utf-8"))
            if as_json:
                print_json(meta | {"probe": str(folder)})
            else:
                _show(meta, folder)


def _require_local(entry: "ModelEntry") -> None:
    from evalkit.errors import Unavailable
    from model_adapters.families import FAMILIES

    if entry.adapter not in ("local", "hf_local") or entry.family not in FAMILIES:
        raise Unavailable(f"{entry.name} cannot be probed: attention is seen in local checkpoints alone.")


def _of_first(fact: Callable[[], bool]) -> bool:
    """What is true for the first of several processes; of one alone without torch."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return fact()
    ranks = _ranks()
    return bool(ranks.of_first(fact() if ranks.first else False))


def _replies(results_dir: Path, plan: "Plan", model: str) -> dict[str, str]:
    """The stored replies of the run that the plan describes. Raises StoreError where there is none."""
    from evalkit.errors import StoreError
    from evalkit.store import read_rows

    rows = list(read_rows(results_dir / "runs" / plan.name))
    replies = {row["sample_id"]: row["reply"] for row in rows if row["reply"] is not None}
    if len(replies) < len(plan.samples):
        raise StoreError(
            f"{results_dir / 'runs' / plan.name} has {len(replies)} of {len(plan.samples)} replies to probe. Make them "
            f"first, with the same options: evalkit run --model {model} --task {plan.task.name}; or --answer gold."
        )
    return replies


def _gold(entry: "ModelEntry", plan: "Plan") -> dict[str, str]:
    from evalkit.prompts import make_answer

    return {s.sample_id: make_answer(plan.task, plan.variant, plan.frame, s) for s in plan.samples}


def _probe(
    entry: "ModelEntry", plan: "Plan", texts: dict[str, str], how: dict[str, Any], folder: Path
) -> None:
    """Probe what has no row yet, then write maps and summary."""
    from evalkit.probes import ROWS_FILE, read_rows, summarise
    from evalkit.provenance import git_commit, machine, now, versions
    from evalkit.report.pages import write
    from model_adapters import load_adapter

    ranks = _ranks()
    folder.mkdir(parents=True, exist_ok=True)
    rows = read_rows(folder) if ranks.first else {}
    there = ranks.of_first(list(rows))
    if not ranks.first:
        rows = {sample_id: {} for sample_id in there}
    else:  # without a torn line
        write(folder / ROWS_FILE, "".join(json.dumps(row) + "\n" for row in rows.values()))
    started = now()
    adapter: Any = load_adapter(entry)
    try:
        ran_on = machine() | dict(adapter.describe()) | ({"world_size": ranks.n} if ranks.n > 1 else {})
        with (folder / ROWS_FILE if ranks.first else Path(os.devnull)).open("a", encoding="utf-8") as file:
            for found in _missing_rows(entry, plan, texts, how, adapter, rows, ranks):
                rows[found.row["sample_id"]] = found.row
                file.write(json.dumps(found.row) + "\n")
                file.flush()
        if not ranks.first:
            return
        in_order = {s.sample_id: rows[s.sample_id] for s in plan.samples}
        if list(in_order) != list(rows):  # as one process would have left them
            rows = in_order
            write(folder / ROWS_FILE, "".join(json.dumps(row) + "\n" for row in rows.values()))
        _write_maps(entry, plan, texts, how, adapter, rows, folder)
    finally:
        adapter.close()
    meta = {
        "schema": 1,
        "model": plan.model,
        "training": plan.training,
        "task": {"name": plan.task.name, "title": plan.task.title},
        "split": plan.split.name,
        "trained_on": plan.trained_on,
        "dataset": {"name": plan.split.dataset, "fingerprint": plan.split.fingerprint},
        "selection": {"limit": plan.limit, "n": len(plan.samples), "seed": plan.seed},
        "run": plan.name,
        **how,
        "skipped": sum("skipped" in row for row in rows.values()),
        "summary": summarise(rows.values()),
        "versions": versions(),
        "git_commit": git_commit(),
        "ran_on": ran_on,
        "started": started,
        "ended": now(),
    }
    write(folder / "probe.json", json.dumps(meta, indent=2) + "\n")


def _missing_rows(
    entry: "ModelEntry",
    plan: "Plan",
    texts: dict[str, str],
    how: dict[str, Any],
    adapter: Any,
    rows: dict[str, dict[str, Any]],
    ranks: "Ranks",
) -> Iterator[Any]:
    """What is probed of samples without a row: at the first rank all of it, at others nothing."""
    from tqdm import tqdm

    from trainers.probes import probe

    todo = [sample for sample in plan.samples if sample.sample_id not in rows]
    size = entry.runtime.get("batch_size", 8)
    own = probe(adapter, plan.task, ranks.share(todo), texts, query=how["query"], batch_size=size)
    found = ranks.collected(own if ranks.n == 1 else map(_without_maps, own), todo, size)
    label = f"probing {entry.name} on {plan.task.name}"
    yield from tqdm(
        found,
        total=len(plan.samples),
        initial=len(rows),
        desc=label,
        unit="sample",
        disable=None if ranks.first else True,
    )


def _without_maps(found: Any) -> Any:
    """What is sent to the first rank: maps are made there, of a few samples, at the end."""
    from dataclasses import replace

    return replace(found, attention=None, norm=None)


def _ranks() -> "Ranks":
    from trainers.ranks import Ranks

    return Ranks()


def _write_maps(
    entry: "ModelEntry",
    plan: "Plan",
    texts: dict[str, str],
    how: dict[str, Any],
    adapter: Any,
    rows: dict[str, dict[str, Any]],
    folder: Path,
) -> None:
    """Maps of the first samples that have a target, spread over the classes: the same for every model."""
    import numpy as np

    from evalkit.probes import MAPS_FILE
    from evalkit.sampling import stratified
    from trainers.probes import probe

    with_target = [s for s in plan.samples if "no target" not in rows[s.sample_id].get("skipped", "")]
    chosen = stratified(with_target, min(how["maps"], len(with_target)) or None, 0) if how["maps"] else ()
    kept = [
        f for f in probe(adapter, plan.task, chosen, texts, query=how["query"]) if f.attention is not None
    ]
    if not kept:
        return
    most = max(len(f.grid) for f in kept)

    def padded(name: str) -> Any:
        flat = [getattr(f, name) for f in kept]
        return np.stack([np.pad(v, (0, most - len(v)), constant_values=np.nan) for v in flat]).astype(
            np.float32
        )

    np.savez_compressed(
        folder / MAPS_FILE,
        sample_ids=np.array([f.row["sample_id"] for f in kept]),
        grids=np.array([(f.grid.rows, f.grid.cols) for f in kept], np.int64),
        extents_xyxy=np.array([f.grid.extent_xyxy for f in kept]),
        attention=padded("attention"),
        norm=padded("norm"),
    )


def _show(meta: dict[str, Any], folder: Path) -> None:
    found = meta["summary"]
    click.echo(
        f"{meta['model']['name']} on {meta['task']['name']}/{meta['split']}: {found['n']} samples probed"
    )
    if found["n"]:
        for name, title in (
            ("ratio", "attention of target tokens / of all visual tokens"),
            ("share", "share of the answer's attention on visual tokens"),
            ("norm_target", "norm of target tokens after the last layer"),
        ):
            value = found[name]
            click.echo(
                f"  {title:<50} {value['value']:.3f}  (95 % CI {value['low']:.3f}–{value['high']:.3f})"
            )
    if meta["skipped"]:
        note(f"{meta['skipped']} samples have no target to look at, or no answer.")
    click.echo(f"  {folder}")
