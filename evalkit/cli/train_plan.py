"""evalkit train --plan: memory and hours of a training, with the arithmetic."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.common import print_json

if TYPE_CHECKING:
    from evalkit.datasets.disk import Split
    from evalkit.task import TaskSpec
    from model_adapters import ModelEntry
    from trainers.memory import Term
    from trainers.planning import TrainPlan
    from trainers.spec import TrainSpec


_SLOWER = "The speed is that of bfloat16; float32 takes several times as long."
_SPREAD = "--set sharding=fsdp spreads the model over the GPUs of a machine."


def show_plans(
    specs: "Mapping[str, TrainSpec]",
    base: "ModelEntry",
    data: "list[tuple[TaskSpec, Split]]",
    mfu: float | None,
    as_json: bool,
) -> None:
    """specs: machine -> the training as it runs there. One machine is shown with the arithmetic."""
    from evalkit.errors import ConfigError
    from trainers.machine import load_machine
    from trainers.planning import MFU, lengths_of, make_plan, model_of

    shape, family, count = model_of(base)
    plans: dict[str, TrainPlan] = {}
    cannot: dict[str, str] = {}
    frame = base.frame.frame() if base.frame else None
    sets = [(task, split.samples) for task, split in data]
    lengths = lengths_of(next(iter(specs.values())), sets, family, frame, shape, count)
    for name, spec in specs.items():
        try:
            plans[name] = make_plan(spec, load_machine(name), shape, lengths, mfu or MFU)
        except ConfigError as error:
            if len(specs) == 1:
                raise
            cannot[name] = str(error)
    if as_json:
        facts = [_facts(name, plan, base) for name, plan in plans.items()]
        facts += [{"machine": name, "fits": False, "why": why} for name, why in cannot.items()]
        print_json(facts[0] if len(specs) == 1 else facts)
    elif len(specs) == 1:
        _show(*next(iter(plans.items())), base)
    else:
        _show_all(plans, cannot, base)


def _facts(name: str, plan: "TrainPlan", base: "ModelEntry") -> dict[str, Any]:
    from trainers.memory import GIB, trained_weights

    def terms(found: "list[Term]") -> list[dict[str, Any]]:
        return [{"name": term.name, "bytes": term.n_bytes, "how": term.how} for term in found if term.n_bytes]

    memory, flops, spec = plan.memory, plan.flops, plan.spec
    return {
        "machine": name,
        "model": spec.model,
        "base": f"{base.name} ({base.checkpoint})",
        "trained_on": spec.trained_on,
        "objective": spec.objective,
        "samples": plan.lengths.n,
        "steps": plan.steps,
        "batch_size": spec.batch_size,
        "gpus": plan.machine.gpus,
        "per_device_batch": spec.per_device_batch,
        "accumulation": plan.accumulation,
        "sharding": spec.sharding if plan.machine.gpus > 1 else None,
        "weights": sum(plan.shape.weights.values()),
        "weights_trained": trained_weights(plan.shape, spec),
        "tokens_mean": round(plan.lengths.mean.length, 1),
        "tokens_longest": plan.lengths.longest.length,
        "visual_tokens_mean": round(plan.lengths.mean.n_visual, 1),
        "tokens_counted_by": "tokenizer" if plan.lengths.exact else "characters",
        "memory": {
            "stays": terms(memory.stays),
            "forward": terms(memory.forward),
            "backward": terms(memory.backward),
            "optimiser_step": terms(memory.step),
            "phases_bytes": {key.replace(" ", "_"): value for key, value in memory.phases.items()},
            "peak_gib": round(memory.peak / GIB, 2),
        },
        "gpu_memory_gib": plan.machine.memory_gib,
        "fits": plan.fits,
        "host_memory_gib": round(plan.host_gib, 1),
        "disk_gib": round(plan.disk_gib, 1),
        "tflop_a_sample": round(flops.total / 1e12, 4),
        "mfu_assumed": plan.mfu,
        "gpu_tflops": plan.machine.tflops,
        "hours": round(plan.hours, 2),
    }


def _show(name: str, plan: "TrainPlan", base: "ModelEntry") -> None:
    from trainers.memory import trained_weights

    spec, machine, lengths = plan.spec, plan.machine, plan.lengths
    gpus = f"{machine.gpus} GPU{'s' if machine.gpus > 1 else ''}"
    click.echo(f"{spec.model} on {spec.trained_on} ({spec.objective}), from {base.name} ({base.checkpoint})")
    click.echo(f"  on {name}: {machine.title}, counted with the {machine.gpu}'s speed")
    click.echo(
        f"  {lengths.n:,} samples, {plan.steps:,} steps of {spec.batch_size}: {gpus} x {spec.per_device_batch} "
        f"x {plan.accumulation} accumulated"
        + (f", sharding {spec.sharding}" if machine.gpus > 1 else "")
        + f", checkpointing {'on' if spec.checkpointing else 'off'}, {spec.precision}"
    )
    click.echo(
        f"  a sample: {lengths.mean.length:,.0f} tokens on average, {lengths.longest.length:,.0f} at most, "
        f"{lengths.mean.n_visual:,.0f} of them visual; {'by its tokenizer' if lengths.exact else 'text by characters'}"
    )
    trained = trained_weights(plan.shape, spec)
    click.echo(f"  {sum(plan.shape.weights.values()):,} weights; {trained:,} are trained ({spec.tuning})")
    _show_memory(plan)
    _show_hours(plan)


def _show_memory(plan: "TrainPlan") -> None:
    from trainers.memory import CONTEXT_BYTES, FRAGMENTATION, GIB

    memory, machine = plan.memory, plan.machine
    unit, name = (GIB, "GiB") if memory.tensors >= GIB else (2**20, "MiB")
    click.echo(f"Memory of a GPU, {name}")
    parts = (("stays", memory.stays), ("forward", memory.forward), ("backward", memory.backward))
    for title, terms in (*parts, ("step", memory.step)):
        for term in terms:
            if term.n_bytes:
                click.echo(f"  {title:<9} {term.n_bytes / unit:7.2f}  {term.name}: {term.how}")
    phases = memory.phases
    most = max(phases, key=lambda phase: phases[phase])
    told = ", ".join(f"{phase} {n_bytes / unit:.2f}" for phase, n_bytes in phases.items())
    click.echo(f"  with what stays: {told}")
    click.echo(
        f"  peak {memory.peak / unit:.2f} = {most} + {FRAGMENTATION:.0%} for the allocator + "
        f"{CONTEXT_BYTES / unit:.2f} for the context (both assumed)"
    )
    spare = plan.spare_gib
    told = f"fits, {spare:.1f} GiB to spare" if plan.fits else f"DOES NOT FIT, {-spare:.1f} GiB too much"
    click.echo(f"  of {machine.memory_gib:g} GiB: {told}")
    if not plan.fits and machine.gpus > 1 and plan.spec.sharding == "none":
        click.echo(f"  {_SPREAD}")
    loading = f"{machine.gpus} processes load" if machine.gpus > 1 else "the process loads"
    click.echo(
        f"Memory of the machine: {plan.host_gib:.1f} GiB while {loading} the model; on disk {plan.disk_gib:.1f} GiB"
    )


def _show_hours(plan: "TrainPlan") -> None:
    machine, flops = plan.machine, plan.flops
    unit, name = (1e12, "TFLOP") if flops.total >= 1e11 else (1e9, "GFLOP")
    click.echo(
        f"Work of a sample, {name}: {flops.total / unit:.2f} = vision {flops.vision / unit:.2f} + forward "
        f"{flops.forward / unit:.2f} + run again {flops.again / unit:.2f} + backward {flops.backward / unit:.2f} + "
        f"logits {flops.logits / unit:.2f}"
    )
    click.echo(
        f"Hours: {plan.hours:.2f} = {plan.samples:,} samples x {flops.total / unit:.2f} {name} / ({machine.gpus} x "
        f"{machine.tflops:g} TFLOP/s x {plan.mfu:.0%} of it, which is assumed) / 3600"
    )
    if plan.spec.precision == "float32":
        click.echo(f"  {_SLOWER}")


def _show_all(plans: "Mapping[str, TrainPlan]", cannot: Mapping[str, str], base: "ModelEntry") -> None:
    from trainers.memory import GIB

    one = next(iter(plans.values()), None)
    if one is not None:
        click.echo(
            f"{one.spec.model} on {one.spec.trained_on} ({one.spec.objective}), from {base.name}: "
            f"{one.steps:,} steps of {one.spec.batch_size}"
        )
        for name, plan in plans.items():
            fits = "fits" if plan.fits else "DOES NOT FIT"
            click.echo(
                f"  {name:<8} {plan.memory.peak / GIB:6.1f} of {plan.machine.memory_gib:g} GiB a GPU, {fits}; "
                f"{plan.hours:.2f} hours at {plan.mfu:.0%} of {plan.machine.tflops:g} TFLOP/s"
            )
    for name, why in cannot.items():
        click.echo(f"  {name:<8} {why}")
    if any(plan.spec.precision == "float32" for plan in plans.values()):
        click.echo(f"  {_SLOWER}")
    if any(
        not plan.fits and plan.machine.gpus > 1 and plan.spec.sharding == "none" for plan in plans.values()
    ):
        click.echo(f"  {_SPREAD}")
    click.echo("Estimates; the arithmetic: --plan --machine NAME.")
