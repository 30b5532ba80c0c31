"""OpenAI's batch endpoint: files of at most 50,000 requests and 200 MB, answered within a day at half the price."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from evalkit.records import Prompt, Reply
from model_adapters.asking import redacted
from model_adapters.batches import State
from model_adapters.openai_api import OpenAIAsker, blocked_reply, new_client, reply_of, server_name
from model_adapters.openai_faults import BLOCKING, call_errors, fault_of
from model_adapters.retry import Fault, Treatment

_ENDPOINT = "/v1/chat/completions"
_TAG = "evalkit"
_RUNNING = ("validating", "in_progress", "finalizing", "cancelling")
_PAGE = 100


class OpenAIBatches:
    """The batch service behind an OpenAIAsker, whose requests it sends."""

    max_requests = 50_000
    max_bytes = 190_000_000  # under the limit of 200 MB

    def __init__(self, asker: OpenAIAsker, key: str | None) -> None:
        self.model, self._asker, self._key = asker.model, asker, key
        self._client: Any = None

    def describe(self) -> Mapping[str, str]:
        return self._asker.describe()

    async def open(self) -> None:
        self._client = new_client(self._key, self._asker.base_url, 4)

    async def close(self) -> None:
        await self._client.close()

    def line(self, prompt: Prompt) -> bytes:
        def wrapped(body: dict[str, Any]) -> dict[str, Any]:
            return {"custom_id": prompt.sample_id, "method": "POST", "url": _ENDPOINT, "body": body}

        return self._asker.prepare(prompt).content(self._asker.token_limit(prompt), wrapped) + b"\n"

    async def upload(self, path: Path, tag: str) -> str:
        async with self._calling():
            with path.open("rb") as file:
                made = await self._client.files.create(file=(f"{_TAG}-{tag}.jsonl", file), purpose="batch")
        return _known(made, "id")

    async def create(self, file: str, tag: str) -> str:
        async with self._calling():
            made = await self._client.batches.create(
                input_file_id=file, endpoint=_ENDPOINT, completion_window="24h", metadata={_TAG: tag}
            )
        return _known(made, "id")

    async def find(self, tag: str) -> str | None:
        async with self._calling():
            async for batch in self._client.batches.list(limit=_PAGE):
                if (batch.metadata or {}).get(_TAG) == tag:
                    return str(batch.id)
        return None

    async def poll(self, batch: str) -> State:
        async with self._calling(batch):
            found = await self._client.batches.retrieve(batch)
        status, counts = _known(found, "status"), found.request_counts
        text = f"{status}, {counts.completed} of {counts.total} done" if counts and counts.total else status
        if status == "failed":
            return State(text, failure=_failure(found))
        if status == "cancelled" and not found.output_file_id:
            return State(text, failure=Fault(Treatment.STOP, "it was cancelled at the provider"))
        return State(text, done=status not in _RUNNING)

    async def results(self, batch: str, prompts: Mapping[str, Prompt]) -> list[tuple[str, Reply | Fault]]:
        found: list[tuple[str, Reply | Fault]] = []
        async with self._calling(batch):
            made = await self._client.batches.retrieve(batch)
            for name in (made.output_file_id, made.error_file_id):
                if name is None:
                    continue
                content = await self._client.files.content(name)
                for line in content.content.splitlines():
                    entry = json.loads(line)
                    prompt = prompts.get(str(entry["custom_id"]))
                    if prompt is not None:
                        found.append((prompt.sample_id, outcome(prompt, entry, self._key)))
        return found

    @asynccontextmanager
    async def _calling(self, batch: str | None = None) -> AsyncIterator[None]:
        try:
            yield
        except call_errors() as error:
            if batch is not None and getattr(error, "status_code", None) == 404:
                raise _gone(batch) from None
            raise fault_of(error, self.model, server_name(self._asker.base_url), self._key) from None
        except (KeyError, TypeError, AttributeError) as error:
            raise Fault(
                Treatment.DOUBTFUL, f"the batch service's answer has another shape ({error!r})"
            ) from None


def outcome(prompt: Prompt, entry: Mapping[str, Any], key: str | None) -> Reply | Fault:
    """What one line of an output or error file says."""
    response = entry.get("response") or {}
    status, body = response.get("status_code"), response.get("body") or {}
    if status == 200:
        completion = import_module("openai.types.chat").ChatCompletion
        try:
            return reply_of(prompt, completion.construct(**body), 0.0)
        except Fault as fault:
            return fault
    error = body.get("error") or entry.get("error") or {}
    message, codes = redacted(str(error.get("message") or "no reason given"), key), _codes(error)
    if status == 400 and codes & BLOCKING:
        return blocked_reply(prompt, 0.0)
    if status in (400, 404, 413, 422):
        return Fault(Treatment.REJECTED, f"the request was rejected ({status}: {message})")
    return Fault(
        Treatment.PASSING, f"the batch did not answer it ({status or ', '.join(sorted(codes))}: {message})"
    )


def _codes(error: Mapping[str, Any]) -> set[str]:
    return {str(error[name]) for name in ("code", "type") if error.get(name)}


def _failure(batch: Any) -> Fault:
    """Why a batch failed as a whole: a limit on queued tokens passes, a file that is wrong does not."""
    errors = (batch.errors.data if batch.errors else None) or []
    said = redacted("; ".join(str(error.message) for error in errors) or "no reason given", None)
    queued = any(
        "token_limit" in str(error.code) or "enqueued" in str(error.message).lower() for error in errors
    )
    return Fault(Treatment.QUOTA if queued else Treatment.STOP, f"it failed ({said})")


def _gone(batch: str) -> Fault:
    return Fault(
        Treatment.STOP,
        f"the provider knows no batch {batch} (they are kept for some weeks). "
        "Delete batches.jsonl in the run's folder to submit its questions again",
    )


def _known(made: Any, name: str) -> str:
    value = getattr(made, name, None)
    if not isinstance(value, str) or not value:
        raise Fault(Treatment.DOUBTFUL, f"the batch service's answer has no {name}")
    return value
