"""A local checkpoint behind vLLM's OpenAI server: one that is running, or one started for the run."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from evalkit.errors import AdapterError, Unavailable
from evalkit.records import Adapter, Prompt, Reply
from model_adapters.asking import NetworkModel
from model_adapters.checkpoint_inputs import OpenCheckpoint, open_checkpoint
from model_adapters.families import spoken
from model_adapters.openai_api import OpenAIAsker, Request, server_name
from model_adapters.retry import Limits
from model_adapters.vllm_server import VllmServer, chat_request_extras, messages_for
from model_adapters.vllm_settings import VllmOptions


class ServedDialect:
    """Requests whose prompts are transformers' to the token, and a check of every answer that they were."""

    def __init__(self, opened: OpenCheckpoint) -> None:
        self._opened = opened
        self._extras = chat_request_extras(opened.eos_ids)

    def image(self, prompt: Prompt) -> bytes:
        buffer = BytesIO()
        self._opened.maker.sized_image(prompt).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def messages(self, prompt: Prompt, image_url: str) -> list[dict[str, Any]]:
        return messages_for(self._opened.maker.family, prompt.text, image_url)

    def extra_body(self) -> dict[str, Any]:
        return self._extras

    def check(self, prompt: Prompt, response: Any) -> None:
        from model_adapters.vllm_engine import check_prompt_ids

        wanted = self._opened.maker.encode(prompt).input_ids
        check_prompt_ids(self._opened, prompt, getattr(response, "prompt_token_ids", None) or [], wanted)


class ServedAsker(OpenAIAsker):
    """An OpenAIAsker that also says what answers behind the server."""

    def __init__(self, model: str, opened: OpenCheckpoint, base_url: str, connections: int) -> None:
        super().__init__(
            model,
            key=None,
            base_url=base_url,
            connections=connections,
            token_parameter="max_tokens",
            decoding={"temperature": 0},
            dialect=ServedDialect(opened),
        )
        self._opened = opened

    async def ask(self, prompt: Prompt, request: Request) -> Reply:
        reply = await super().ask(prompt, request)
        return replace(reply, text=spoken(self._opened.maker.family, reply.text)) if reply.text else reply

    def describe(self) -> Mapping[str, str]:
        return {**super().describe(), "engine": "vllm server", **self._opened.described()}


def served(
    checkpoint: str | Path, family: str, limits: Limits, base_url: str | None, options: Mapping[str, Any]
) -> Adapter:
    """An adapter over the server at base_url, or over one that is started, and stopped at the end.

    options: as of VllmOptions. Raises Unavailable, AdapterError.
    """
    if base_url is not None:
        opened = open_checkpoint(checkpoint, family, **VllmOptions(**options).inputs)
        model = _served_model(base_url, {str(checkpoint), opened.name, opened.source})
        return NetworkModel(ServedAsker(model, opened, base_url, limits.concurrency), limits)
    server = VllmServer(checkpoint, family, **options)
    asker = ServedAsker(server.model_name, server.opened, server.start(), limits.concurrency)
    return NetworkModel(asker, limits, server)


def _served_model(base_url: str, names: set[str]) -> str:
    """The name under which a running server knows the checkpoint. Raises Unavailable, AdapterError."""
    openai = import_module("openai")
    where = server_name(base_url)
    try:
        with openai.OpenAI(api_key="EMPTY", base_url=base_url, max_retries=0, timeout=20) as client:
            served = [model.id for model in client.models.list()]
    except (openai.OpenAIError, OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise Unavailable(
            f"no vLLM server answers at {where} ({said}). Start it, or leave --base-url out and one is started."
        ) from None
    known = [name for name in served if name in names]
    if not known and len(served) != 1:
        raise AdapterError(
            f"the server at {where} serves {', '.join(served) or 'nothing'}, none of which is "
            f"{' or '.join(sorted(names))}: start it with --served-model-name."
        )
    return str((known or served)[0])
