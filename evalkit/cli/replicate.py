"""evalkit replicate: the whole paper at a scale, one resumable plan of evalkit commands."""

import time
from pathlib import Path

import click

from evalkit.cli.common import data_option, note, results_option


@click.command("replicate")
@click.option(
    "--scale", "scale_name", required=True, help="tiny (CPU), small (one GPU) or paper (7B models)."
)
@click.option("--task", "tasks", multiple=True, help="Only this task; may be given several times.")
@click.option("--family", "families", multiple=True, help="Only this family: qwen or llava.")
@click.option("--seed", "seeds", multiple=True, type=click.IntRange(min=0), help="Only this training seed.")
@click.option("--jobs", type=click.IntRange(min=1), help="Commands at a time.  [default: the scale's]")
@click.option("--dry-run", is_flag=True, help="Print the commands and run nothing.")
@data_option
@results_option
def replicate_command(
    scale_name: str,
    tasks: tuple[str, ...],
    families: tuple[str, ...],
    seeds: tuple[int, ...],
    jobs: int | None,
    dry_run: bool,
    data_dir: Path,
    results_dir: Path,
) -> None:
    """Re-run the paper: data, base, NTP, NTP + KLAL, probes, Tables 1-5 and Figures 3-5.

    Data go to DATA/SCALE (DATA itself at paper scale), results to RESULTS/replicate-SCALE, checkpoints to
    checkpoints/. The same command goes on after a kill. Data sets that cannot be built and are not at hand
    are left out, by name. On shared storage the steps share data and results; checkpoints, logs and which steps
    are done stay on this machine.
    """
    from evalkit.cli.pipeline import Command, Pipeline
    from evalkit.datasets.disk import DATASET_FILE, METADATA, splits_of
    from evalkit.remote.folders import address, fetched
    from trainers.scale import left_out, load_scale, narrowed, plan

    scale = narrowed(load_scale(scale_name), list(tasks), list(families), list(seeds))
    data = data_dir if scale_name == "paper" else data_dir / scale_name
    out = results_dir / f"replicate-{scale_name}"
    for task in scale.tasks:
        fetched(data, task, only=(DATASET_FILE, METADATA))
    at_hand = {task: "train" in splits_of(data, task) for task in scale.tasks if task not in scale.data}
    folders = ("--data", address(data), "--results", address(out))
    steps = plan(scale, at_hand)
    work = [Command(step.key, (*step.words, *folders), step.needs) for step in steps]
    everything = tuple(command.key for command in work)
    work += [  # in turn: the tables show the figures
        Command("figures", ("figures", "--scale", scale_name, *folders), everything, always=True),
        Command("leaderboard", ("leaderboard", *folders), everything, always=True),
        # its cells link to the pages of the runs
        Command(
            "tables", ("tables", "--scale", scale_name, *folders), ("figures", "leaderboard"), always=True
        ),
    ]
    for task in left_out(scale, at_hand):
        note(f"Left out: {task}, its data are not in {data}.")
    if dry_run:
        for command in work:
            click.echo(f"evalkit {' '.join(command.words)}")
        return
    started = time.monotonic()
    seconds = Pipeline(out / "pipeline", jobs or scale.jobs, scale.threads, note).run(work)
    note(
        f"{scale.title}: {len(work)} steps, {sum(seconds.values()) / 60:.0f} minutes of work in all, "
        f"{(time.monotonic() - started) / 60:.0f} minutes now."
    )
    click.echo(f"{address(out)}/tables/{scale_name}.html")
