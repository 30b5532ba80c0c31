"""A suite file: several models on several tasks, each pair a run as `evalkit run` would make it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evalkit.errors import ConfigError
from evalkit.yamlfile import faults, load_yaml

Engine = Literal["auto", "vllm", "vllm_server", "hf_local", "ray", "ray:vllm", "ray:hf_local"]


class Options(BaseModel):
    """What may be said of all runs, of a model, of a task or of one run; the names are those of `evalkit run`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    split: str | None = None
    limit: int | None = Field(default=None, ge=1)
    seed: int | None = None
    trained_on: str | None = None
    train_seed: int | None = Field(default=None, ge=0)
    checkpoint: str | None = None
    set: dict[str, Any] | None = None
    engine: Engine | None = None
    replicas: int | None = Field(default=None, ge=1)
    batch: bool | None = None
    force: bool | None = None
    trust_remote_code: bool | None = None

    def over(self, below: "Options") -> dict[str, Any]:
        """What is said here, and of the rest what is said below; of `set` key by key."""
        given = self._given()
        both = below._given() | given
        if self.set and below.set:
            both["set"] = below.set | self.set
        return both

    def _given(self) -> dict[str, Any]:
        return {key: value for key in Options.model_fields if (value := getattr(self, key)) is not None}


class OfModel(Options):
    model: str


class OfTask(Options):
    task: str


class Run(OfModel, OfTask):
    """One run, settled."""


class Pair(BaseModel):
    """Runs to leave out: of a model, of a task, or of both together."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str | None = None
    task: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "Pair":
        if self.model is None and self.task is None:
            raise ValueError("name a model, a task, or both")
        return self

    def holds(self, run: Run) -> bool:
        return self.model in (None, run.model) and self.task in (None, run.task)


class Suite(Options):
    """suite.yaml: `models` x `tasks`, each a name or a mapping with options, less `skip`, and `runs` beside them.

    What a run says wins over its model's options, these over the task's, and these over the suite's own.
    """

    models: list[str | OfModel] = Field(default_factory=list)
    tasks: list[str | OfTask] = Field(default_factory=list)
    runs: list[Run] = Field(default_factory=list)
    skip: list[Pair] = Field(default_factory=list)
    address: str | None = None  # of the Ray cluster
    max_cost: Annotated[float, Field(ge=0)] | None = None  # US dollars, of all runs together

    @model_validator(mode="after")
    def _asks_something(self) -> "Suite":
        if bool(self.models) != bool(self.tasks):
            raise ValueError("models and tasks go together")
        if not self.models and not self.runs:
            raise ValueError("nothing to run: give models and tasks, or runs")
        return self

    def settled(self) -> list[Run]:
        """Every run, model by model, so that a model need be loaded only once."""
        models = [OfModel(model=m) if isinstance(m, str) else m for m in self.models]
        tasks = [OfTask(task=t) if isinstance(t, str) else t for t in self.tasks]
        own = Options(**{key: getattr(self, key) for key in Options.model_fields})
        found = []
        for model in models:
            for task in tasks:
                below = Options(**task.over(own))
                found.append(Run(model=model.model, task=task.task, **model.over(below)))
        found += [Run(model=run.model, task=run.task, **run.over(own)) for run in self.runs]
        return [run for run in found if not any(pair.holds(run) for pair in self.skip)]


def read_suite(path: Path) -> Suite:
    """A suite file. Raises ConfigError, with a line for each fault."""
    suite, lines = faults(Suite, load_yaml(path), str(path))
    if suite is None:
        raise ConfigError("\n".join(lines))
    if not suite.settled():
        raise ConfigError(f"{path}: nothing to run: `skip` leaves out every run.")
    return suite
