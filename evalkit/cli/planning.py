"""What the options of `run` and `probe` choose: a registry entry, settled, and the plan of its run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit.runner import Plan
    from evalkit.task import TaskSpec
    from model_adapters import ModelEntry


@dataclass(frozen=True, slots=True)
class Choice:
    """The options as typed."""

    model: str
    task: str
    split: str | None = None
    limit: int | None = None
    seed: int = 0
    trained_on: str | None = None
    train_seed: int = 0
    checkpoint: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    engine: str = "auto"
    force: bool = False


def plan_for(
    choice: Choice,
    data_dir: Path,
    tasks_dir: Path | None,
    models_file: Path | None,
    *,
    runnable: bool,
    say: Callable[[str], None] | None = None,
) -> "tuple[ModelEntry, Plan]":
    """The entry, its engine settled, and the plan.

    runnable: raise Unavailable when it cannot be run here. say: told which engine answers, where there
    was a choice.
    """
    from evalkit.datasets.disk import read_split
    from evalkit.prompts import resolve_frame
    from evalkit.remote.folders import fetched
    from evalkit.runner import make_plan
    from evalkit.task import load_task
    from model_adapters import identity
    from model_adapters.checkpoints import require_checkpoint, training_of

    task = load_task(choice.task, tasks_dir)
    entry, trained_on = chosen_entry(choice, task, tasks_dir, models_file)
    entry, why = with_chosen_engine(entry, choice.engine)
    _require_settings(entry, choice.settings)
    if runnable:
        _require_runnable(entry)
        require_checkpoint(entry)
    if why and say:
        say(why)
    split = read_split(fetched(data_dir, task.dataset), task.dataset, choice.split or task.splits[0])
    if runnable:
        split.require_images()
    variant = task.variant(entry.family)
    plan = make_plan(
        task,
        variant,
        split,
        model=entry.model_dump(),
        identity={} if not runnable and entry.adapter is None else identity(entry),
        frame=resolve_frame(variant, entry.frame.frame() if entry.frame else None, entry.name),
        frame_source=variant.frame and ("registry" if variant.frame == "model" else "prompt"),
        trained_on=trained_on,
        training=training_of(entry),
        limit=choice.limit,
        seed=choice.seed,
    )
    return entry, plan


def chosen_entry(
    choice: Choice, task: "TaskSpec", tasks_dir: Path | None, models_file: Path | None
) -> "tuple[ModelEntry, str | None]":
    """The entry with checkpoint and settings as chosen, and what it is trained on. Raises ConfigError."""
    from evalkit.errors import ConfigError
    from evalkit.task import load_task
    from model_adapters import get_entry

    entry, trained_on = get_entry(choice.model, models_file), choice.trained_on
    if entry.tasks is not None and task.name not in entry.tasks and not choice.force:
        raise ConfigError(
            f"{entry.name} is not made for {task.name}: it answers {', '.join(entry.tasks)}. "
            "--force asks it all the same."
        )
    if entry.per_task and choice.checkpoint is None:
        trained_on = trained_on or task.name
        load_task(trained_on, tasks_dir)  # a name that exists
    return _settled(entry, trained_on, choice), trained_on


def _require_settings(entry: "ModelEntry", settings: dict[str, Any]) -> None:
    """Raise ConfigError for a setting of another engine, which would silently do nothing."""
    from evalkit.errors import ConfigError
    from model_adapters.settings import KINDS

    taken = KINDS[entry.adapter].settings if entry.adapter else frozenset(settings)
    if unused := sorted(set(settings) - taken):
        raise ConfigError(
            f"{entry.name} runs by {entry.adapter}, which has no setting {unused[0]!r}. "
            f"Its settings: {', '.join(sorted(taken))}. --engine chooses another."
        )


def with_chosen_engine(entry: "ModelEntry", engine: str) -> "tuple[ModelEntry, str | None]":
    """The entry with its engine settled; a server that is running already is asked where one is named."""
    from model_adapters.engines import with_engine

    if engine == "auto" and entry.adapter == "local" and "base_url" in entry.runtime:
        engine = "vllm_server"
    return with_engine(entry, engine)


def _settled(entry: "ModelEntry", trained_on: str | None, choice: Choice) -> "ModelEntry":
    if choice.checkpoint is not None:
        entry = entry.model_copy(update={"checkpoint": choice.checkpoint})
        return entry.with_settings(choice.settings)
    return entry.for_task(trained_on, choice.train_seed).with_settings(choice.settings)


def _require_runnable(entry: "ModelEntry") -> None:
    from evalkit.errors import Unavailable
    from model_adapters import missing
    from model_adapters.checkpoints import missing_packages, retirement
    from model_adapters.settings import API_KINDS

    if entry.adapter is None or retirement(entry) or (entry.adapter in API_KINDS and missing(entry)):
        raise Unavailable(f"{entry.name} cannot be run here: {missing(entry)}.")
    if lacking := missing_packages(entry):
        raise Unavailable(f"{entry.name} {lacking}.")
