"""Models that answer prompts: the registry (models.yaml) and one adapter an engine."""

from model_adapters.checkpoints import identity, missing
from model_adapters.loading import load_adapter
from model_adapters.registry import ModelEntry, check_registry, get_entry, load_registry

__all__ = [
    "ModelEntry",
    "check_registry",
    "get_entry",
    "identity",
    "load_adapter",
    "load_registry",
    "missing",
]
