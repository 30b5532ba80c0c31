"""evalkit train: make the checkpoint of a registry entry."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.common import (
    data_option,
    first_of_ranks,
    json_option,
    models_option,
    parse_settings,
    print_json,
    tasks_option,
)
from evalkit.cli.train_plan import show_plans

if TYPE_CHECKING:
    from evalkit.datasets.disk import Split
    from evalkit.task import TaskSpec
    from model_adapters import ModelEntry
    from trainers.spec import TrainSpec


@click.command("train")
@click.argument("config", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--model", "model_name", help="The model to make, or the base it starts from with --objective.")
@click.option("--task", "task_name", help="The task to train on.")
@click.option("--objective", type=click.Choice(["ntp", "ntp_klal"]), help="[default: the model's]")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the spec, e.g. klal.weight=0.5.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the checkpoint.  [default: the registry entry's]",
)
@click.option("--base", "base_checkpoint", metavar="PATH", help="Start from this folder or Hub id instead.")
@click.option("--force", is_flag=True, help="Replace whatever checkpoint is in that folder.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and train nothing.")
@click.option(
    "--plan",
    "planned",
    is_flag=True,
    help="Estimate memory and hours on --machine, or on each of them, and train nothing.",
)
@click.option(
    "--machine",
    metavar="NAME|YAML",
    help="Settings for 1x24gb, 1x80gb, 8x80gb or a machine of your own; what is trained stays the same.",
)
@click.option(
    "--mfu",
    type=click.FloatRange(0, 1, min_open=True),
    help="Of --plan: the share of its peak that a GPU reaches.  [default: 0.3, a guess]",
)
@data_option
@tasks_option
@models_option
@json_option
def train_command(
    config: Path | None,
    model_name: str | None,
    task_name: str | None,
    objective: str | None,
    settings: tuple[str, ...],
    out: Path | None,
    base_checkpoint: str | None,
    force: bool,
    dry_run: bool,
    planned: bool,
    machine: str | None,
    mfu: float | None,
    data_dir: Path,
    tasks_dir: Path | None,
    models_file: Path | None,
    as_json: bool,
) -> None:
    """Train a checkpoint with NTP or NTP + KLAL.

    \b
      evalkit train --model qwen-klal --task line_tracing
      evalkit train --model qwen-base --task line_tracing --objective ntp_klal     the same
      evalkit train my.yaml --set klal.weight=0.5 --set seed=1
      evalkit train --model qwen-klal --task line_tracing --plan --machine 1x24gb

    The same command again does nothing, or goes on after a kill from the last checkpoint with optimiser
    state, to the same weights. `evalkit run --model M --task T` then finds the checkpoint.

    On several GPUs or machines: torchrun --nproc-per-node N -m evalkit train ..., or accelerate launch -m evalkit
    train .... Every GPU then holds a whole model, or with --set sharding=fsdp a part. The loss of a step and its
    gradient are those of one GPU, and a training goes on with any number of them.
    """
    from evalkit.datasets.disk import read_split
    from evalkit.remote.folders import fetched
    from evalkit.task import load_task
    from model_adapters import get_entry
    from trainers.machine import load_machine, machine_names
    from trainers.spec import find_config, make_spec, read_config

    path = _config_path(config, model_name, task_name, objective, find_config)
    chosen = parse_settings(settings, structured=True)

    def spec_on(name: str | None) -> "TrainSpec":
        """The config, what the machine sets, and --set, each over what is before it."""
        return make_spec(read_config(path), str(path), (load_machine(name).settings if name else {}) | chosen)

    spec = spec_on(machine)
    entry = get_entry(spec.model, models_file)
    base = _base_entry(spec, base_checkpoint, models_file)
    tasks = [load_task(name, tasks_dir) for name in spec.tasks]
    data = [(task, read_split(fetched(data_dir, task.dataset), task.dataset, spec.split)) for task in tasks]
    for _, split in data:
        split.require_images()
    if planned:
        names = [machine] if machine else machine_names()
        show_plans({name: spec_on(name) for name in names}, base, data, mfu, as_json)
        return
    if mfu is not None:
        raise click.UsageError("--mfu is for --plan.")
    out = out or _place(entry, spec)
    if dry_run:
        _show_spec(spec, base, data, out, as_json)
        return
    with first_of_ranks() as first:
        training = _train(spec, base, data, out, force)
        if first and as_json:
            print_json(
                {key: value for key, value in training.items() if key != "history"} | {"folder": str(out)}
            )
        elif first:
            _show(training, out)


def _config_path(
    config: Path | None, model: str | None, task: str | None, objective: str | None, find: Any
) -> Path:
    if config is not None:
        if model or task or objective:
            raise click.UsageError(
                "Give a config, or --model with --task; --set changes settings of a config."
            )
        return config
    if not model:
        raise click.UsageError("Give a config, or --model with --task.")
    found: Path = find(model, task, objective)
    return found


def _place(entry: "ModelEntry", spec: "TrainSpec") -> Path:
    from evalkit.errors import ConfigError

    if not entry.trained_here:
        raise ConfigError(f"{entry.name} has no folder of its own for a checkpoint: name one with --out.")
    return Path(entry.for_task(spec.trained_on if entry.per_task else None, spec.seed).checkpoint or "")


def _base_entry(spec: "TrainSpec", checkpoint: str | None, models_file: Path | None) -> "ModelEntry":
    """The entry to start from; of a base trained here, the checkpoint of the same seed."""
    from model_adapters import get_entry
    from model_adapters.checkpoints import require_checkpoint
    from model_adapters.engines import with_engine

    entry, _ = with_engine(get_entry(spec.base, models_file), "hf_local")
    if checkpoint is not None:
        entry = entry.model_copy(update={"checkpoint": checkpoint})
    elif entry.trained_here:
        entry = entry.for_task(None, spec.seed)
    require_checkpoint(entry)
    return entry


def _train(
    spec: "TrainSpec", entry: "ModelEntry", data: "list[tuple[TaskSpec, Split]]", out: Path, force: bool
) -> dict[str, Any]:
    from evalkit.errors import Unavailable
    from model_adapters import identity
    from model_adapters.checkpoints import local_checkpoint

    try:
        from trainers.training import Base, train
    except ImportError as error:
        raise Unavailable(f"Training needs {error.name}: pip install 'evalkit-vlm[train]'.") from None
    limits = {k: v for k in ("min_pixels", "max_pixels") if (v := entry.options.get(k)) is not None}
    base = Base(
        checkpoint=str(local_checkpoint(entry.checkpoint or "")),
        family=entry.family or "",
        revision=entry.revision,
        limits=limits,
        layout=entry.options.get("layout", "pad"),
        frame=entry.frame.frame() if entry.frame else None,
        identity={"name": entry.name, **identity(entry)},
        trust_remote_code=entry.options.get("trust_remote_code", False),
    )
    return train(spec, base, data, out, force=force)


def _show_spec(
    spec: "TrainSpec", base: "ModelEntry", data: "list[tuple[TaskSpec, Split]]", out: Path, as_json: bool
) -> None:
    from trainers.planning import steps_of

    n = sum(min(spec.limit or len(split.samples), len(split.samples)) for _, split in data)
    steps = steps_of(spec, n)
    facts = {
        "model": spec.model,
        "base": f"{base.name} ({base.checkpoint})",
        "trained_on": spec.trained_on,
        "objective": spec.objective,
        "samples": n,
        "steps": steps,
        "batch_size": spec.batch_size,
        "folder": str(out),
        "spec": spec.model_dump(),
    }
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        if key != "spec":
            click.echo(f"{key.replace('_', ' '):<12} {value}")
    for key, value in spec.model_dump().items():
        click.echo(f"  {key:<18} {value}")


def _show(training: dict[str, Any], out: Path) -> None:
    losses = training["history"][-1] if training["history"] else {}
    ends = ", ".join(f"{name} {losses[name]:.3f}" for name in ("ntp", "klal") if name in losses)
    click.echo(
        f"{training['model']} trained on {training['trained_on']} ({training['objective']}, seed {training['seed']}): "
        f"{training['steps']} steps, {training['samples_seen']} samples"
        + (f"; at the end {ends} nats" if ends else "")
        + ("" if training["fresh"] else "; there already")
    )
    click.echo(f"  {out}")
