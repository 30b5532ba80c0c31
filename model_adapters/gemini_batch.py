"""Gemini's batch mode: a file of requests, answered within a day at half the price."""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from evalkit.records import Prompt, Reply
from model_adapters.asking import png_bytes, redacted
from model_adapters.batches import State
from model_adapters.gemini_api import GeminiAsker, new_client, reply_of
from model_adapters.gemini_faults import call_errors, fault_of
from model_adapters.openai_api import server_name
from model_adapters.retry import Fault, Treatment

_NAME = "evalkit-"
_ENDED = ("SUCCEEDED", "PARTIALLY_SUCCEEDED", "EXPIRED")
_REJECTED = (3, 5, 9, 11, 400, 404)  # google.rpc codes, and HTTP's


class GeminiBatches:
    """The batch service behind a GeminiAsker, whose requests it sends."""

    max_requests = 50_000
    max_bytes = 1_900_000_000  # under the limit of 2 GB a file

    def __init__(self, asker: GeminiAsker, key: str | None) -> None:
        self.model, self._asker, self._key = asker.model, asker, key
        self._client: Any = None
        self._session: Any = None

    def describe(self) -> Mapping[str, str]:
        return self._asker.describe()

    async def open(self) -> None:
        self._client, self._session = new_client(self._key, self._asker.base_url, 4)

    async def close(self) -> None:
        await self._client.aio.aclose()
        await self._session.close()

    def line(self, prompt: Prompt) -> bytes:
        image = {"mimeType": "image/png", "data": base64.b64encode(png_bytes(prompt)).decode("ascii")}
        request = {
            "contents": [{"role": "user", "parts": [{"inlineData": image}, {"text": prompt.text}]}],
            "generationConfig": _in_rest_names(self._asker.config(prompt)),
        }
        return (json.dumps({"key": prompt.sample_id, "request": request}) + "\n").encode("ascii")

    async def upload(self, path: Path, tag: str) -> str:
        async with self._calling():
            made = await self._client.aio.files.upload(
                file=str(path), config={"mime_type": "application/jsonl", "display_name": _NAME + tag}
            )
        return _named(made.name)

    async def create(self, file: str, tag: str) -> str:
        async with self._calling():
            made = await self._client.aio.batches.create(
                model=self.model, src=file, config={"display_name": _NAME + tag}
            )
        return _named(made.name)

    async def find(self, tag: str) -> str | None:
        async with self._calling():
            async for batch in await self._client.aio.batches.list(config={"page_size": 100}):
                if batch.display_name == _NAME + tag:
                    return _named(batch.name)
        return None

    async def poll(self, batch: str) -> State:
        async with self._calling(batch):
            found = await self._client.aio.batches.get(name=batch)
        state = str(getattr(found.state, "value", found.state)).removeprefix("JOB_STATE_")
        if state in ("FAILED", "CANCELLED"):
            said = redacted(str(getattr(found.error, "message", None) or "no reason given"), self._key)
            quota = "quota" in said.lower() or "exhausted" in said.lower()
            treatment = Treatment.QUOTA if quota else Treatment.STOP
            return State(state.lower(), failure=Fault(treatment, f"it {state.lower()} ({said})"))
        return State(state.lower(), done=state in _ENDED)

    async def results(self, batch: str, prompts: Mapping[str, Prompt]) -> list[tuple[str, Reply | Fault]]:
        found: list[tuple[str, Reply | Fault]] = []
        async with self._calling(batch):
            made = await self._client.aio.batches.get(name=batch)
            for entry in await self._entries(made.dest):
                prompt = prompts.get(str(entry["key"]))
                if prompt is not None:
                    found.append((prompt.sample_id, outcome(prompt, entry, self._key)))
        return found

    async def _entries(self, dest: Any) -> list[dict[str, Any]]:
        """Lines of the responses file; answers to a small batch may stand inside the batch."""
        if dest is None:
            return []
        if dest.file_name:
            content = await self._client.aio.files.download(file=dest.file_name)
            return [json.loads(line) for line in content.splitlines()]
        return [
            {
                "key": (one.metadata or {})["key"],
                "response": one.response and one.response.model_dump(mode="json", exclude_none=True),
                "error": one.error and one.error.model_dump(),
            }
            for one in dest.inlined_responses or []
        ]

    @asynccontextmanager
    async def _calling(self, batch: str | None = None) -> AsyncIterator[None]:
        try:
            yield
        except call_errors() as error:
            if batch is not None and getattr(error, "code", None) == 404:
                raise Fault(
                    Treatment.STOP,
                    f"the provider knows no batch {batch} (they are kept for some days). "
                    "Delete batches.jsonl in the run's folder to submit its questions again",
                ) from None
            raise fault_of(error, self.model, server_name(self._asker.base_url), self._key) from None
        except (KeyError, TypeError) as error:
            raise Fault(
                Treatment.DOUBTFUL, f"the batch service's answer has another shape ({error!r})"
            ) from None


def outcome(prompt: Prompt, entry: Mapping[str, Any], key: str | None) -> Reply | Fault:
    """What one line of a responses file says."""
    if response := entry.get("response"):
        kind = import_module("google.genai.types").GenerateContentResponse
        try:
            return reply_of(prompt, kind.model_validate(response), 0.0)
        except Fault as fault:
            return fault
        except ValueError as error:
            return Fault(Treatment.DOUBTFUL, f"the answer is not as the API's ({redacted(str(error), key)})")
    failure = entry.get("error") or {}
    message = redacted(str(failure.get("message") or "no reason given"), key)
    if failure.get("code") in _REJECTED:
        return Fault(Treatment.REJECTED, f"the request was rejected ({failure['code']}: {message})")
    return Fault(Treatment.PASSING, f"the batch did not answer it ({failure.get('code')}: {message})")


_REST = {
    "max_output_tokens": "maxOutputTokens",
    "candidate_count": "candidateCount",
    "thinking_config": "thinkingConfig",
    "thinking_budget": "thinkingBudget",
    "thinking_level": "thinkingLevel",
    "media_resolution": "mediaResolution",
}


def _in_rest_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """The SDK's settings under the names of the REST API; what steers the SDK alone is left out."""
    named: dict[str, Any] = {}
    for name, value in config.items():
        if name != "automatic_continuation":
            named[_REST.get(name, name)] = _in_rest_names(value) if isinstance(value, dict) else value
    return named


def _named(name: str | None) -> str:
    if not name:
        raise Fault(Treatment.DOUBTFUL, "the batch service's answer has no name")
    return name
