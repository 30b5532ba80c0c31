"""TrainSpec: what a training YAML says. Light: the command line reads it before torch is imported."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evalkit.errors import ConfigError
from evalkit.provenance import digest
from evalkit.yamlfile import faults, load_yaml

CONFIGS = Path(__file__).with_name("configs")

# The language model's projections in both families; a bare `q_proj` would also hit LLaVA's vision tower,
# a bare `gate_proj` Qwen's, and "all-linear" both.
LANGUAGE_MODEL = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"

Part = Literal["vision", "projector"]
Objective = Literal["format", "ntp", "ntp_klal"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class KlalSpec(_Strict):
    """The attention loss and its targets. Defaults are the paper's where it prints one, else ours."""

    weight: float = Field(default=1.0, ge=0)  # lambda; "We empirically set lambda to 1" (Sec. 3)
    layers: Literal["all"] | Annotated[int, Field(ge=1)] | list[int] = "all"  # all, the last k, or a list
    heads: Literal["mean", "each"] = "mean"  # Eq. 3
    # last_answer: the paper's; eos: the token after it; before_answer: the position that predicts the answer
    query: Literal["last_answer", "eos", "before_answer"] = "last_answer"
    sigma: float = Field(default=0.7, ge=0)  # of Eq. 5's smoothing, in visual tokens
    floor: float = Field(default=0.0, ge=0, lt=1)  # of other tokens, as a fraction of the map's peak
    # without a crossing, or for a No: context looks where one has to search, skip leaves KLAL out
    absent: Literal["context", "skip"] = "context"


class LoraSpec(_Strict):
    r: int = Field(default=64, ge=1)
    alpha: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    modules: str = LANGUAGE_MODEL  # a regular expression over whole module names


_OF_THE_MACHINE = {
    "device", "workers", "keep_in_memory", "log_every", "save_every", "sharding", "per_device_batch", "checkpointing",
}  # fmt: skip


class TrainSpec(_Strict):
    """One training. An unknown key is an error.

    objective: ntp, next-token prediction on the answer (Eq. 1); ntp_klal, with weight * KLAL added;
               format, NTP on gold answers dealt out at random: the form of answers, and chance.
    """

    model: str  # the registry entry that this makes a checkpoint of
    base: str  # the registry entry whose checkpoint it starts from
    task: str | Annotated[list[str], Field(min_length=1)]
    objective: Objective
    split: str = "train"
    limit: int | None = Field(default=None, ge=1)  # a seeded, stratified sample of the split

    klal: KlalSpec = KlalSpec()
    tuning: Literal["lora", "full"] = "lora"
    lora: LoraSpec = LoraSpec()
    freeze: list[Part] = Field(default=["vision", "projector"])
    export: Literal["merged", "adapter"] = "merged"  # of a LoRA

    epochs: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)  # instead of epochs
    batch_size: int = Field(ge=1)  # samples an optimiser step, over all devices and accumulation
    per_device_batch: int = Field(ge=1)
    lr: float = Field(gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(default=0.03, ge=0, lt=1)  # fraction of the steps
    weight_decay: float = Field(default=0.0, ge=0)
    betas: Annotated[list[float], Field(min_length=2, max_length=2)] = Field(
        default_factory=lambda: [0.9, 0.999]
    )
    clip: float = Field(default=1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    attention: str = "sdpa"  # or flash_attention_2; rows are taken beside it
    checkpointing: bool = True  # non-reentrant gradient checkpointing
    # of several processes (torchrun, accelerate launch): none keeps a whole model on each (DDP), fsdp a part (FSDP2)
    sharding: Literal["none", "fsdp"] = "none"
    seed: int = Field(default=0, ge=0)

    save_every: int | None = Field(default=None, ge=1)  # steps; null: ten times in a training
    log_every: int = Field(default=10, ge=1)
    workers: int = Field(default=0, ge=0)  # processes that prepare images
    keep_in_memory: bool = False  # prepare each image once and keep it in memory: for small sets
    device: str = "auto"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        if self.batch_size % self.per_device_batch:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of per_device_batch {self.per_device_batch}"
            )
        return self

    @property
    def tasks(self) -> list[str]:
        return [self.task] if isinstance(self.task, str) else list(self.task)

    @property
    def trained_on(self) -> str:
        """What stands for {trained_on} in the checkpoint's place."""
        return "+".join(self.tasks)

    @property
    def digest(self) -> str:
        """sha256 over what is trained; not over how a machine does it, which changes no more than rounding."""
        return digest(self.model_dump(exclude=_OF_THE_MACHINE))


def read_config(path: Path) -> dict[str, Any]:
    """A training YAML over what it extends.

    `extends: other.yaml` names a file beside it; `by_task: {TASK: {key: value}}` there holds for that task
    alone. What the file itself says wins over both.
    """
    data = _with_below(path)
    by_task = data.pop("by_task", {})
    task = data.get("task")
    own = by_task.get(task, {}) if isinstance(by_task, dict) and isinstance(task, str) else {}
    if not isinstance(own, dict):
        raise ConfigError(f"{path}: by_task.{task}: expected a mapping, found {type(own).__name__}.")
    itself = {key: value for key, value in load_yaml(path).items() if key not in ("extends", "by_task")}
    return _merged(_merged(data, own), itself)


def _with_below(path: Path) -> dict[str, Any]:
    data = load_yaml(path)
    if (below := data.pop("extends", None)) is None:
        return data
    if not isinstance(below, str) or Path(below).name != below:
        raise ConfigError(f"{path}: extends must name a file of the same folder, found {below!r}.")
    if below == path.name:
        raise ConfigError(f"{path}: extends itself.")
    return _merged(_with_below(path.with_name(below)), data)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            both[key] = _merged(below[key], above[key])
    return both


def make_spec(data: dict[str, Any], where: str, settings: dict[str, Any] | None = None) -> TrainSpec:
    """The spec of a config with settings (`lr`, `klal.sigma`, ...) on top. Raises ConfigError."""
    for key, value in (settings or {}).items():
        data = _merged(data, _nested(key.split("."), value))
    spec, lines = faults(TrainSpec, data, where)
    if spec is None:
        raise ConfigError("\n".join(lines))
    return spec


def _nested(keys: list[str], value: Any) -> dict[str, Any]:
    return {keys[0]: value if len(keys) == 1 else _nested(keys[1:], value)}


def config_files(folder: Path | None = None) -> list[Path]:
    """The training configs; files whose name begins with `_` are what others extend."""
    return sorted(path for path in (folder or CONFIGS).glob("*.yaml") if not path.name.startswith("_"))


def find_config(model: str, task: str | None, objective: str | None, folder: Path | None = None) -> Path:
    """The config that trains `model` (or, with an objective, starts from it) on `task`.

    task: may be None for a model that has one config. Raises ConfigError with what there is.
    """
    configs = [(path, read_config(path)) for path in config_files(folder)]
    of_model = [
        (path, data)
        for path, data in configs
        if data.get("model") == model or (objective is not None and data.get("base") == model)
    ]
    if not of_model:
        known = ", ".join(sorted({str(data.get("model")) for _, data in configs}))
        raise ConfigError(f"No training config makes the model {model!r}. Models with configs: {known}.")
    matches = [
        path
        for path, data in of_model
        if task in (None, data.get("task")) and objective in (None, data.get("objective"))
    ]
    if len(matches) == 1:
        return matches[0]
    what = " and ".join(
        f"{key} {value!r}" for key, value in (("task", task), ("objective", objective)) if value
    )
    tasks = ", ".join(sorted({str(data.get("task")) for _, data in of_model}))
    problem = "Several configs" if matches else "No config"
    raise ConfigError(f"{problem} of {model!r} with {what or 'no --task'}. Its tasks: {tasks}.")
