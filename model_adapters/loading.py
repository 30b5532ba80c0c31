"""Registry entry -> its adapter, ready to answer."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import Unavailable
from evalkit.records import Adapter
from model_adapters.checkpoints import (
    api_key,
    local_checkpoint,
    missing,
    missing_key,
    missing_packages,
    require_checkpoint,
)
from model_adapters.registry import ModelEntry
from model_adapters.settings import API_KINDS, KINDS

if TYPE_CHECKING:
    from model_adapters.asking import Asker
    from model_adapters.batches import BatchService
    from model_adapters.retry import Limits


def load_adapter(entry: ModelEntry, journal: Path | None = None, *, proven: bool = False) -> Adapter:
    """The adapter of an entry, ready to answer. Raises Unavailable with what is missing.

    journal: ask by the provider's batch service, and note there durably what was submitted.
    proven:  of API models, that some questions of the run have been answered.
    """
    if entry.adapter is None:
        raise Unavailable(f"{entry.name}: {missing(entry)}.")
    if lacking := missing_packages(entry):
        raise Unavailable(f"{entry.name} {lacking}.")
    if entry.adapter == "fake":
        from model_adapters.fake import Fake

        return Fake(**entry.options, **entry.runtime)
    if entry.adapter in API_KINDS:
        return _api(entry, journal, proven)
    require_checkpoint(entry)
    return _local(entry)


def _local(entry: ModelEntry) -> Adapter:
    assert entry.checkpoint is not None
    assert entry.family is not None
    settings: dict[str, Any] = {"revision": entry.revision, **entry.options, **entry.runtime}
    checkpoint = local_checkpoint(entry.checkpoint)
    match entry.adapter:
        case "vllm_engine":
            from model_adapters.vllm_engine import VllmEngine

            return VllmEngine(checkpoint, entry.family, **settings)
        case "vllm_server":
            from model_adapters.served import served

            asking = KINDS["openai_api"].runtime
            options = {name: value for name, value in settings.items() if name not in asking}
            return served(checkpoint, entry.family, limits_of(entry), entry.runtime.get("base_url"), options)
        case "instructblip":
            from model_adapters.instructblip import InstructBlip

            return InstructBlip(checkpoint, **settings)
        case "molmo":
            from model_adapters.molmo import Molmo

            return Molmo(checkpoint, **settings)
        case _:
            from model_adapters.hf_local import HfLocal

            return HfLocal(checkpoint, entry.family, **settings)


def _api(entry: ModelEntry, journal: Path | None, proven: bool) -> Adapter:
    from model_adapters.asking import NetworkModel

    if lacking := missing_key(entry):
        raise Unavailable(f"{entry.name}: {lacking}.")
    limits = limits_of(entry)
    asker = asker_of(entry, limits)
    if journal is None:
        return NetworkModel(asker, limits, proven=proven)
    from model_adapters.batches import BatchModel

    return BatchModel(_batch_service(asker, entry), journal, float(entry.runtime.get("poll_s", 30.0)))


def _batch_service(asker: "Asker", entry: ModelEntry) -> "BatchService":
    from model_adapters.gemini_api import GeminiAsker
    from model_adapters.gemini_batch import GeminiBatches
    from model_adapters.openai_api import OpenAIAsker
    from model_adapters.openai_batch import OpenAIBatches

    if isinstance(asker, GeminiAsker):
        return GeminiBatches(asker, api_key(entry))
    assert isinstance(asker, OpenAIAsker)
    return OpenAIBatches(asker, api_key(entry))


def limits_of(entry: ModelEntry) -> "Limits":
    from model_adapters.retry import Limits

    names = ("concurrency", "rpm", "tpm", "timeout_s")
    return Limits(**{name: entry.runtime[name] for name in names if name in entry.runtime})


def asker_of(entry: ModelEntry, limits: "Limits") -> "Asker":
    """The provider's side of an API entry."""
    from model_adapters.gemini_api import GeminiAsker
    from model_adapters.openai_api import OpenAIAsker, PlainDialect

    options = dict(entry.options)
    shared: dict[str, Any] = {
        "key": api_key(entry),
        "base_url": entry.runtime.get("base_url"),
        "connections": limits.concurrency,
        "decoding": entry.decoding,
        "room": options.pop("reasoning_room", 0),
    }
    assert entry.checkpoint is not None
    if entry.adapter == "gemini_api":
        return GeminiAsker(entry.checkpoint, **options, **shared)
    dialect = PlainDialect(options.pop("detail", "auto"), options.pop("system", None))
    return OpenAIAsker(entry.checkpoint, dialect=dialect, **options, **shared)
