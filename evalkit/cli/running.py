"""How a run is asked and shown, by `run` and by `suite`: engines, progress, signals, the outcome."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.common import note, percent, print_json

if TYPE_CHECKING:
    from evalkit.cli.estimates import Costs
    from evalkit.costs import Budget
    from evalkit.records import Adapter
    from evalkit.runner import Plan
    from model_adapters import ModelEntry

ENGINES = ("auto", "vllm", "vllm_server", "hf_local", "ray", "ray:vllm", "ray:hf_local")


@dataclass(frozen=True, slots=True)
class How:
    """How a model is asked, which changes no answer. engine: one of ENGINES."""

    engine: str = "auto"
    replicas: int | None = None
    address: str | None = None
    batch: bool = False

    @property
    def on_ray(self) -> bool:
        return self.engine.startswith("ray")

    @property
    def of_each(self) -> str:
        """The engine of the model, or of each copy."""
        return self.engine.removeprefix("ray").removeprefix(":") or "auto"

    def require_for(self, entry: "ModelEntry") -> None:
        """Raise EvalkitError where the model cannot be asked so."""
        if self.batch:
            _require_batches(entry)
        if self.on_ray:
            _require_ray(entry)


Load = Callable[["ModelEntry", How, Path | None, bool], "Adapter"]


def load(entry: "ModelEntry", how: How, journal: Path | None, proven: bool) -> "Adapter":
    """The model, here or as copies on Ray. journal, proven: see model_adapters.load_adapter."""
    if how.on_ray:
        from model_adapters.replicas import RayReplicas

        return RayReplicas(entry, how.replicas, how.address)
    from model_adapters import load_adapter

    return load_adapter(entry, journal, proven=proven)


def answer(
    plan: "Plan",
    folder: Path,
    costs: "Costs",
    how: How,
    load: Load,
    show: Callable[[dict[str, Any], bool], None],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ask what has no answer yet; run.json and the summary.

    show: told the summary, and whether somebody stopped the run, before the end waits for shared storage.
    """
    from evalkit.remote.run import open_run
    from evalkit.runner import execute, summary

    with open_run(folder) as store:
        journal = folder / "batches.jsonl" if how.batch else None
        proven = len(store.rows) > len(store.failed)
        make = partial(load, costs.entry, how, journal, proven)
        meta, stopped = _execute_visibly(plan, store, make, costs.budget(), costs.paid_singly, execute)
        result = summary(meta, store.rows, folder)
        show(result, stopped)
    return meta, result


def _require_batches(entry: "ModelEntry") -> None:
    from evalkit.errors import ConfigError
    from model_adapters.settings import API_KINDS

    if entry.adapter not in API_KINDS:
        raise ConfigError(f"{entry.name} is no API model and has no batch service: leave --batch out.")


def _require_ray(entry: "ModelEntry") -> None:
    from evalkit.extras import require
    from model_adapters.replicas import require_replicable

    require("--engine ray", "ray", "ray")
    require_replicable(entry)


def show_log() -> None:
    """On a terminal, what long work says of itself: batches submitted, models that answer under another name."""
    import logging
    import sys

    if sys.stderr.isatty():
        logging.basicConfig(format="%(message)s")
        logging.getLogger("model_adapters").setLevel(logging.INFO)


def _execute_visibly(
    plan: "Plan",
    store: Any,
    load: Callable[[], "Adapter"],
    budget: "Budget",
    paid: bool,
    execute: Callable[..., dict[str, Any]],
) -> tuple[dict[str, Any], bool]:
    """Run under a progress bar (on a terminal alone); Ctrl-C and SIGTERM end the run in good order.

    run.json, and whether the run was stopped from outside.
    """
    from tqdm import tqdm

    from evalkit.errors import QuotaExhausted

    done = len(store.rows) - len(store.failed)
    label = f"{plan.model['name']} {plan.task.name}"
    bar_of = tqdm(total=len(plan.prompts), initial=done, desc=label, unit="sample", disable=None)
    with _asked_to_stop(budget if paid else None), bar_of as bar:
        try:
            meta = execute(plan, store, load, _Bar(bar), budget)
            if budget.stopped:
                note("Interrupted.")
            return meta, budget.stopped
        except (KeyboardInterrupt, QuotaExhausted) as stop:
            bar.close()
            left: dict[str, Any] | None = store.read_meta()
            if left is None:
                raise
            note("Interrupted." if isinstance(stop, KeyboardInterrupt) else f"Stopped: {stop}")
            return left, isinstance(stop, KeyboardInterrupt)


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


def warn_of_answers(meta: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """What a reader of the number should know about its replies."""
    cut_off, n = result["verdicts"]["truncated"], sum(result["verdicts"].values())
    if n and cut_off / n > _CUT_OFF_SHARE:
        note(
            f"{cut_off} of {n} replies were cut off at the token limit and count as not correct: "
            "raise max_new_tokens of the task, or the model's reasoning_room."
        )
    if len(names := meta.get("answered_by") or {}) > 1:
        note(f"Several models answered: {', '.join(f'{name} ({count})' for name, count in names.items())}.")


def why_unfinished(result: Mapping[str, Any], max_cost: float | None) -> str:
    left = result["n"] - sum(result["verdicts"].values())
    failed, spent = result["verdicts"]["failed"], result["cost_usd"]
    if max_cost is not None and spent is not None and left and not failed:
        return (
            f"Unfinished: ${spent:.4f} of --max-cost ${max_cost:.2f} is spent, another question could exceed it; "
            f"{left} not asked. The same command with a higher limit asks them."
        )
    return f"Unfinished: {failed} failed, {left} not asked. The same command asks them again, and only them."
