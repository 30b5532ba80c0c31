"""evalkit run: one model on one task."""

from pathlib import Path
from typing import Any

import click

from evalkit.cli.common import (
    EXIT_UNFINISHED,
    address_option,
    data_option,
    json_option,
    models_option,
    note,
    parse_settings,
    results_option,
    tasks_option,
)
from evalkit.cli.running import ENGINES


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
    type=click.Choice(ENGINES),
    default="auto",
    show_default=True,
    help="What runs a local checkpoint; auto: vLLM where it is installed, else transformers; ray: copies of either "
    "on the GPUs and machines of a Ray cluster.",
)
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    help="Of --engine ray, how many copies of the model.  [default: what its GPUs hold]",
)
@address_option
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
    replicas: int | None,
    address: str | None,
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
    from evalkit.cli.running import How, answer, load, show_log, show_summary, warn_of_answers, why_unfinished
    from evalkit.remote.folders import fetched

    how = How(engine, replicas, address, batch)
    if not how.on_ray and (replicas or address):
        raise click.UsageError("--replicas and --address go with --engine ray.")
    choice = Choice(
        *(model_name, task_name, split_name, limit, seed, trained_on, train_seed, checkpoint),
        settings=parse_settings(settings) | _given(base_url, rpm, tpm, trust_remote_code),
        engine=how.of_each,
        force=force,
    )
    entry, plan = plan_for(choice, data_dir, tasks_dir, models_file, runnable=not dry_run, say=note)
    folder = results_dir / "runs" / plan.name
    costs = Costs(entry, plan, batch, max_cost)
    if dry_run:
        show_plan(plan, fetched(folder), costs, as_json)
        return
    costs.warn()
    how.require_for(entry)
    show_log()
    meta, result = answer(plan, folder, costs, how, load, lambda result, _: show_summary(result, as_json))
    warn_of_answers(meta, result)
    if result["status"] != "complete":
        note(why_unfinished(result, max_cost))
        click.get_current_context().exit(EXIT_UNFINISHED)


def _given(
    base_url: str | None, rpm: float | None, tpm: float | None, trust_remote_code: bool
) -> dict[str, Any]:
    """The options that are settings of an adapter, where they were given."""
    options = {"base_url": base_url, "rpm": rpm, "tpm": tpm, "trust_remote_code": trust_remote_code or None}
    return {name: value for name, value in options.items() if value is not None}
