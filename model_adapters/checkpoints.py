"""What a registry entry's model needs of this machine: packages, checkpoint, keys; and what identifies it."""

import hashlib
import json
import os
from datetime import UTC, date, datetime
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from evalkit.errors import AdapterError, ConfigError, Unavailable
from evalkit.paths import cache_dir
from model_adapters.registry import TRAINED, ModelEntry
from model_adapters.settings import API_KINDS, KINDS


def _looks_like_folder(checkpoint: str) -> bool:
    """A path, not a Hub id: Hub ids have at most one slash and no leading dot or slash."""
    return checkpoint.startswith((".", "/", "~", "checkpoints/")) or checkpoint.count("/") > 1


def missing(entry: ModelEntry, today: date | None = None) -> str | None:
    """What this machine lacks to run a model, or None. Imports nothing heavy and asks no network."""
    if retired := retirement(entry, today):
        return retired
    if entry.adapter is None:
        return "no engine for it in this version; replies made elsewhere: evalkit import"
    if lacking := missing_packages(entry):
        return lacking
    if entry.adapter in API_KINDS:
        return missing_key(entry)
    if entry.per_task:
        folder = Path((entry.checkpoint or "").split("{", 1)[0])
        trained = sorted(p.name for p in folder.glob("*/") if _is_checkpoint(p))
        if trained:
            return None
        how = f": evalkit train --model {entry.name} --task TASK" if entry.trained_here else ""
        return f"no checkpoint in {folder}/<task>{how}"
    return _missing_checkpoint(entry)


def retirement(entry: ModelEntry, today: date | None = None) -> str | None:
    """Why a hosted model no longer answers, from its last day on; None before."""
    if not entry.retired or (today or datetime.now(UTC).date()) < date.fromisoformat(entry.retired):
        return None
    instead = f"its successor here: {entry.successor}; " if entry.successor else ""
    return f"retired since {entry.retired}; {instead}replies collected earlier: evalkit import"


def missing_packages(entry: ModelEntry) -> str | None:
    """The packages of the entry's adapter that are not installed, and how to get them; else None."""
    adapter = entry.adapter or ""
    if adapter == "local":  # the least that can run it
        adapter = "hf_local"
    kind = KINDS[adapter]
    starts_a_server = adapter == "vllm_server" and "base_url" not in entry.runtime
    packages = (*kind.packages, "vllm") if starts_a_server else kind.packages
    if absent := [name for name in packages if not _installed(name)]:
        return f"needs {' and '.join(absent)}: pip install 'evalkit-vlm[{kind.extra}]'"
    return None


def _installed(package: str) -> bool:
    """Whether a package can be imported, found out without importing anything: not even its parent."""
    parent, _, child = package.partition(".")
    spec = find_spec(parent)
    if spec is None or not child:
        return spec is not None
    return any((Path(place) / child).is_dir() for place in spec.submodule_search_locations or [])


# In the order they are looked up.
KEY_VARIABLES = {"openai_api": ("OPENAI_API_KEY",), "gemini_api": ("GEMINI_API_KEY", "GOOGLE_API_KEY")}


def key_variables(entry: ModelEntry) -> tuple[str, ...]:
    """The environment variables that may hold an API entry's key."""
    own = entry.runtime.get("api_key_env")
    return (str(own),) if own else KEY_VARIABLES.get(entry.adapter or "", ())


def api_key(entry: ModelEntry) -> str | None:
    """The key from the environment; None where there is none. Never stored, logged or shown.

    A provider's own variable is not sent over plain HTTP to another machine; one that the entry names
    in `api_key_env` is.
    """
    url = str(entry.runtime.get("base_url", "https://"))
    if url.startswith("http://") and not is_loopback(url) and "api_key_env" not in entry.runtime:
        return None
    found = (os.environ.get(name, "").strip() for name in key_variables(entry))
    return next((key for key in found if key), None)


def missing_key(entry: ModelEntry) -> str | None:
    """Why there is no key to send, where one is needed: servers on this machine, or of plain HTTP, want none."""
    url = str(entry.runtime.get("base_url", ""))
    if api_key(entry) is not None or is_loopback(url):
        return None
    if url.startswith("http://") and "api_key_env" not in entry.runtime:
        return None
    return f"no key: set {' or '.join(key_variables(entry))}"


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine: servers here usually want no key."""
    return (urlsplit(url).hostname or "") in ("localhost", "127.0.0.1", "::1")


def _missing_checkpoint(entry: ModelEntry) -> str | None:
    checkpoint = entry.checkpoint or ""
    if not checkpoint or checkpoint.startswith("tiny:") or _looks_like_folder(checkpoint):
        if _looks_like_folder(checkpoint) and not _is_checkpoint(Path(checkpoint).expanduser()):
            how = f"train it: {train_command(entry)}" if entry.trained_here else "no config.json there"
            how = f"make it: {entry.made_by}" if entry.made_by else how
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
    make = f"Train it: {train_command(entry)}; or put" if entry.trained_here else "Put"
    make = f"Make it: {entry.made_by}; or put" if entry.made_by else make
    raise Unavailable(
        f"{entry.name}: no checkpoint in {checkpoint} ({found}). "
        f"{make} a checkpoint into that folder, or name another with --checkpoint."
    )


def train_command(entry: ModelEntry) -> str:
    """What to type to make the checkpoint of a settled entry, e.g. checkpoints/qwen-klal/line_tracing-seed1."""
    place, _, seed = (entry.checkpoint or "").partition("-seed")
    task = "" if place == f"{TRAINED}{entry.name}" else place.rpartition("/")[2]
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
    paths = sorted(p for p in folder.iterdir() if p.is_file() and p.name != "training.json")
    return _fingerprint(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths))


@lru_cache(maxsize=64)
def _fingerprint(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Of 15 GB it takes half a minute; a suite asks it for each task. Changed files are other arguments."""
    digest = hashlib.sha256()
    for path, _, _ in files:
        digest.update(f"{path.name}\0{_sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _sha256_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from None


def local_checkpoint(checkpoint: str) -> str | Path:
    """What an entry's checkpoint stands for here: a folder, made first for tiny:<recipe>, or a Hub id."""
    if checkpoint.startswith("tiny:"):
        from model_adapters.tiny import tiny_checkpoint

        return tiny_checkpoint(checkpoint.removeprefix("tiny:"), cache_dir())
    path = Path(checkpoint).expanduser()
    return path if path.is_dir() else checkpoint
