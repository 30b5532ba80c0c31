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
    freeze: list[Literal["vision", "projector"]] = Field(default_factory=lambda: ["vision", "projector"])
    export: Literal["merged", "adapter"] = "merged"  # of a LoRA

    epochs: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)  # instead of epochs
    batch_size: int = Field(ge=1)  # samples an optimiser step, over all devices and accumulation
    per_device_batch: int = Field(ge=1)
    lr: float = Field(gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(default=0.03, ge=0, lt=1)  # fraction of the steps
    weight_decay: float = Field(default=0.0, ge=0)
    betas: Annotated[list[float], Field(min_length=2, max_length=2)] = Field(default_factory=lambda: [0.9, 0.999])
    clip: float = Field(default=1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    attention: str = "sdpa"  # or flash_attention_2; rows are taken beside it
    checkpointing: bool = True  # non-reentrant gradient checkpointing
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
        """sha256 over all that changes the weights."""
        where = {"device", "workers", "keep_in_memory", "log_every", "save_every"}
        return digest(self.model_dump(exclude=where))


def read_config(path: Path) -> dict[str, Any]:
    """A training YAML with what it extends underneath: `extends: other.yaml` beside it, one level or more."""
    data = load_yaml(path)
    if (below := data.pop("extends", None)) is None:
        return data
    if not isinstance(below, str) or Path(below).name != below:
        raise ConfigError(f"{path}: extends must name a file of the same folder, found {below!r}.")
    if below == path.name:
        raise ConfigError(f"{path}: extends itself.")
    return _merged(read_config(path.with_name(below)), data)


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


def find_config(model: str, task: str, objective: str | None, folder: Path | None = None) -> Path:
    """The config that trains `model` (or starts from it) on `task`. Raises ConfigError with what there is."""
    matches, known = [], set()
    for path in config_files(folder):
        data = read_config(path)
        known.add(f"{data.get('model')} on {data.get('task')}")
        trains = data.get("model") == model or (data.get("base") == model and objective is not None)
        if trains and data.get("task") == task and objective in (None, data.get("objective")):
            matches.append(path)
    if len(matches) == 1:
        return matches[0]
    what = f"model {model!r}, task {task!r}" + (f", objective {objective}" if objective else "")
    if matches:
        raise ConfigError(f"Several configs fit {what}: {', '.join(path.name for path in matches)}.")
    raise ConfigError(f"No training config fits {what}. There are: {', '.join(sorted(known))}.")
