"""TaskSpec: what tasks/<name>.yaml says, and where task files are found."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evalkit.datasets import DATASETS
from evalkit.errors import ConfigError
from evalkit.frames import FRAME_KINDS
from evalkit.paths import resource
from evalkit.yamlfile import faults, load_yaml

# Parsers and metrics by name: listing tasks need not pay for importing what they do.
METRIC_NAMES = ("exact", "within_3_grid_units", "iou_50")
PARSER_NAMES = ("integer", "yes_no", "point", "box")
_GOLD_OF_PARSER = {"integer": "int", "yes_no": "yes_no", "point": "point_xy_px", "box": "bbox_xyxy"}
_METRICS_OF_PARSER = {
    "integer": ("exact",),
    "yes_no": ("exact",),
    "point": ("within_3_grid_units",),
    "box": ("iou_50",),
}


def _one_of(value: str, known: Any, what: str) -> str:
    if value not in known:
        raise ValueError(f"no {what} named {value!r}; known: {', '.join(known)}")
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PromptVariant(_Strict):
    """A question's wording, and the frame of the coordinates it asks for.

    frame: a kind of evalkit.frames when the wording itself asks for it, `model` when the model
    answers in the frame of its registry entry, null for tasks without coordinates.
    answer: what a model is trained to reply, a template over the gold; null where nobody trains on it.
    """

    prompt: str = Field(min_length=1)
    frame: str | None = None
    answer: str | None = Field(default=None, min_length=1)

    @field_validator("frame")
    @classmethod
    def _known_frame(cls, value: str | None) -> str | None:
        return value if value is None else _one_of(value, ("model", *FRAME_KINDS), "frame")


class Example(_Strict):
    """A reply and what the parser must read in it; `answer: null` means that it holds no answer."""

    reply: str
    answer: int | str | Annotated[list[int | float], Field(min_length=2, max_length=4)] | None


class TaskSpec(_Strict):
    """tasks/<name>.yaml. An unknown or missing key is an error, never ignored."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    description: str
    paper: str | None  # where the paper prints the number, e.g. "Table 1"
    dataset: str
    splits: Annotated[list[str], Field(min_length=1)]  # the first is the default of `evalkit run`
    prompt: str = Field(min_length=1)  # Jinja2; an undefined variable is an error
    frame: str | None = None
    answer: str | None = Field(default=None, min_length=1)  # Jinja2 over the gold; see PromptVariant
    family_prompts: dict[str, PromptVariant] = Field(default_factory=dict)
    parser: str
    metric: str
    chance: float | None = Field(ge=0, le=1)  # accuracy of uniform guessing, as a fraction
    best_constant: float | None = Field(default=None, ge=0, le=1)  # of the best answer given blindly
    max_new_tokens: int = Field(ge=1, le=32_768)
    examples: Annotated[list[Example], Field(min_length=1)]

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, value: str) -> str:
        return _one_of(value, DATASETS, "data set")

    @field_validator("parser")
    @classmethod
    def _known_parser(cls, value: str) -> str:
        return _one_of(value, PARSER_NAMES, "parser")

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        return _one_of(value, METRIC_NAMES, "metric")

    @field_validator("frame")
    @classmethod
    def _known_frame(cls, value: str | None) -> str | None:
        return value if value is None else _one_of(value, ("model", *FRAME_KINDS), "frame")

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        gold = DATASETS[self.dataset].gold
        if _GOLD_OF_PARSER[self.parser] != gold:
            raise ValueError(
                f"parser {self.parser!r} cannot answer data set {self.dataset!r}, whose gold is {gold}"
            )
        if self.metric not in _METRICS_OF_PARSER[self.parser]:
            allowed = ", ".join(_METRICS_OF_PARSER[self.parser])
            raise ValueError(
                f"metric {self.metric!r} does not fit parser {self.parser!r}; allowed: {allowed}"
            )
        for name, variant in {"prompt": self.default_variant, **self.family_prompts}.items():
            if self.has_coordinates != (variant.frame is not None):
                need = "needs a frame" if self.has_coordinates else "takes no frame"
                raise ValueError(f"the wording {name!r} of a task with parser {self.parser!r} {need}")
        return self

    @property
    def has_coordinates(self) -> bool:
        return self.parser in ("point", "box")

    @property
    def default_variant(self) -> PromptVariant:
        return PromptVariant(prompt=self.prompt, frame=self.frame, answer=self.answer)

    def variant(self, family: str | None) -> PromptVariant:
        """The wording for a model family: its own where the task has one, else the default."""
        return self.family_prompts.get(family or "", self.default_variant)


def task_files(folder: Path | None = None) -> list[Path]:
    """The YAML files of a folder of tasks (default: those that come with evalkit), sorted by name."""
    return sorted((folder or resource("tasks")).glob("*.yaml"))


def check_task_file(path: Path) -> tuple[TaskSpec | None, list[str]]:
    """Schema check of one file: the spec, or one line a fault."""
    try:
        data = load_yaml(path)
    except ConfigError as error:
        return None, [str(error)]
    return faults(TaskSpec, data, str(path))


def load_task(name: str, folder: Path | None = None) -> TaskSpec:
    """The task of that name, or of that path when `name` ends in .yaml. Raises ConfigError."""
    files = {path.stem: path for path in task_files(folder)}
    path: Path | None = Path(name) if name.endswith((".yaml", ".yml")) else files.get(name)
    if path is None:
        where = folder or "evalkit"
        raise ConfigError(f"No task named {name!r} in {where}. Known tasks: {', '.join(files) or 'none'}.")
    spec, lines = check_task_file(path)
    if spec is None:
        raise ConfigError("\n".join(lines))
    return spec
