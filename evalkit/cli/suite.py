"""evalkit suite: several models on several tasks, planned together and run one after the other."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.common import (
    EXIT_UNFINISHED,
    EXIT_USER_ERROR,
    data_option,
    json_option,
    models_option,
    note,
    percent,
    print_json,
    results_option,
    tasks_option,
)
from evalkit.cli.running import ENGINES, How

if TYPE_CHECKING:
    from evalkit.cluster import Cluster
    from evalkit.records import Adapter, Prompt, Reply
    from evalkit.suites import Run, Suite
    from model_adapters import ModelEntry


@click.command("suite")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Show the plan: what is stored, what is asked, what it takes.")
@click.option("--engine", type=click.Choice(ENGINES), help="Of every local model, whatever the file says.")
@click.option("--replicas", type=click.IntRange(min=1), help="Of --engine ray, instead of the file's.")
@click.option("--address", metavar="HOST:PORT", help="Of --engine ray, instead of the file's.")
@click.option("--limit", type=click.IntRange(min=1), help="Of every run, instead of the file's.")
@data_option
@results_option
@tasks_option
@models_option
@json_option
def suite_command(
    file: Path,
    dry_run: bool,
    engine: str | None,
    replicas: int | None,
    address: str | None,
    limit: int | None,
    data_dir: Path,
    results_dir: Path,
    tasks_dir: Path | None,
    models_file: Path | None,
    as_json: bool,
) -> None:
    """Run several models on several tasks.

    \b
      models: [qwen-base, {model: qwen-klal, set: {dtype: bfloat16}}]
      tasks: [line_tracing, {task: grid_patch, limit: 200}]
      engine: ray

    FILE has models and tasks, whose pairs are run, or single runs; options carry the names of `evalkit run`. All
    of it is planned and checked before the first question. Each run is stored as `evalkit run` alone would store
    it, and a model is loaded once for its tasks. A run that fails does not keep the others from theirs. The same
    command again finishes what is missing.

    Exit status: 0 all done; 1 a run failed, or an error of yours; 2 usage; 3 unfinished.
    """
    from evalkit.suites import read_suite

    suite = read_suite(file)
    given = {"engine": engine, "replicas": replicas, "address": address, "limit": limit}
    places = Places(data_dir, results_dir, tasks_dir, models_file)
    work = planned(suite, {k: v for k, v in given.items() if v is not None}, places)
    if dry_run and as_json:
        print_json(_document(file, work))
        return
    _show(work, click.echo if dry_run else note)
    if dry_run:
        return
    stopped = _run_all(suite, work, places)
    _show_outcome(file, work, as_json)
    if stopped or any(one.unfinished for one in work):
        note("Unfinished: the same command goes on with it.")
    if any(one.fault for one in work):
        click.get_current_context().exit(EXIT_USER_ERROR)
    if stopped or any(one.unfinished for one in work):
        click.get_current_context().exit(EXIT_UNFINISHED)


@dataclass(frozen=True, slots=True)
class Places:
    """The folders that runs are planned from and stored in."""

    data_dir: Path
    results_dir: Path
    tasks_dir: Path | None
    models_file: Path | None


@dataclass(slots=True)
class Planned:
    """One run of a suite: its facts for the plan, and what came of it."""

    run: "Run"
    how: How
    facts: dict[str, Any] = field(default_factory=dict)
    entry: "ModelEntry | None" = None
    folder: Path | None = None
    fault: str | None = None
    result: dict[str, Any] | None = None
    unsent: str | None = None  # why shared storage does not have all of it
    stopped: bool = False  # by Ctrl-C or SIGTERM

    @property
    def name(self) -> str:
        return f"{self.run.model} on {self.run.task}"

    @property
    def unfinished(self) -> bool:
        done = self.result is not None and self.result["status"] == "complete" and self.unsent is None
        return self.fault is None and not done


def planned(suite: "Suite", given: Mapping[str, Any], places: Places) -> list[Planned]:
    """Every run with its plan's facts. A model that this machine lacks something for is a fault of its runs
    alone; whatever is wrong with the file is raised. Raises ConfigError for two runs that are one.
    """
    from evalkit.errors import ConfigError, Unavailable

    work: list[Planned] = []
    for run in suite.settled():
        run = run.model_copy(update={k: v for k, v in given.items() if k == "limit"})
        how = _how(run, suite, given, places)
        one = Planned(run, how)
        try:
            _plan(one, places, full=True)
        except Unavailable as error:
            one.fault = str(error)
        same = [other for other in work if other.folder is not None and other.folder == one.folder]
        if same:
            raise ConfigError(f"Two runs of the suite are one: {same[0].name} and {one.name} ({one.folder}).")
        work.append(one)
    return work


def _how(run: "Run", suite: "Suite", given: Mapping[str, Any], places: Places) -> How:
    """The engine of a run; one that is asked for all of a suite's models is that of the local ones."""
    from model_adapters import get_entry
    from model_adapters.settings import API_KINDS

    engine, replicas = given.get("engine") or run.engine or "auto", given.get("replicas") or run.replicas
    of_all = "engine" in given or run.engine == suite.engine
    entry = get_entry(run.model, places.models_file)
    if of_all and (entry.adapter in API_KINDS or (entry.adapter == "fake" and not engine.startswith("ray"))):
        engine = "auto"
    address = given.get("address") or suite.address
    on_ray = engine.startswith("ray")
    return How(engine, replicas if on_ray else None, address if on_ray else None, bool(run.batch))


def _plan(one: Planned, places: Places, *, full: bool) -> Any:
    """The plan of a run; its facts into `one`."""
    from evalkit.cli.planning import Choice, plan_for

    run = one.run
    more = {"trust_remote_code": True} if run.trust_remote_code else {}
    choice = Choice(
        *(run.model, run.task, run.split, run.limit, run.seed or 0, run.trained_on, run.train_seed or 0),
        checkpoint=run.checkpoint,
        settings=(run.set or {}) | more,
        engine=one.how.of_each,
        force=bool(run.force),
    )
    entry, plan = plan_for(choice, places.data_dir, places.tasks_dir, places.models_file, runnable=True)
    one.how.require_for(entry)
    one.entry, one.folder = entry, places.results_dir / "runs" / plan.name
    if full:
        one.facts = _facts(one, plan)
    return plan


def _facts(one: Planned, plan: Any) -> dict[str, Any]:
    """What a run asks and takes: samples, engine, GPUs, gigabytes of weights on each, dollars."""
    from evalkit.cli.estimates import Costs
    from evalkit.remote.folders import fetched
    from evalkit.store import read_rows
    from model_adapters.settings import LOCAL_KINDS

    assert one.entry is not None
    assert one.folder is not None
    entry = one.entry
    stored = {row["sample_id"] for row in read_rows(fetched(one.folder)) if row["verdict"] != "failed"}
    to_ask = [prompt for prompt in plan.prompts if prompt.sample_id not in stored]
    local = entry.adapter in LOCAL_KINDS
    parallel = [int(entry.runtime.get(f"{kind}_parallel_size", 1)) for kind in ("tensor", "data")]
    weights_gb = 2 * entry.params_b / parallel[0] if entry.params_b and local else None
    return {
        "split": plan.split.name,
        "n": len(plan.prompts),
        "stored": len(stored),
        "to_ask": len(to_ask),
        "engine": f"ray:{entry.adapter}" if one.how.on_ray else entry.adapter,
        "replicas": one.how.replicas if one.how.on_ray else None,
        "gpus_each": parallel[0] * parallel[1] if local else 0,
        "weights_gb_a_gpu": weights_gb and round(weights_gb, 1),
        "cost_usd_at_most": Costs(entry, plan, one.how.batch, None).facts(to_ask).get("cost_usd_at_most"),
    }


def _run_all(suite: "Suite", work: Iterable[Planned], places: Places) -> bool:
    """Run what has something to ask, or nothing stored at all; whether somebody stopped it."""
    from evalkit.cli.running import show_log
    from evalkit.errors import EvalkitError, InUse, Unsent

    show_log()
    work = list(work)
    kept = _Kept()
    try:
        for number, one in enumerate(work, 1):
            if one.fault is not None:
                continue
            note(f"[{number}/{len(work)}] {one.name}: {one.facts['to_ask']} to ask")
            try:
                _run_one(suite, one, work, places, kept)
            except (Unsent, InUse) as error:  # in use: it is being finished
                one.unsent = str(error)
                note(f"Unfinished: {error}")
            except EvalkitError as error:
                one.fault = str(error)
                note(f"Error: {error}")
                kept.close()
            if one.stopped:
                return True
    except KeyboardInterrupt:  # while a model is being loaded
        note("Interrupted.")
        return True
    finally:
        kept.close()
        kept.disconnect()
    return False


def _run_one(suite: "Suite", one: Planned, work: list[Planned], places: Places, kept: "_Kept") -> None:
    from evalkit.cli.estimates import Costs
    from evalkit.cli.running import answer, warn_of_answers

    plan = _plan(one, places, full=False)
    assert one.entry is not None
    assert one.folder is not None
    left = None if suite.max_cost is None else max(0.0, suite.max_cost - _spent(one, work))
    costs = Costs(one.entry, plan, one.how.batch, left)
    costs.warn()

    def show(result: dict[str, Any], stopped: bool) -> None:
        one.result, one.stopped = result, stopped
        note(_line(one))

    meta, result = answer(plan, one.folder, costs, one.how, kept.load, show)
    warn_of_answers(meta, result)


def _spent(one: Planned, work: list[Planned]) -> float:
    """US dollars of the suite's other runs, so far."""
    from evalkit.costs import cost_usd
    from evalkit.store import read_rows

    others = [other for other in work if other is not one and other.folder and other.entry]
    return sum(
        cost_usd(other.entry.prices.model_dump(), read_rows(other.folder)) or 0.0
        for other in others
        if other.entry and other.entry.prices and other.folder
    )


class _Kept:
    """Loads a model once for runs that follow each other, and joins a Ray cluster once for all."""

    def __init__(self) -> None:
        self._of: tuple[Any, How] | None = None
        self._adapter: Adapter | None = None
        self._cluster: Cluster | None = None

    def load(self, entry: "ModelEntry", how: How, journal: Path | None, proven: bool) -> "Adapter":
        from evalkit.cli.running import load
        from model_adapters.settings import API_KINDS

        if entry.adapter in API_KINDS:  # nothing to keep; each run has a journal and limits of its own
            return load(entry, how, journal, proven)
        if self._adapter is None or self._of != (entry, how):
            self.close()
            if how.on_ray and self._cluster is None:
                from evalkit.cluster import connect

                self._cluster = connect(how.address, how.replicas or 1)
            self._adapter, self._of = load(entry, how, journal, proven), (entry, how)
        return _Lent(self._adapter)

    def close(self) -> None:
        if self._adapter is not None:
            self._adapter.close()
        self._adapter = self._of = None

    def disconnect(self) -> None:
        if self._cluster is not None:
            self._cluster.close()


class _Lent:
    """A model that the next run may want too: closing it leaves it open."""

    def __init__(self, adapter: "Adapter") -> None:
        self._adapter = adapter

    def replies(self, prompts: "Iterable[Prompt]") -> "Iterator[Reply]":
        return self._adapter.replies(prompts)

    def describe(self) -> Mapping[str, str]:
        return self._adapter.describe()

    def close(self) -> None:
        """Nothing: see _Kept.close."""


_COLUMNS: dict[str, Callable[[Planned], str]] = {
    "model": lambda one: one.run.model,
    "task": lambda one: one.run.task,
    "split": lambda one: one.facts.get("split", ""),
    "n": lambda one: f"{one.facts['n']:,}" if one.facts else "",
    "to ask": lambda one: f"{one.facts['to_ask']:,}" if one.facts else "",
    "engine": lambda one: one.facts.get("engine") or one.how.engine,
    "GPUs": lambda one: _gpus(one),
    "weights": lambda one: f"{gb} GB" if (gb := one.facts.get("weights_gb_a_gpu")) else "",
    "cost at most": lambda one: "" if (usd := one.facts.get("cost_usd_at_most")) is None else f"${usd:,.2f}",
}


def _gpus(one: Planned) -> str:
    each = one.facts.get("gpus_each")
    if not each:
        return ""
    if not one.how.on_ray:
        return str(each)
    return f"{one.how.replicas or 'all'} x {each}" if one.how.replicas else f"all, {each} each"


def _show(work: list[Planned], say: Callable[[str], None]) -> None:
    cells = [[of(one) for of in _COLUMNS.values()] for one in work]
    widths = [max(len(title), *(len(row[i]) for row in cells)) for i, title in enumerate(_COLUMNS)]
    for row in [list(_COLUMNS), *cells]:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for one in work:
        if one.fault:
            say(f"{one.name}: cannot be run: {one.fault}")
    total = sum(one.facts.get("cost_usd_at_most") or 0 for one in work)
    say(
        f"{len(work)} runs, {sum(one.facts.get('to_ask', 0) for one in work):,} questions to ask"
        + (f", at most ${total:,.2f}" if total else "")
    )


def _document(file: Path, work: list[Planned]) -> dict[str, Any]:
    def described(one: Planned) -> dict[str, Any]:
        about = {"model": one.run.model, "task": one.run.task, **one.facts, "fault": one.fault}
        return about | {"run": one.folder and str(one.folder), "result": one.result}

    return {"suite": str(file), "runs": [described(one) for one in work]}


def _line(one: Planned) -> str:
    result = one.result
    assert result is not None
    low, high = result["ci95"]
    mark = "" if result["status"] == "complete" else f"  [{result['status']}]"
    return (
        f"  {result['model']} on {result['task']}/{result['split']}: {percent(result['accuracy'])} "
        f"({result['correct']}/{result['n']}, 95 % CI {100 * low:.1f}–{100 * high:.1f} %){mark}"
    )


def _show_outcome(file: Path, work: list[Planned], as_json: bool) -> None:
    if as_json:
        print_json(_document(file, work))
        return
    for one in work:
        if one.result is not None:
            click.echo(_line(one).strip())
        else:
            click.echo(f"{one.name}: {f'failed: {one.fault}' if one.fault else 'not run'}")
    ends = Counter("failed" if one.fault else "unfinished" if one.unfinished else "complete" for one in work)
    click.echo(f"{len(work)} runs: " + ", ".join(f"{n} {end}" for end, n in ends.items()))
