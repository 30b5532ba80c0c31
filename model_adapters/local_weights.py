"""torch, transformers, a device and a whole model: what every adapter of this process starts with."""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from evalkit.errors import AdapterError, ConfigError, Unavailable
from model_adapters.local_inputs import loading

DTYPES = ("auto", "float32", "bfloat16", "float16")


def packages() -> tuple[Any, Any]:
    try:
        torch, transformers = import_module("torch"), import_module("transformers")
    except ImportError as error:
        raise Unavailable(f"Local models need {error.name}: pip install 'evalkit-vlm[local]'.") from None
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    return torch, transformers


def load_model(model_class: Any, source: str, name: str, settings: Mapping[str, Any]) -> Any:
    """The model, whole: transformers only warns about absent weights and fills them with noise."""
    with loading(name, "weights"):
        model, found = model_class.from_pretrained(source, output_loading_info=True, **settings)
    if absent := sorted(found["missing_keys"]) + sorted(str(key) for key in found["mismatched_keys"]):
        raise AdapterError(
            f"{name}: {len(absent)} weights are missing or of another shape, {absent[0]} among them; "
            "the checkpoint is incomplete or not of this architecture."
        )
    return model.eval()


def device_of(torch: Any, wanted: str) -> Any:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ConfigError(f"No device {wanted!r}. Allowed: auto, cpu, cuda, cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise Unavailable(f"device {wanted!r}: this machine has no CUDA device. Use device cpu or auto.")
    return device
