"""evalkit run: one model on one task."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.common import (
    EXIT_UNFINISHED,
    data_option,
    json_option,
    models_option,
    note,
    parse_settings,
    percent,
    print_json,
    results_option,
    tasks_option,
)

if TYPE_CHECKING:
    from evalkit.costs import Budget
    from evalkit.records import Adapter
    from evalkit.runner import Plan
    from model_adapters import ModelEntry


@click.command("run")
@click.option("--model", "model_name", required=True, help="A name of the registry; see `evalkit models`.")
@click.option("--task", "task_name", required=True, help="A name of `evalkit tasks`, or a task file.")
@click.option("--split", "split_name", help="Split of the data set.  [default: the task's first]")
@click.option("--limit", type=click.IntRange(min=1), help="A seeded sample of N, classes in proportion.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of --limit and of the intervals.")
@click.option(
    "--trained-on", metavar="TASK", help="Which checkpoint of a trained model.  [default: the task]"
)
@click.option(
    "--train-seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of models trained here, the checkpoint of this training seed.",
)
@click.option(
    "--checkpoint", metavar="PATH", help="A checkpoint folder or Hub id, instead of the registry's."
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="An option of the model's adapter."
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "vllm", "vllm_server", "hf_local"]),
    default="auto",
    show_default=True,
    help="What runs a local checkpoint; auto: vLLM where it is installed, else transformers.",
)
@click.option(
    "--base-url", metavar="URL", help="The server to ask: an API's, or a vLLM server that is running."
)
@click.option("--rpm", type=click.FloatRange(min=1), help="Of APIs, most requests a minute.")
@click.option("--tpm", type=click.FloatRange(min=1), help="Of APIs, most tokens a minute.")
@click.option("--batch", is_flag=True, help="Of APIs, the batch service: half the price, within a day.")
@click.option(
    "--trust-remote-code", is_flag=True, help="Let a checkpoint's own Python code run on this machine."
)
@click.option("--force", is_flag=True, help="Ask a model a task that it is not made for.")
@click.option("--dry-run", is_flag=True, help="Say what would be asked, and ask nothing.")
@click.option("--max-cost", type=click.FloatRange(min=0), metavar="USD", help="Stop before this is exceeded.")
@data_option
@results_option
@tasks_option
@models_option
@json_option
def run_command(
    model_name: str,
    task_name: str,
    split_name: str | None,
    limit: int | None,
    seed: int,
    trained_on: str | None,
    train_seed: int,
    checkpoint: str | None,
    settings: tuple[str, ...],
    engine: str,
    base_url: str | None,
    rpm: float | None,
    tpm: float | None,
    batch: bool,
    trust_remote_code: bool,
    force: bool,
    dry_run: bool,
    max_cost: float | None,
    data_dir: Path,
    results_dir: Path,
    tasks_dir: Path | None,
    models_file: Path | None,
    as_json: bool,
) -> None:
    """Evaluate a model on a task.

    Every reply is on disk before the next counts. The same command again does nothing, or finishes
    what is missing: after a kill, a crash or failed replies nothing that is stored is asked twice. With
    --results s3://BUCKET/PATH the same holds from any machine.

    Exit status: 0 done; 1 an error of yours; 2 usage; 3 unfinished.
    """
    from evalkit.cli.estimates import Costs, show_plan
    from evalkit.cli.planning import Choice, plan_for
    from evalkit.remote.folders import fetched
    from evalkit.remote.run import open_run
    from evalkit.runner import execute, summary
    from model_adapters import load_adapter

    choice = Choice(
        *(model_name, task_name, split_name, limit, seed, trained_on, train_seed, checkpoint),
        settings=parse_settings(settings) | _given(base_url, rpm, tpm, trust_remote_code),
        engine=engine,
        force=force,
    )
    entry, plan = plan_for(choice, data_dir, tasks_dir, models_file, runnable=not dry_run, say=note)
    folder = results_dir / "runs" / plan.name
    costs = Costs(entry, plan, batch, max_cost)
    if dry_run:
        show_plan(plan, fetched(folder), costs, as_json)
        return
    costs.warn()
    if batch:
        _require_batches(entry)
    _show_log()
    with open_run(folder) as store:
        journal = folder / "batches.jsonl" if batch else None
        proven = any(row["verdict"] != "failed" for row in store.rows.values())
        load = partial(load_adapter, entry, journal, proven=proven)
        meta = _execute_visibly(plan, store, load, costs.budget(), costs.paid_singly, execute)
        result = summary(meta, store.rows, folder)
        show_summary(result, as_json)  # before the end, which waits for shared storage
    _warn_of_answers(meta, result)
    if result["status"] != "complete":
        note(_why_unfinished(result, max_cost))
        click.get_current_context().exit(EXIT_UNFINISHED)


def _require_batches(entry: "ModelEntry") -> None:
    from evalkit.errors import ConfigError
    from model_adapters.settings import API_KINDS

    if entry.adapter not in API_KINDS:
        raise ConfigError(f"{entry.name} is no API model and has no batch service: leave --batch out.")


def _show_log() -> None:
    """On a terminal, what long work says of itself: batches submitted, models that answer under another name."""
    import logging
    import sys

    if sys.stderr.isatty():
        logging.basicConfig(format="%(message)s")
        logging.getLogger("model_adapters").setLevel(logging.INFO)


def _given(
    base_url: str | None, rpm: float | None, tpm: float | None, trust_remote_code: bool
) -> dict[str, Any]:
    """The options that are settings of an adapter, where they were given."""
    options = {"base_url": base_url, "rpm": rpm, "tpm": tpm, "trust_remote_code": trust_remote_code or None}
    return {name: value for name, value in options.items() if value is not None}


def _execute_visibly(
    plan: "Plan",
    store: Any,
    load: Callable[[], "Adapter"],
    budget: "Budget",
    paid: bool,
    execute: Callable[..., dict[str, Any]],
) -> dict[str, Any]:
    """Run under a progress bar (on a terminal alone); Ctrl-C and SIGTERM end the run in good order."""
    from tqdm import tqdm

    from evalkit.errors import QuotaExhausted

    done = sum(row["verdict"] != "failed" for row in store.rows.values())
    label = f"{plan.model['name']} {plan.task.name}"
    bar_of = tqdm(total=len(plan.prompts), initial=done, desc=label, unit="sample", disable=None)
    with _asked_to_stop(budget if paid else None), bar_of as bar:
        try:
            meta = execute(plan, store, load, _Bar(bar), budget)
            if budget.stopped:
                note("Interrupted.")
            return meta
        except (KeyboardInterrupt, QuotaExhausted) as stop:
            bar.close()
            note("Interrupted." if isinstance(stop, KeyboardInterrupt) else f"Stopped: {stop}")
            left: dict[str, Any] | None = store.read_meta()
            if left is None:
                raise
            return left


@contextmanager
def _asked_to_stop(paid: "Budget | None") -> Iterator[None]:
    """Ctrl-C, and a scheduler's SIGTERM, end a run in good order.

    paid: of a model whose answers are paid for one by one: the first signal only asks no more, so that
    those in flight are kept; the second one drops them. Other runs are interrupted at once.
    """

    def heard(number: int, frame: Any) -> None:
        if paid is None or paid.stopped:
            raise KeyboardInterrupt
        paid.stop()
        note("Waiting for the replies in flight, which are paid for; Ctrl-C again drops them.")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM, *([signal.SIGINT] if paid else [])]
    before = {number: signal.signal(number, heard) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Bar:
    """A tqdm bar with verdict counts; tqdm itself shows rate and remaining time."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def update(self, verdicts: Mapping[str, int]) -> None:
        self._bar.set_postfix({k: v for k, v in verdicts.items() if v}, refresh=False)
        self._bar.update(1)


_OF_COORDINATES = {
    "mean_iou": "mean IoU {0[mean_iou]:.3f}",
    "beyond_image": "boxes beyond the picture {0[beyond_image]:.1%}",
    "floor_cell_accuracy": "by whole cells {0[floor_cell_accuracy]:.1%}",
}


def show_summary(result: Mapping[str, Any], as_json: bool) -> None:
    """The outcome of a run, for a person or as JSON."""
    if as_json:
        print_json(dict(result))
        return
    low, high = result["ci95"]
    sample = f", a sample of {result['n']} of {result['sample_of']}" if result["sample_of"] else ""
    mark = "" if result["status"] == "complete" else f"  [{result['status']}]"
    click.echo(f"{result['model']} on {result['task']}/{result['split']}{sample}{mark}")
    click.echo(
        f"  accuracy {percent(result['accuracy'])}  ({result['correct']}/{result['n']}, "
        f"95 % CI {100 * low:.1f}–{100 * high:.1f} %, {result['ci95_method']})"
    )
    click.echo(
        "  " + " · ".join(f"{verdict} {count}" for verdict, count in result["verdicts"].items() if count)
    )
    if extras := [words for key, words in _OF_COORDINATES.items() if key in result]:
        click.echo("  " + " · ".join(words.format(result) for words in extras))
    if result["cost_usd"] is not None:
        click.echo(f"  cost ${result['cost_usd']:.4f}")
    click.echo(f"  {result['run']}")


_CUT_OFF_SHARE = 0.05  # above this share a token limit is too small, not a model too talkative


def _warn_of_answers(meta: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """What a reader of the number should know about its replies."""
    cut_off, n = result["verdicts"]["truncated"], sum(result["verdicts"].values())
    if n and cut_off / n > _CUT_OFF_SHARE:
        note(
            f"{cut_off} of {n} replies were cut off at the token limit and count as not correct: "
            "raise max_new_tokens of the task, or the model's reasoning_room."
        )
    if len(names := meta.get("answered_by") or {}) > 1:
        note(f"Several models answered: {', '.join(f'{name} ({count})' for name, count in names.items())}.")


def _why_unfinished(result: Mapping[str, Any], max_cost: float | None) -> str:
    left = result["n"] - sum(result["verdicts"].values())
    failed, spent = result["verdicts"]["failed"], result["cost_usd"]
    if max_cost is not None and spent is not None and left and not failed:
        return (
            f"Unfinished: ${spent:.4f} of --max-cost ${max_cost:.2f} is spent, another question could exceed it; "
            f"{left} not asked. The same command with a higher limit asks them."
        )
    return f"Unfinished: {failed} failed, {left} not asked. The same command asks them again, and only them."
