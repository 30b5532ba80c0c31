"""Prompts -> replies of a model behind a network: many in flight, each reply handed on as it arrives.

The adapters are generators for a runner that is not asynchronous; so the event loop lives in a thread of
its own. Prompts are drawn one by one when there is room for another request, which lets the runner end a
run by handing out no more.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from typing import Any, Protocol

from evalkit.errors import AdapterError, EvalkitError, QuotaExhausted
from evalkit.records import Prompt, Reply
from model_adapters.local_inputs import open_rgb
from model_adapters.retry import Fault, Limits, Policy, Treatment

_LOG = logging.getLogger(__name__)


class Service(Protocol):
    def close(self) -> None: ...


class Asker(Protocol):
    """One provider: how a prompt becomes a request, and what comes back. Lives in one event loop."""

    model: str  # the id that the server knows

    def describe(self) -> Mapping[str, str]: ...

    async def open(self) -> None: ...

    def prepare(self, prompt: Prompt) -> Any:
        """The request, made once for all attempts. Raises EvalkitError for an image that cannot be read."""
        ...

    def tokens(self, prompt: Prompt) -> int:
        """About what a request uses of a limit of tokens."""
        ...

    async def ask(self, prompt: Prompt, request: Any) -> Reply:
        """One attempt. Raises Fault."""
        ...

    async def look(self) -> None:
        """Ask the server whether it knows the model. Raises Fault."""
        ...

    async def close(self) -> None: ...


class NetworkModel:
    """An adapter over an asker.

    service: stopped at the end: a server that was started for the run. proven: see retry.Policy.
    """

    def __init__(
        self, asker: Asker, limits: Limits, service: Service | None = None, *, proven: bool = False
    ) -> None:
        self._asker, self._limits, self._service, self._proven = asker, limits, service, proven

    def replies(self, prompts: Iterable[Prompt]) -> Iterator[Reply]:
        return stream(prompts, self._asker, self._limits, proven=self._proven)

    def describe(self) -> Mapping[str, str]:
        return self._asker.describe()

    def close(self) -> None:
        if self._service is not None:
            self._service.close()


def stream(
    prompts: Iterable[Prompt], asker: Asker, limits: Limits, *, proven: bool = False
) -> Iterator[Reply]:
    """Replies as they arrive. Raises AdapterError when no request can be answered, QuotaExhausted by quota.

    Closing it drops what is in flight, which may be paid for: to end a run, hand out no more prompts.
    """
    talk = _Talk(iter(prompts), asker, limits, proven)
    talk.start()
    try:
        yield from talk.replies()
    finally:
        talk.close()


class _Talk:
    """The thread with the event loop, and the queue through which replies leave it."""

    def __init__(self, prompts: Iterator[Prompt], asker: Asker, limits: Limits, proven: bool) -> None:
        self._prompts, self._asker, self._limits, self._name = prompts, asker, limits, asker.model
        self._proven = proven
        self._out: queue.SimpleQueue[Reply | BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"asking {asker.model}", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._policy: Policy | None = None
        self._stop: Fault | None = None
        self._no_more = False

    def start(self) -> None:
        self._thread.start()

    def replies(self) -> Iterator[Reply]:
        while (item := self._out.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Drop what is in flight."""
        self._no_more = True
        if self._loop is not None and self._task is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except asyncio.CancelledError:
            self._out.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the runner's thread
            self._out.put(error)
        else:
            self._out.put(None)

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        policy = self._policy = Policy(self._limits, proven=self._proven)
        await self._asker.open()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._limits.concurrency):
                    group.create_task(self._work(policy))
        except* EvalkitError as errors:
            raise errors.exceptions[0] from None
        finally:
            await self._asker.close()
        if policy.refused_for_rate:
            _LOG.info("%s: %d requests were refused for rate", self._name, policy.refused_for_rate)
        if self._stop is not None:
            kind = QuotaExhausted if self._stop.treatment is Treatment.QUOTA else AdapterError
            raise kind(f"{self._name}: {self._stop.message}.")

    async def _work(self, policy: Policy) -> None:
        while not self._no_more and (prompt := next(self._prompts, None)) is not None:
            reply = await self._settle(prompt, policy)
            if reply is not None:
                self._out.put(reply)

    async def _settle(self, prompt: Prompt, policy: Policy) -> Reply | None:
        """The reply of one prompt; None when the run stops and it shall be asked another time."""
        try:
            request = self._asker.prepare(prompt)
        except EvalkitError as error:
            return failed(prompt, str(error))
        try:
            reply, attempts = await policy.call(
                lambda: self._asker.ask(prompt, request), self._asker.tokens(prompt)
            )
        except Fault as fault:
            return self._fallen(prompt, fault, policy)
        return reply if attempts == 1 else with_attempts(reply, attempts)

    def _fallen(self, prompt: Prompt, fault: Fault, policy: Policy) -> Reply | None:
        if fault.treatment in (Treatment.STOP, Treatment.QUOTA):
            self._stop = self._stop or fault
            self._no_more = policy.stopped = True
            return None
        if policy.stopped and fault.treatment is not Treatment.REJECTED:
            return None
        return failed(prompt, fault.message, fault.attempts)


def failed(prompt: Prompt, error: str, attempts: int = 1) -> Reply:
    return Reply(prompt.sample_id, None, "error", 0.0, attempts=attempts, error=error)


def with_attempts(reply: Reply, attempts: int) -> Reply:
    return replace(reply, attempts=attempts)


def png_bytes(prompt: Prompt) -> bytes:
    """The image as PNG at the task's size: the file's own bytes where it is one, else encoded once.

    Raises EvalkitError for an image that cannot be opened or is not of the declared size.
    """
    from PIL import Image

    try:
        content = prompt.image_path.read_bytes()
        with Image.open(BytesIO(content), formats=("PNG",)) as image:
            as_it_is = image.mode in ("RGB", "L", "P")
            as_it_is = as_it_is and not {"exif", "transparency"} & set(image.info)
            as_it_is = as_it_is and image.size == tuple(prompt.image_size_wh)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        as_it_is = False  # opened again below, for its error
    if as_it_is:
        return content
    buffer = BytesIO()
    open_rgb(prompt.image_path, prompt.image_size_wh).save(buffer, "PNG")
    return buffer.getvalue()


_MOST_TOKENS = 10**9  # of one question; more is no count


def counted(value: object) -> int | None:
    """A server's count of tokens, or None for what is none: absent, negative, beyond all measure."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MOST_TOKENS:
        return None
    return value


def redacted(text: str, key: str | None) -> str:
    """A server's words on one line, short, without what steers a terminal, and without the key, which some echo."""
    text = " ".join(text.split())
    if key and len(key) >= 4:
        text = text.replace(key, "***")
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:300])


class ModelNames:
    """Says once when another model answers than the one that was asked."""

    def __init__(self, asked: str) -> None:
        self._asked = asked.removeprefix("models/")
        self._told: set[str] = set()

    def check(self, answered: str | None) -> None:
        """A dated or numbered version of the asked name is the same model."""
        if not answered or answered in self._told:
            return
        self._told.add(answered)
        rest = answered.removeprefix("models/").removeprefix(self._asked)
        if rest == answered.removeprefix("models/") or (
            rest and not (rest[0] == "-" and rest[1:2].isdigit())
        ):
            _LOG.warning(
                "asked %s, but %s answered; it is stored with every reply",
                self._asked,
                redacted(answered, None),
            )
