"""Models that answer prompts: the registry (models.yaml) and one adapter an engine."""

from model_adapters.registry import (
    ModelEntry,
    check_registry,
    get_entry,
    identity,
    load_adapter,
    load_registry,
    missing,
)

__all__ = [
    "ModelEntry",
    "check_registry",
    "get_entry",
    "identity",
    "load_adapter",
    "load_registry",
    "missing",
]
