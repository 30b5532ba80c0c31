"""The model registry: models.yaml -> ModelEntry."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evalkit.errors import ConfigError, FrameError
from evalkit.frames import FRAME_KINDS, Frame, FrameKind
from evalkit.yamlfile import faults, load_yaml
from model_adapters.settings import KINDS, decoding_fault, setting_fault

REGISTRY = Path(__file__).with_name("models.yaml")
TRAINED = "checkpoints/"  # what `evalkit train` makes, below the working folder

_DATE = r"^\d{4}-\d{2}-\d{2}$"


class FrameSpec(BaseModel):
    """The frame of a registry entry; see evalkit.frames."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: FrameKind
    order: Literal["xy", "yx"] = "xy"
    min_pixels: int | None = Field(default=None, ge=1)
    max_pixels: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _limits_belong_to_a_resize(self) -> Self:
        if self.kind != "resized_pixel" and (self.min_pixels or self.max_pixels):
            raise ValueError(f"min_pixels and max_pixels go with resized_pixel, not {self.kind}")
        return self

    def frame(self) -> Frame:
        limits = {k: v for k in ("min_pixels", "max_pixels") if (v := getattr(self, k)) is not None}
        return Frame(self.kind, self.order, **limits)


class Prices(BaseModel):
    """US dollars for a million tokens, with the day and the page they were read on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_usd: float = Field(ge=0)
    output_usd: float = Field(ge=0)
    batch_factor: float = Field(default=1.0, gt=0, le=1)  # what a request of a batch costs of a live one
    date: str = Field(pattern=_DATE)  # when they were read
    until: str | None = Field(default=None, pattern=_DATE)  # the last day they are announced for
    source: str


class ImageTokens(BaseModel):
    """How many input tokens a provider counts for an image; see model_adapters.estimate."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    rule: Literal["tiles_512", "tiles_768", "patches_32", "fixed"]
    base: int = Field(default=0, ge=0)
    per_tile: int = Field(default=0, ge=0)
    factor: float = Field(default=1.0, gt=0)  # a model's multiplier on patches
    limit: int | None = Field(default=None, ge=1)  # most patches


class ModelEntry(BaseModel):
    """One model of models.yaml. Unknown keys are errors; the title is the name unless given."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str
    adapter: str | None
    family: str | None = None
    checkpoint: str | None = None
    revision: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    frame: FrameSpec | None = None
    decoding: dict[str, Any] = Field(default_factory=lambda: {"temperature": 0})
    options: dict[str, Any] = Field(default_factory=dict)
    runtime: dict[str, Any] = Field(default_factory=dict)
    prices: Prices | None = None
    image_tokens: ImageTokens | None = None
    tasks: Annotated[list[str], Field(min_length=1)] | None = None  # all, unless named
    params_b: Annotated[float, Field(gt=0)] | None = None
    scale: Literal["tiny", "small", "full"] | None = None
    objective: Literal["base", "ntp", "ntp_klal"] | None = None
    made_by: str | None = (
        None  # the command that makes the checkpoint, where it is neither trained nor fetched
    )
    retired: str | None = Field(default=None, pattern=_DATE)
    successor: str | None = None

    @field_validator("adapter")
    @classmethod
    def _known_adapter(cls, value: str | None) -> str | None:
        if value is not None and value not in KINDS:
            raise ValueError(f"no adapter named {value!r}; known: {', '.join(KINDS)}, or null")
        return value

    @model_validator(mode="after")
    def _known_options(self) -> Self:
        if self.adapter is None:
            return self
        kind = KINDS[self.adapter]
        groups = (("options", self.options, kind.options), ("runtime", self.runtime, kind.runtime))
        for group, found, allowed in groups:
            if unknown := sorted(set(found) - allowed):
                known = ", ".join(sorted(allowed))
                raise ValueError(f"{group} has no {unknown[0]!r} for adapter {self.adapter}; known: {known}")
            for name, value in found.items():
                if fault := setting_fault(name, value):
                    raise ValueError(f"{group}.{fault}")
        if any(getattr(self, need) is None for need in kind.needs):
            wanted = " and ".join(f"a {need}" for need in kind.needs)
            raise ValueError(f"adapter {self.adapter} needs {wanted}")
        for limit in ("min_pixels", "max_pixels"):
            if limit in self.options and self.options[limit] != getattr(self.frame, limit, None):
                raise ValueError(
                    f"options.{limit} and frame.{limit} must agree: answers are in resized pixels"
                )
        if fault := decoding_fault(self.adapter, self.decoding):
            raise ValueError(fault)
        return self

    @property
    def per_task(self) -> bool:
        """Whether there is one checkpoint a training task."""
        return "{trained_on}" in (self.checkpoint or "")

    @property
    def trained_here(self) -> bool:
        """Whether `evalkit train` makes its checkpoints, one a training seed."""
        return (self.checkpoint or "").startswith(TRAINED) and self.made_by is None

    def for_task(self, trained_on: str | None, train_seed: int = 0) -> Self:
        """The entry with its checkpoint settled. Raises ConfigError where an option does not apply."""
        if train_seed and not self.trained_here:
            raise ConfigError(f"{self.name} is not trained here and has no training seed: leave it out.")
        if not self.per_task and trained_on is not None:
            raise ConfigError(f"{self.name} has one checkpoint for every task: leave --trained-on out.")
        if not self.trained_here and not self.per_task:
            return self
        assert self.checkpoint is not None
        settled = self.checkpoint.replace("{trained_on}", trained_on or "")
        return self.model_copy(update={"checkpoint": settled + (f"-seed{train_seed}" if train_seed else "")})

    def with_settings(self, settings: dict[str, Any]) -> Self:
        """The entry with options or runtime settings replaced. Raises ConfigError on an unknown one."""
        if not settings:
            return self
        kind = KINDS.get(self.adapter or "")
        options, runtime = (kind.options, kind.runtime) if kind else (frozenset(), frozenset())
        if unknown := sorted(set(settings) - options - runtime):
            known = ", ".join(sorted(options | runtime)) or "none"
            raise ConfigError(f"{self.name} has no setting {unknown[0]!r}. Known settings: {known}.")
        changed = {
            "options": self.options | {k: v for k, v in settings.items() if k in options},
            "runtime": self.runtime | {k: v for k, v in settings.items() if k in runtime},
        }
        for name, value in settings.items():
            if fault := setting_fault(name, value):
                raise ConfigError(f"{self.name}: {fault}.")
        return self.model_copy(update=changed)

    def with_adapter(self, adapter: str) -> Self:
        """The entry with its adapter settled; settings of other engines are left out."""
        kind = KINDS[adapter]
        return self.model_copy(
            update={
                "adapter": adapter,
                "options": {k: v for k, v in self.options.items() if k in kind.options},
                "runtime": {k: v for k, v in self.runtime.items() if k in kind.runtime},
            }
        )


def check_registry(path: Path = REGISTRY) -> tuple[dict[str, ModelEntry], list[str]]:
    """Every entry that is sound, and one line a fault."""
    try:
        data = load_yaml(path)
    except ConfigError as error:
        return {}, [str(error)]
    entries: dict[str, ModelEntry] = {}
    lines: list[str] = []
    for name, fields in data.items():
        where = f"{path}: {name}"
        if not isinstance(fields, dict):
            lines.append(f"{where}: expected a mapping, found {type(fields).__name__}.")
            continue
        entry, faulty = faults(ModelEntry, {"name": str(name), "title": str(name), **fields}, where)
        lines += faulty
        if entry is not None:
            entries[entry.name] = entry
    return entries, lines


def load_registry(path: Path | None = None) -> dict[str, ModelEntry]:
    """All entries; with `path`, that file's entries on top. Raises ConfigError."""
    entries: dict[str, ModelEntry] = {}
    for file in (REGISTRY, path):
        if file is not None:
            found, lines = check_registry(file)
            if lines:
                raise ConfigError("\n".join(lines))
            entries |= found
    return entries


def get_entry(name: str, path: Path | None = None) -> ModelEntry:
    """The entry of that name. Raises ConfigError with the known names."""
    entries = load_registry(path)
    if name not in entries:
        raise ConfigError(f"No model named {name!r} in the registry. Known models: {', '.join(entries)}.")
    return entries[name]


def parse_frame(text: str) -> Frame:
    """`per_mille`, `per_mille:yx` or `resized_pixel:max_pixels=1003520` -> Frame. Raises ConfigError."""
    kind, *parts = text.split(":")
    order, limits = "xy", {}
    try:
        for part in parts:
            name, equals, value = part.partition("=")
            if not equals:
                order = part
            elif kind == "resized_pixel" and name in ("min_pixels", "max_pixels") and value.isdecimal():
                limits[name] = int(value)
            else:
                raise FrameError(f"{part!r} is no setting of it.")
        return Frame(kind, order, **limits)  # type: ignore[arg-type]  # checked by Frame
    except FrameError as error:
        raise ConfigError(
            f"--frame {text}: {error} Write KIND or KIND:yx, e.g. {FRAME_KINDS[4]}:yx, and for resized_pixel "
            "its limits where they are not the model's own, e.g. resized_pixel:max_pixels=1003520."
        ) from None
