"""A LoRA adapter on disk: which base it sits on, and the base with the adapter folded in."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from evalkit.errors import AdapterError, Unavailable

ADAPTER_FILE = "adapter_config.json"


def is_adapter(checkpoint: str) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    folder = Path(checkpoint)
    return (folder / ADAPTER_FILE).is_file() and not (folder / "config.json").is_file()


def base_of(folder: str) -> str:
    """The folder or Hub id of the base that an adapter was trained on. Raises AdapterError."""
    path = Path(folder) / ADAPTER_FILE
    try:
        base = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{path}: names no base model ({error!r}).") from None
    if not isinstance(base, str) or not base:
        raise AdapterError(f"{path}: base_model_name_or_path must be a folder or Hub id, found {base!r}.")
    return base


def with_adapter(model: Any, folder: str) -> Any:
    """The base model with the adapter's weights added to its own. Raises Unavailable, AdapterError."""
    try:
        peft = import_module("peft")
    except ImportError:
        raise Unavailable(
            f"{folder} is a LoRA adapter and needs peft: pip install 'evalkit-vlm[train]'."
        ) from None
    try:
        return peft.PeftModel.from_pretrained(model, folder).merge_and_unload().eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AdapterError(f"{folder}: the adapter does not fit its base ({reason}).") from None
