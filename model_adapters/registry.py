"""The model registry: models.yaml -> ModelEntry, what an entry lacks here, and its adapter."""

import hashlib
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evalkit.errors import AdapterError, ConfigError, FrameError, Unavailable
from evalkit.frames import FRAME_KINDS, Frame, FrameKind
from evalkit.paths import cache_dir
from evalkit.records import Adapter
from evalkit.yamlfile import faults, load_yaml

REGISTRY = Path(__file__).with_name("models.yaml")

# adapter -> (packages it imports, the extra that brings them, options that change answers, options that do not)
_ADAPTERS: dict[str, tuple[tuple[str, ...], str, frozenset[str], frozenset[str]]] = {
    "fake": ((), "", frozenset({"reply", "script", "faults"}), frozenset({"latency_s", "log"})),
    "hf_local": (
        ("torch", "transformers"),
        "local",
        frozenset({"dtype", "min_pixels", "max_pixels", "layout", "trust_remote_code"}),
        frozenset({"batch_size", "device"}),
    ),
}

_TRAINED = "checkpoints/"  # what `evalkit train` makes, below the working folder
_NUMBER = (int, float)
_SETTING_TYPES: dict[str, type | tuple[type, ...]] = {
    "reply": (str, int, float),
    "script": str,
    "faults": dict,
    "latency_s": _NUMBER,
    "log": str,
    "dtype": str,
    "min_pixels": int,
    "max_pixels": int,
    "layout": str,
    "trust_remote_code": bool,
    "batch_size": int,
    "device": str,
}


def _setting_fault(name: str, value: Any) -> str | None:
    """Why a setting's value cannot be used, or None."""
    allowed = _SETTING_TYPES[name]
    kinds = allowed if isinstance(allowed, tuple) else (allowed,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return f"{name} must be {' or '.join(kind.__name__ for kind in kinds)}, found {value!r}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if name in ("batch_size", "min_pixels", "max_pixels") and value < 1:
            return f"{name} must be at least 1, found {value}"
        if name == "latency_s" and not 0 <= value < 86_400:
            return f"{name} must be a number of seconds, found {value}"
    return None


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
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    source: str


class ModelEntry(BaseModel):
    """One model of models.yaml. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str
    adapter: str | None
    family: str | None = None
    checkpoint: str | None = None
    revision: str | None = None
    frame: FrameSpec | None = None
    decoding: dict[str, Any] = Field(default_factory=lambda: {"temperature": 0})
    options: dict[str, Any] = Field(default_factory=dict)
    runtime: dict[str, Any] = Field(default_factory=dict)
    prices: Prices | None = None
    params_b: Annotated[float, Field(gt=0)] | None = None
    scale: Literal["tiny", "small", "full"] | None = None
    objective: Literal["base", "ntp", "ntp_klal"] | None = None
    retired: str | None = None

    @field_validator("adapter")
    @classmethod
    def _known_adapter(cls, value: str | None) -> str | None:
        if value is not None and value not in _ADAPTERS:
            raise ValueError(f"no adapter named {value!r}; known: {', '.join(_ADAPTERS)}, or null")
        return value

    @model_validator(mode="after")
    def _known_options(self) -> Self:
        if self.adapter is None:
            return self
        _, _, options, runtime = _ADAPTERS[self.adapter]
        for group, found, allowed in (("options", self.options, options), ("runtime", self.runtime, runtime)):
            if unknown := sorted(set(found) - allowed):
                known = ", ".join(sorted(allowed))
                raise ValueError(f"{group} has no {unknown[0]!r} for adapter {self.adapter}; known: {known}")
            for name, value in found.items():
                if fault := _setting_fault(name, value):
                    raise ValueError(f"{group}.{fault}")
        if self.adapter == "hf_local" and not (self.checkpoint and self.family):
            raise ValueError("adapter hf_local needs a checkpoint and a family")
        for limit in ("min_pixels", "max_pixels"):
            if limit in self.options and self.options[limit] != getattr(self.frame, limit, None):
                raise ValueError(
                    f"options.{limit} and frame.{limit} must agree: answers are in resized pixels"
                )
        if self.decoding != {"temperature": 0}:
            raise ValueError(
                "decoding must be {temperature: 0}: the adapters of this version decode greedily"
            )
        return self

    @property
    def per_task(self) -> bool:
        """Whether there is one checkpoint a training task."""
        return "{trained_on}" in (self.checkpoint or "")

    @property
    def trained_here(self) -> bool:
        """Whether `evalkit train` makes its checkpoints, one a training seed."""
        return (self.checkpoint or "").startswith(_TRAINED)

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
        _, _, options, runtime = _ADAPTERS.get(self.adapter or "", ((), "", frozenset(), frozenset()))
        if unknown := sorted(set(settings) - options - runtime):
            known = ", ".join(sorted(options | runtime)) or "none"
            raise ConfigError(f"{self.name} has no setting {unknown[0]!r}. Known settings: {known}.")
        changed = {
            "options": self.options | {k: v for k, v in settings.items() if k in options},
            "runtime": self.runtime | {k: v for k, v in settings.items() if k in runtime},
        }
        for name, value in settings.items():
            if fault := _setting_fault(name, value):
                raise ConfigError(f"{self.name}: {fault}.")
        return self.model_copy(update=changed)


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
        entry, faulty = faults(ModelEntry, {"name": str(name), **fields}, where)
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


def _looks_like_folder(checkpoint: str) -> bool:
    """A path, not a Hub id: Hub ids have at most one slash and no leading dot or slash."""
    return checkpoint.startswith((".", "/", "~", "checkpoints/")) or checkpoint.count("/") > 1


def missing(entry: ModelEntry) -> str | None:
    """What this machine lacks to run a model, or None. Imports nothing heavy and asks no network."""
    if entry.retired:
        return f"retired since {entry.retired}; replies collected earlier: evalkit import"
    if entry.adapter is None:
        return "no engine for it in this version; replies made elsewhere: evalkit import"
    packages, extra, _, _ = _ADAPTERS[entry.adapter]
    if absent := [name for name in packages if find_spec(name) is None]:
        return f"needs {' and '.join(absent)}: pip install 'evalkit-vlm[{extra}]'"
    if entry.per_task:
        folder = Path((entry.checkpoint or "").split("{", 1)[0])
        trained = sorted(p.name for p in folder.glob("*/") if _is_checkpoint(p))
        if trained:
            return None
        how = f": evalkit train --model {entry.name} --task TASK" if entry.trained_here else ""
        return f"no checkpoint in {folder}/<task>{how}"
    return _missing_checkpoint(entry)


def _missing_checkpoint(entry: ModelEntry) -> str | None:
    checkpoint = entry.checkpoint or ""
    if not checkpoint or checkpoint.startswith("tiny:") or _looks_like_folder(checkpoint):
        if _looks_like_folder(checkpoint) and not _is_checkpoint(Path(checkpoint).expanduser()):
            how = f"train it: {train_command(entry)}" if entry.trained_here else "no config.json there"
            return f"no checkpoint in {checkpoint}: {how}"
        return None
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    cached = hub / f"models--{checkpoint.replace('/', '--')}" / "snapshots"
    if cached.is_dir() or Path(checkpoint).is_dir():
        return None
    size = f", about {2 * entry.params_b:.0f} GB" if entry.params_b else ""
    return f"not downloaded: {checkpoint}{size} (fetched from the Hub at the first run)"


def require_checkpoint(entry: ModelEntry) -> None:
    """Raise Unavailable, in one line that says what to do, when a local checkpoint is not there."""
    checkpoint = entry.checkpoint or ""
    if not _looks_like_folder(checkpoint) or _is_checkpoint(Path(checkpoint).expanduser()):
        return
    found = "no config.json there" if Path(checkpoint).expanduser().is_dir() else "no such folder"
    train = f"Train it: {train_command(entry)}; or put" if checkpoint.startswith(_TRAINED) else "Put"
    raise Unavailable(
        f"{entry.name}: no checkpoint in {checkpoint} ({found}). "
        f"{train} a trained checkpoint into that folder, or name another with --checkpoint."
    )


def train_command(entry: ModelEntry) -> str:
    """What to type to make the checkpoint of a settled entry, e.g. checkpoints/qwen-klal/line_tracing-seed1."""
    place, _, seed = (entry.checkpoint or "").partition("-seed")
    task = "" if place == f"{_TRAINED}{entry.name}" else place.rpartition("/")[2]
    words = ["evalkit train", f"--model {entry.name}"]
    words += [f"--task {task}"] if task else []
    words += [f"--set seed={seed}"] if seed else []
    return " ".join(words)


def _is_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))


def training_of(entry: ModelEntry) -> dict[str, Any] | None:
    """How the entry's checkpoint was trained, from its training.json; None for one not trained by evalkit."""
    path = Path(entry.checkpoint or "").expanduser() / "training.json"
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {key: data[key] for key in _TRAINING_KEYS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{path}: not a training.json as evalkit writes it ({error!r}).") from None


_TRAINING_KEYS = (
    "objective",
    "trained_on",
    "seed",
    "steps",
    "samples_seen",
    "parameters",
    "key",
    "git_commit",
)


def identity(entry: ModelEntry) -> dict[str, Any]:
    """All of a model that changes its answers, for the hash of a run; folders by their content."""
    found: dict[str, Any] = entry.model_dump(include={"adapter", "family", "revision", "decoding", "options"})
    checkpoint = entry.checkpoint or ""
    if checkpoint.startswith("tiny:"):
        from model_adapters.tiny import tiny_checkpoint

        found["checkpoint"] = tiny_checkpoint(checkpoint.removeprefix("tiny:"), cache_dir()).name
    elif checkpoint and Path(checkpoint).expanduser().is_dir():
        found["checkpoint"] = fingerprint_folder(Path(checkpoint).expanduser())
    else:
        found["checkpoint"] = checkpoint
    if script := entry.options.get("script"):
        found["script"] = _sha256_file(Path(script))
    return found


def fingerprint_folder(folder: Path) -> str:
    """sha256 over names and contents of a checkpoint's files.

    Not of optimiser states below it, nor of training.json, which says when and on what it was made.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.name != "training.json"):
        digest.update(f"{path.name}\0{_sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _sha256_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from None


def load_adapter(entry: ModelEntry) -> Adapter:
    """The adapter of an entry, ready to answer. Raises Unavailable with what is missing."""
    if entry.adapter is None:
        raise Unavailable(f"{entry.name}: {missing(entry)}.")
    packages, extra, _, _ = _ADAPTERS[entry.adapter]
    if absent := [name for name in packages if find_spec(name) is None]:
        raise Unavailable(
            f"{entry.name} needs {' and '.join(absent)}, not installed here: pip install 'evalkit-vlm[{extra}]'."
        )
    require_checkpoint(entry)
    if entry.adapter == "fake":
        from model_adapters.fake import Fake

        return Fake(**entry.options, **entry.runtime)
    from model_adapters.hf_local import HfLocal

    assert entry.checkpoint is not None
    assert entry.family is not None
    return HfLocal(
        local_checkpoint(entry.checkpoint),
        entry.family,
        revision=entry.revision,
        **entry.options,
        **entry.runtime,
    )


def local_checkpoint(checkpoint: str) -> str | Path:
    """What an entry's checkpoint stands for here: a folder, made first for tiny:<recipe>, or a Hub id."""
    if checkpoint.startswith("tiny:"):
        from model_adapters.tiny import tiny_checkpoint

        return tiny_checkpoint(checkpoint.removeprefix("tiny:"), cache_dir())
    path = Path(checkpoint).expanduser()
    return path if path.is_dir() else checkpoint


def parse_frame(text: str) -> Frame:
    """`per_mille` or `per_mille:yx` -> Frame. Raises ConfigError."""
    kind, _, order = text.partition(":")
    try:
        return Frame(kind, order or "xy")  # type: ignore[arg-type]  # checked by Frame
    except FrameError as error:
        raise ConfigError(
            f"--frame {text}: {error} Write KIND or KIND:yx, e.g. {FRAME_KINDS[4]}:yx."
        ) from None
