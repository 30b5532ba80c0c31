"""Registry entry -> its adapter, ready to answer."""

from pathlib import Path
from typing import Any

from evalkit.errors import Unavailable
from evalkit.records import Adapter
from model_adapters.checkpoints import local_checkpoint, missing, missing_packages, require_checkpoint
from model_adapters.registry import ModelEntry
from model_adapters.settings import API_KINDS


def load_adapter(entry: ModelEntry, journal: Path | None = None) -> Adapter:
    """The adapter of an entry, ready to answer. Raises Unavailable with what is missing.

    journal: ask by the provider's batch service, and note there durably what was submitted.
    """
    if entry.adapter is None:
        raise Unavailable(f"{entry.name}: {missing(entry)}.")
    if lacking := missing_packages(entry):
        raise Unavailable(f"{entry.name} {lacking}.")
    if entry.adapter == "fake":
        from model_adapters.fake import Fake

        return Fake(**entry.options, **entry.runtime)
    if entry.adapter in API_KINDS:
        return _api(entry, journal)
    require_checkpoint(entry)
    return _local(entry)


def _local(entry: ModelEntry) -> Adapter:
    assert entry.checkpoint is not None
    assert entry.family is not None
    settings: dict[str, Any] = {"revision": entry.revision, **entry.options, **entry.runtime}
    checkpoint = local_checkpoint(entry.checkpoint)
    from model_adapters.hf_local import HfLocal

    return HfLocal(checkpoint, entry.family, **settings)


def _api(entry: ModelEntry, journal: Path | None) -> Adapter:
    raise NotImplementedError
