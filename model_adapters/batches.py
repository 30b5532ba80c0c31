"""Questions by a provider's batch service: submit in files under its limits, poll, hand on, resume.

Nothing is submitted twice: a part is noted before it is submitted, and one whose fate a kill left open is
looked up at the provider by its tag. What a batch leaves unanswered (expired, a server's error) goes into
another one, three times at most.
"""

import asyncio
import logging
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from evalkit.errors import AdapterError, EvalkitError, QuotaExhausted
from evalkit.records import Prompt, Reply
from model_adapters.asking import failed
from model_adapters.journal import Journal, Part
from model_adapters.retry import Fault, Limits, Policy, Treatment

_LOG = logging.getLogger(__name__)
T = TypeVar("T")

MAX_TRIES = 3
_CALL_LIMITS = Limits(concurrency=4, timeout_s=1800.0)  # a call may carry a file of 200 MB


@dataclass(frozen=True, slots=True)
class State:
    """Where a batch stands. failure: why it ended as a whole, and whether time or money mends it."""

    text: str
    done: bool = False
    failure: Fault | None = None


class BatchService(Protocol):
    """A provider's batch endpoints; lives in one event loop. Every call may raise Fault."""

    model: str
    max_requests: int
    max_bytes: int

    def describe(self) -> Mapping[str, str]: ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def line(self, prompt: Prompt) -> bytes:
        """One request as a line of the input file; its key is the sample's id. Raises EvalkitError."""
        ...

    async def upload(self, path: Path, tag: str) -> str:
        """The provider's name of the file."""
        ...

    async def create(self, file: str, tag: str) -> str:
        """The provider's name of the batch, which carries the tag."""
        ...

    async def find(self, tag: str) -> str | None:
        """The batch that carries the tag, if the provider has one."""
        ...

    async def poll(self, batch: str) -> State: ...

    async def results(self, batch: str, prompts: Mapping[str, Prompt]) -> list[tuple[str, Reply | Fault]]:
        """Key and outcome of every item that is in `prompts` and has one."""
        ...


class BatchModel:
    """An adapter over a batch service. journal: the run's; poll_s: seconds between two looks."""

    def __init__(self, service: BatchService, journal: Path, poll_s: float = 30.0) -> None:
        self._service, self._path, self._poll_s = service, journal, poll_s

    def describe(self) -> Mapping[str, str]:
        return {**self._service.describe(), "service": "batch"}

    def close(self) -> None:
        return None

    def replies(self, prompts: Iterable[Prompt]) -> Iterator[Reply]:
        with asyncio.Runner() as runner:
            runner.run(self._service.open())
            try:
                yield from _Collection(self._service, self._path, self._poll_s, runner).replies(list(prompts))
            finally:
                runner.run(self._service.close())


class _Collection:
    """One pass over the prompts of a run."""

    def __init__(self, service: BatchService, path: Path, poll_s: float, runner: asyncio.Runner) -> None:
        self._service, self._poll_s, self._runner = service, poll_s, runner
        self._journal = Journal(path)
        self._policy = Policy(_CALL_LIMITS)
        self._told: dict[str, str] = {}
        self._last: dict[str, str] = {}  # of an item: the tag of the newest part that carries it

    def replies(self, prompts: Sequence[Prompt]) -> Iterator[Reply]:
        asked = {prompt.sample_id: prompt for prompt in prompts}
        pending = self._run(self._recover())
        self._last = {item: part.tag for part in pending for item in part.items}
        fresh = [prompt for prompt in prompts if prompt.sample_id not in self._last]
        while pending or fresh:
            for part, unreadable in self._submit(fresh):
                if part:
                    pending.append(part)
                    self._last |= dict.fromkeys(part.items, part.tag)
                yield from unreadable
            if not pending:  # nothing could be sent at all
                return
            part = self._run(self._first_done(pending))
            pending.remove(part)
            fresh = yield from self._collect(part, asked)

    def _collect(self, part: Part, asked: Mapping[str, Prompt]) -> Generator[Reply, None, list[Prompt]]:
        """Hand on the replies of a finished part; returns the prompts that have to go into another.

        What went into a newer part since is that one's to answer: here it would be asked again.
        """
        wanted = {item: asked[item] for item in part.items if item in asked and self._last[item] == part.tag}
        assert part.batch is not None
        batch = part.batch
        outcomes = dict(self._run(self._call(partial(self._service.results, batch, wanted))))
        again: list[Prompt] = []
        for item, prompt in wanted.items():
            outcome = outcomes.get(item)
            if isinstance(outcome, Reply):
                yield replace(outcome, batched=True, attempts=self._journal.tries[item])
            elif _final(outcome) or self._journal.tries[item] >= MAX_TRIES:
                why = outcome.message if isinstance(outcome, Fault) else "the batch ended without it"
                yield failed(prompt, why, self._journal.tries[item])
            else:
                again.append(prompt)
        if all(item in asked for item in part.items):  # else somebody may still come for the others
            self._journal.collected(part)
        return again

    async def _recover(self) -> list[Part]:
        """The parts of earlier runs that are still out; one of which a kill left open is looked up."""
        found: list[Part] = []
        for part in self._journal.open_parts():
            if part.batch is None:
                batch = await self._call(partial(self._service.find, part.tag))
                if batch is None:  # a provider's list may lag behind a batch of a moment ago
                    await asyncio.sleep(self._poll_s)
                    batch = await self._call(partial(self._service.find, part.tag))
                if batch is None:
                    self._journal.dropped(part)
                    continue
                self._journal.submitted(part, batch)
            found.append(part)
        return found

    def _submit(self, prompts: Sequence[Prompt]) -> Iterator[tuple[Part | None, list[Reply]]]:
        """Parts under the provider's limits, submitted; and replies for prompts that cannot be sent at all."""
        left = list(prompts)
        while left:
            with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
                items, unreadable = self._write(file.name, left)
                del left[: len(items) + len(unreadable)]
                part = self._run(self._send(Path(file.name), items)) if items else None
            yield part, unreadable

    def _write(self, path: str, prompts: Sequence[Prompt]) -> tuple[list[str], list[Reply]]:
        items: list[str] = []
        unreadable: list[Reply] = []
        size = 0
        with Path(path).open("wb") as file:
            for prompt in prompts:
                try:
                    line = self._service.line(prompt)
                except EvalkitError as error:
                    unreadable.append(failed(prompt, str(error)))
                    continue
                if items and (
                    len(items) >= self._service.max_requests or size + len(line) > self._service.max_bytes
                ):
                    break
                file.write(line)
                items.append(prompt.sample_id)
                size += len(line)
        return items, unreadable

    async def _send(self, path: Path, items: Sequence[str]) -> Part:
        tag = uuid.uuid4().hex
        uploaded = await self._call(partial(self._service.upload, path, tag))
        part = self._journal.planned(tag, items)
        batch = await self._call(partial(self._create, uploaded, tag))
        self._journal.submitted(part, batch)
        _LOG.info("%s: batch %s submitted with %d questions", self._service.model, batch, len(items))
        return part

    async def _create(self, uploaded: str, tag: str) -> str:
        """Create the batch, unless an attempt that seemed to fail did create it."""
        return await self._service.find(tag) or await self._service.create(uploaded, tag)

    async def _first_done(self, pending: Sequence[Part]) -> Part:
        while True:
            for part in pending:
                assert part.batch is not None
                batch = part.batch
                state = await self._call(partial(self._service.poll, batch))
                if self._told.get(batch) != state.text:
                    self._told[batch] = state.text
                    _LOG.info("%s: batch %s: %s", self._service.model, batch, state.text)
                if state.failure is not None:
                    self._journal.dropped(part)
                    raise _ended(
                        self._service.model, f"batch {batch}: {state.failure.message}", state.failure
                    )
                if state.done:
                    return part
            await asyncio.sleep(self._poll_s)

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            answer, _ = await self._policy.call(call)
        except Fault as fault:
            raise _ended(self._service.model, fault.message, fault) from None
        return answer

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)


def _ended(model: str, message: str, fault: Fault) -> AdapterError:
    kind = QuotaExhausted if fault.treatment is Treatment.QUOTA else AdapterError
    return kind(f"{model}: {message}. Nothing that was submitted is lost: the same command goes on.")


def _final(outcome: Reply | Fault | None) -> bool:
    return isinstance(outcome, Fault) and outcome.treatment is Treatment.REJECTED
