"""A scale of `evalkit replicate`: what is built, trained and evaluated, as a plan of evalkit commands.

The plan is nothing but commands that a person could type; each does nothing when its work is done, so a
replication that was killed goes on where it stopped. Light: no torch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from evalkit.errors import ConfigError
from evalkit.yamlfile import faults, load_yaml

SCALES = Path(__file__).with_name("scales")
OBJECTIVES = ("ntp", "klal")  # as registry entries end


class Scale(BaseModel):
    """trainers/scales/<name>.yaml. data: images a synthetic set, null for the paper's number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    title: str
    about: str
    prefix: str  # of the registry's entries: tiny-, small-, or none
    families: Annotated[list[str], Field(min_length=1)]
    train_base: bool
    jobs: int = Field(ge=1)
    threads: int = Field(ge=1)  # of each job
    data: dict[str, int | None]
    tasks: Annotated[list[str], Field(min_length=1)]
    seeds: dict[str, list[int]]  # training seeds of a task; [0] where it does not say
    only: dict[str, list[str]] = Field(
        default_factory=dict
    )  # families that train on a task, where not all do
    transfer: dict[str, str] = Field(default_factory=dict)  # trained on -> evaluated on (Table 3)
    transfer_families: list[str] = Field(default_factory=list)
    limit: int | None = Field(default=None, ge=1)  # of evaluated samples
    engine: Literal["auto", "vllm", "vllm_server", "hf_local"] = "auto"  # of the evaluations


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a plan, without `evalkit` and without folders; `needs` are keys of earlier steps."""

    key: str
    words: tuple[str, ...]
    needs: tuple[str, ...] = ()


def scale_names() -> list[str]:
    return sorted(path.stem for path in SCALES.glob("*.yaml"))


def load_scale(name: str) -> Scale:
    """The scale of that name. Raises ConfigError."""
    path = SCALES / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"No scale named {name!r}. Known scales: {', '.join(scale_names())}.")
    scale, lines = faults(Scale, load_yaml(path), str(path))
    if scale is None:
        raise ConfigError("\n".join(lines))
    return scale


def narrowed(
    scale: Scale, tasks: list[str] | None, families: list[str] | None, seeds: list[int] | None
) -> Scale:
    """The scale with fewer tasks, families or seeds; the base still learns the form of all tasks' answers.

    Raises ConfigError for one it has not.
    """
    for chosen, known, what in ((tasks, scale.tasks, "task"), (families, scale.families, "family")):
        if unknown := [name for name in chosen or () if name not in known]:
            raise ConfigError(f"This scale has no {what} {unknown[0]!r}. It has: {', '.join(known)}.")
    kept = [task for task in scale.tasks if not tasks or task in tasks]
    return scale.model_copy(
        update={
            "tasks": kept,
            "families": [family for family in scale.families if not families or family in families],
            "seeds": {task: seeds or scale.seeds.get(task, [0]) for task in kept},
        }
    )


def plan(scale: Scale, available: Mapping[str, bool]) -> list[Step]:
    """The commands of a scale, in an order that respects their needs.

    available: data sets that cannot be built here -> whether they are at hand; those that are not are left out.
    """
    tasks = [task for task in scale.tasks if task in scale.data or available.get(task, False)]
    steps = [*_data(scale)]
    for task in tasks:
        for seed in scale.seeds.get(task, [0]):
            for family in scale.only.get(task, scale.families):
                if family in scale.families:
                    steps += _cell(scale, family, task, seed, tasks)
    ordered: dict[str, Step] = {}
    for step in steps:
        ordered.setdefault(step.key, step)  # a base serves several cells
    return list(ordered.values())


def left_out(scale: Scale, available: Mapping[str, bool]) -> list[str]:
    """Tasks of the scale whose data are not at hand."""
    return [task for task in scale.tasks if task not in scale.data and not available.get(task, False)]


def _data(scale: Scale) -> Iterator[Step]:
    for task, n in scale.data.items():
        size = ("--n", str(n)) if n is not None else ()
        yield Step(f"data {task}", ("data", "build", task, *size))


def _cell(scale: Scale, family: str, task: str, seed: int, tasks: list[str]) -> Iterator[Step]:
    """Base, NTP and NTP + KLAL of one task and seed: train, evaluate, probe."""
    data = tuple(f"data {name}" for name in scale.data)
    base = f"{scale.prefix}{family}-base"
    seeded = ("--set", f"seed={seed}")
    base_needs = data
    if scale.train_base:
        train_base = Step(f"train {base} seed {seed}", ("train", "--model", base, *seeded), data)
        yield train_base
        base_needs = (*data, train_base.key)
    trained = []
    for objective in reversed(OBJECTIVES):  # the longer one first
        model = f"{scale.prefix}{family}-{objective}"
        key = f"train {model} on {task} seed {seed}"
        yield Step(key, ("train", "--model", model, "--task", task, *seeded), base_needs)
        trained.append((model, key))
    base_seed = seed if scale.train_base else 0  # a base from the Hub has no training seed
    yield from _measured(scale, base, task, base_seed, base_needs)
    for model, key in trained:
        yield from _measured(scale, model, task, seed, (key,))
        target = scale.transfer.get(task)
        if target in tasks and family in scale.transfer_families:
            yield from _measured(scale, model, str(target), seed, (key,), trained_on=task)


def _measured(
    scale: Scale, model: str, task: str, seed: int, needs: tuple[str, ...], trained_on: str | None = None
) -> Iterator[Step]:
    words: tuple[str, ...] = ("--model", model, "--task", task)
    words += ("--train-seed", str(seed)) if seed else ()
    words += ("--trained-on", trained_on) if trained_on else ()
    words += ("--limit", str(scale.limit)) if scale.limit else ()
    words += ("--engine", scale.engine) if scale.engine != "auto" else ()
    for split in ("val", "testA", "testB") if task == "refcoco" else ("",):
        chosen = (*words, "--split", split) if split else words
        name = f"{model} on {task}{'/' + split if split else ''}" + (
            f" after {trained_on}" if trained_on else ""
        )
        run = Step(f"run {name} seed {seed}", ("run", *chosen), needs)
        yield run
        if not trained_on:
            yield Step(f"probe {name} seed {seed}", ("probe", *chosen), (run.key,))
