"""Gemini through google-genai."""

import time
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from typing import Any

from evalkit.records import Prompt, Reply
from model_adapters.asking import ModelNames, counted, png_bytes, redacted
from model_adapters.checkpoints import is_loopback
from model_adapters.gemini_faults import BLOCKING, FINISH, call_errors, fault_of
from model_adapters.openai_api import blocked_reply, server_name
from model_adapters.retry import Fault, Treatment

GEMINI_URL = "https://generativelanguage.googleapis.com"


class GeminiAsker:
    """The SDK's asynchronous client, its retries and its continuation off; model is the id at Google.

    key:       from the environment.
    decoding:  temperature, seed, thinking_budget (tokens) or thinking_level; only what is given is sent.
    room:      tokens that the model may think, besides a task's own limit.
    media_resolution: low | medium | high, or None for the model's own.
    image_tokens:     about what an image counts, for a limit of tokens.
    """

    def __init__(
        self,
        model: str,
        *,
        key: str | None,
        base_url: str | None = None,
        connections: int = 32,
        decoding: Mapping[str, Any] | None = None,
        room: int = 0,
        media_resolution: str | None = None,
        image_tokens: int = 0,
    ) -> None:
        self.model, self._key, self._connections = model, key, connections
        self.base_url = (base_url or GEMINI_URL).rstrip("/")
        self._decoding, self._room = dict(decoding or {}), room
        self._media_resolution, self._image_tokens = media_resolution, image_tokens
        self._names = ModelNames(model)
        self._client: Any = None
        self._session: Any = None

    def describe(self) -> Mapping[str, str]:
        return {
            "engine": "google-genai",
            "google-genai": version("google-genai"),
            "server": server_name(self.base_url),
        }

    async def open(self) -> None:
        self._client, self._session = new_client(self._key, self.base_url, self._connections)

    async def close(self) -> None:
        await self._client.aio.aclose()
        await self._session.close()

    async def look(self) -> None:
        try:
            await self._client.aio.models.get(model=self.model)
        except call_errors() as error:
            raise fault_of(error, self.model, server_name(self.base_url), self._key) from None

    def prepare(self, prompt: Prompt) -> Any:
        types = import_module("google.genai.types")
        image = types.Part.from_bytes(data=png_bytes(prompt), mime_type="image/png")
        content = types.Content(role="user", parts=[image, types.Part.from_text(text=prompt.text)])
        return content, types.GenerateContentConfig(**self.config(prompt))

    def config(self, prompt: Prompt) -> dict[str, Any]:
        """The generation settings of a request, in the SDK's names."""
        thinking = {k: v for k, v in self._decoding.items() if k.startswith("thinking_")}
        plain = {k: v for k, v in self._decoding.items() if k not in thinking}
        return {
            **plain,
            "max_output_tokens": prompt.max_new_tokens + self._room,
            "candidate_count": 1,
            "automatic_continuation": False,
            **({"thinking_config": thinking} if thinking else {}),
            **({"media_resolution": _resolution(self._media_resolution)} if self._media_resolution else {}),
        }

    def tokens(self, prompt: Prompt) -> int:
        return self._image_tokens + len(prompt.text) // 3 + prompt.max_new_tokens + self._room

    async def ask(self, prompt: Prompt, request: Any) -> Reply:
        content, config = request
        started = time.perf_counter()
        try:
            response = await self._client.aio.models.generate_content(
                model=self.model, contents=content, config=config
            )
            reply = reply_of(prompt, response, time.perf_counter() - started)
        except call_errors() as error:
            raise fault_of(error, self.model, server_name(self.base_url), self._key) from None
        self._names.check(reply.answered_by)
        return reply


def new_client(key: str | None, base_url: str, connections: int) -> tuple[Any, Any]:
    """The SDK's client and the aiohttp session it sends by; made inside the loop, both to be closed.

    The session is ours, so that one transport is used whatever is installed. retry_options are given
    because without any the SDK repeats a broken connection once by itself.
    """
    genai, aiohttp = import_module("google.genai"), import_module("aiohttp")
    stay = aiohttp.TraceConfig()
    stay.on_request_redirect.append(_refuse_redirect)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections),
        trust_env=not is_loopback(base_url),
        trace_configs=[stay],
    )
    options = genai.types.HttpOptions(
        base_url=base_url,
        aiohttp_client=session,
        retry_options=genai.types.HttpRetryOptions(attempts=1),
    )
    return genai.Client(api_key=key or "EMPTY", vertexai=False, http_options=options), session


async def _refuse_redirect(session: Any, context: Any, parameters: Any) -> None:
    """The SDK would follow, and send the key along to whatever host it is sent to."""
    raise import_module("aiohttp").ClientError(
        "the server redirects to another address, which is not followed"
    )


def reply_of(prompt: Prompt, response: Any, latency_s: float) -> Reply:
    """The reply in a response. Raises Fault for what is none: no candidate, no text."""
    blocked = getattr(response.prompt_feedback, "block_reason", None)
    if blocked is not None:
        return blocked_reply(prompt, latency_s)
    if not response.candidates:
        raise Fault(Treatment.DOUBTFUL, "the answer holds no candidate")
    candidate = response.candidates[0]
    reason = str(getattr(candidate.finish_reason, "value", candidate.finish_reason))
    if reason == "PUP_LIMITED_DISABLED":
        raise Fault(Treatment.STOP, "the account is limited or disabled by the provider")
    parts = (candidate.content.parts if candidate.content else None) or []
    texts = [part.text for part in parts if part.text and not part.thought]
    finish = "content_filter" if reason in BLOCKING else FINISH.get(reason, "stop")
    if not texts and finish == "stop":
        said = redacted(str(candidate.finish_message or ""), None)
        raise Fault(
            Treatment.DOUBTFUL,
            f"the answer holds no text (finish reason {reason}{': ' + said if said else ''})",
        )
    return Reply(
        sample_id=prompt.sample_id,
        text="".join(texts),
        finish_reason=finish,
        latency_s=latency_s,
        usage=usage_of(response),
        answered_by=(response.model_version or "")[:200] or None,
    )


def usage_of(response: Any) -> dict[str, int]:
    """input_tokens and output_tokens as they are billed: thinking counts as output; of it reasoning_tokens."""
    usage = response.usage_metadata
    if usage is None:
        return {}
    thought = counted(usage.thoughts_token_count) or 0
    counts = {
        "input_tokens": counted(usage.prompt_token_count) or 0,
        "output_tokens": (counted(usage.candidates_token_count) or 0) + thought,
        "reasoning_tokens": thought,
        "cached_tokens": counted(usage.cached_content_token_count) or 0,
    }
    return {
        name: count for name, count in counts.items() if count or name in ("input_tokens", "output_tokens")
    }


def _resolution(name: str) -> str:
    return f"MEDIA_RESOLUTION_{name.upper()}"
