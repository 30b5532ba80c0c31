"""Chat completions of OpenAI, and of any server that speaks them."""

import base64
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any, Protocol
from urllib.parse import urlsplit

from evalkit.records import FinishReason, Prompt, Reply
from model_adapters.asking import ModelNames, counted, png_bytes, redacted
from model_adapters.checkpoints import is_loopback
from model_adapters.openai_faults import call_errors, fault_of, is_blocked, wants_max_tokens
from model_adapters.retry import Fault, Treatment

OPENAI_URL = "https://api.openai.com/v1"
_BROKEN_OFF = ("abort", "error")  # of vLLM, and of proxies
_FINISH: Mapping[str, FinishReason] = {"length": "length", "content_filter": "content_filter"}


class Dialect(Protocol):
    """What a kind of server wants besides the API's own: vLLM's chat template, checks of its answers."""

    def image(self, prompt: Prompt) -> bytes:
        """The PNG that is sent. Raises EvalkitError."""
        ...

    def messages(self, prompt: Prompt, image_url: str) -> list[dict[str, Any]]: ...

    def extra_body(self) -> dict[str, Any]: ...

    def check(self, prompt: Prompt, response: Any) -> None:
        """Raise AdapterError for an answer that was not given to what was asked."""
        ...


class PlainDialect:
    """OpenAI's own. detail: auto | low | high | original; system: a system line, or None."""

    def __init__(self, detail: str = "auto", system: str | None = None) -> None:
        self._detail, self._system = detail, system

    def image(self, prompt: Prompt) -> bytes:
        return png_bytes(prompt)

    def messages(self, prompt: Prompt, image_url: str) -> list[dict[str, Any]]:
        image = {"type": "image_url", "image_url": {"url": image_url, "detail": self._detail}}
        system = [{"role": "system", "content": self._system}] if self._system else []
        return [*system, {"role": "user", "content": [image, {"type": "text", "text": prompt.text}]}]

    def extra_body(self) -> dict[str, Any]:
        return {}

    def check(self, prompt: Prompt, response: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Request:
    """A body whose image is put in as bytes: encoded once for all attempts, and never a Python string.

    That halves the CPU time of a request beside handing the SDK a dictionary with a data URL in it.
    """

    body: Mapping[str, Any]
    image: bytes  # base64

    def content(self, more: Mapping[str, Any], around: Callable[[dict[str, Any]], Any] = dict) -> bytes:
        """The JSON of the body with `more` settings; around: what to wrap it in."""
        before, after = json.dumps(around({**self.body, **more})).encode("ascii").split(_IMAGE)
        return b"".join((before, b"data:image/png;base64,", self.image, after))


_IMAGE = b"image-" + uuid.uuid4().hex.encode("ascii")  # stands for the data URL; no question can hold it


class OpenAIAsker:
    """The openai SDK, its own retries off; model is the id that the server knows.

    key:             from the environment; None for local servers that want none.
    token_parameter: max_completion_tokens; max_tokens for servers that do not know it, found out by itself.
    decoding:        temperature, seed, reasoning_effort; only what is given is sent.
    room:            tokens that the model may reason, besides a task's own limit.
    image_tokens:    about what an image counts, for a limit of tokens.
    """

    def __init__(
        self,
        model: str,
        *,
        key: str | None,
        base_url: str | None = None,
        connections: int = 32,
        token_parameter: str = "max_completion_tokens",
        decoding: Mapping[str, Any] | None = None,
        room: int = 0,
        image_tokens: int = 0,
        dialect: Dialect | None = None,
    ) -> None:
        self.model, self._key, self._connections = model, key, connections
        self.base_url = (base_url or OPENAI_URL).rstrip("/")
        self._dialect = dialect or PlainDialect()
        self._token_parameter = token_parameter
        self._decoding = dict(decoding or {})
        self._room, self._image_tokens = room, image_tokens
        self._names = ModelNames(model)
        self._client: Any = None

    def describe(self) -> Mapping[str, str]:
        return {"engine": "openai", "openai": version("openai"), "server": server_name(self.base_url)}

    async def open(self) -> None:
        self._client = new_client(self._key, self.base_url, self._connections)

    async def close(self) -> None:
        await self._client.close()

    async def look(self) -> None:
        try:
            if not await self._is_listed():
                await self._client.models.retrieve(self.model)
        except call_errors() as error:
            raise fault_of(error, self.model, server_name(self.base_url), self._key) from None

    async def _is_listed(self) -> bool:
        """Compatible servers have the list of models, not always the single ones."""
        async for model in self._client.models.list():
            if model.id == self.model:
                return True
        return False

    def prepare(self, prompt: Prompt) -> Request:
        """The body of a request, but for the parameter that limits its tokens."""
        image = base64.b64encode(self._dialect.image(prompt))
        messages = self._dialect.messages(prompt, _IMAGE.decode("ascii"))
        body = {"model": self.model, "messages": messages, **self._decoding, **self._dialect.extra_body()}
        return Request(body, image)

    def tokens(self, prompt: Prompt) -> int:
        return self._image_tokens + len(prompt.text) // 3 + prompt.max_new_tokens + self._room

    def token_limit(self, prompt: Prompt) -> dict[str, int]:
        """The parameter that limits a reply's tokens, under the name that the server knows."""
        return {self._token_parameter: prompt.max_new_tokens + self._room}

    async def ask(self, prompt: Prompt, request: Request) -> Reply:
        started = time.perf_counter()
        try:
            response = await self._create(prompt, request)
        except call_errors() as error:
            if is_blocked(error):
                return blocked_reply(prompt, time.perf_counter() - started)
            raise fault_of(error, self.model, server_name(self.base_url), self._key) from None
        reply = reply_of(prompt, response, time.perf_counter() - started)
        self._dialect.check(prompt, response)
        self._names.check(reply.answered_by)
        return reply

    async def _create(self, prompt: Prompt, request: Request) -> Any:
        parameter = self._token_parameter
        try:
            return await self._post(request.content(self.token_limit(prompt)))
        except import_module("openai").APIStatusError as error:
            if parameter == "max_tokens" or not wants_max_tokens(error):
                raise
        self._token_parameter = "max_tokens"
        return await self._post(request.content(self.token_limit(prompt)))

    async def _post(self, content: bytes) -> Any:
        return await self._client.post(
            "/chat/completions",
            cast_to=import_module("openai.types.chat").ChatCompletion,
            content=content,
            options={"headers": {"Content-Type": "application/json"}},
        )


def new_client(key: str | None, base_url: str, connections: int) -> Any:
    """The SDK's client on its aiohttp transport, twice as fast as its default one; made inside the loop.

    A proxy of the environment is not used for servers on this machine.
    """
    openai, httpx = import_module("openai"), import_module("httpx2")
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    http_client = openai.DefaultAioHttpClient(
        limits=limits, trust_env=not is_loopback(base_url), timeout=None, follow_redirects=False
    )
    return openai.AsyncOpenAI(
        api_key=key or "EMPTY", base_url=base_url, max_retries=0, timeout=None, http_client=http_client
    )


def reply_of(prompt: Prompt, response: Any, latency_s: float) -> Reply:
    """The reply in a chat completion. Raises Fault for what is none: HTML, an error object, no choice."""
    choices = getattr(response, "choices", None)
    if not isinstance(choices, list) or not choices:
        found = getattr(response, "error", None) or (response if isinstance(response, str) else None)
        said = f": {redacted(str(found), None)[:120]}" if found else ""
        raise Fault(Treatment.DOUBTFUL, f"the answer holds no choice{said}")
    choice = choices[0]
    message = getattr(choice, "message", None)
    if message is None:
        raise Fault(Treatment.DOUBTFUL, "the answer's choice holds no message")
    refusal, content = getattr(message, "refusal", None), _text(getattr(message, "content", None))
    reason = redacted(str(getattr(choice, "finish_reason", None)), None)
    if reason in _BROKEN_OFF:
        raise Fault(Treatment.PASSING, f"the server broke the answer off ({reason})")
    finish = _FINISH.get(reason, "stop")
    if isinstance(refusal, str) and refusal:
        content, finish = refusal, "content_filter"
    if content is None and finish == "stop":
        raise Fault(Treatment.DOUBTFUL, f"the answer holds no text (finish reason {reason})")
    return Reply(
        sample_id=prompt.sample_id,
        text=content or "",
        finish_reason=finish,
        latency_s=latency_s,
        usage=usage_of(response),
        answered_by=_name(response),
    )


def usage_of(response: Any) -> dict[str, int]:
    """input_tokens and output_tokens as they are billed; of these reasoning_tokens and cached_tokens."""
    usage = getattr(response, "usage", None)
    counts = {
        "input_tokens": getattr(usage, "prompt_tokens", None),
        "output_tokens": getattr(usage, "completion_tokens", None),
        "reasoning_tokens": getattr(
            getattr(usage, "completion_tokens_details", None), "reasoning_tokens", None
        ),
        "cached_tokens": getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None),
    }
    known = {name: count for name, value in counts.items() if (count := counted(value)) is not None}
    return {
        name: count for name, count in known.items() if count or name in ("input_tokens", "output_tokens")
    }


def _text(content: Any) -> str | None:
    """A message's content: text, or with some servers a list of parts; None for anything else."""
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) else getattr(part, "text", None) for part in content
        ]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else None


def _name(response: Any) -> str | None:
    name = getattr(response, "model", None)
    return name[:200] if isinstance(name, str) and name else None


def blocked_reply(prompt: Prompt, latency_s: float) -> Reply:
    """A request that was refused for its content: an answer that is none, and final."""
    return Reply(prompt.sample_id, "", "content_filter", latency_s)


def server_name(base_url: str) -> str:
    """Host and port of a URL, without what else it may carry."""
    parts = urlsplit(base_url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
