"""The one retry and concurrency policy of models behind a network.

A provider's module turns whatever its SDK raises into a Fault, which says how it is to be treated:

    RATE       the server is full: wait as it says, fewer at once, all pause, again
    PASSING    a bad moment of the server or the line: again after a while
    REFUSED    nobody listens: again after a while; before any answer has come, the run stops early
    DOUBTFUL   no answer in time, or one that cannot be read: twice more at most, it may be paid for
    REJECTED   this request will never be answered: the item fails; if the first ones all fail alike, stop
    STOP       no request will be answered until somebody acts (a key, money, a name): the run stops
    QUOTA      as STOP, but time alone mends it

Content that a provider refuses is no fault but an answer (a Reply with finish reason content_filter).
The SDKs' own retries are off: two layers multiply.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")

MAX_WAIT_S = 60.0
# A server that asks for more than this has had enough for today.
MAX_SERVER_DELAY_S = 600.0


class Treatment(Enum):
    RATE = "rate"
    PASSING = "passing"
    REFUSED = "refused"
    DOUBTFUL = "doubtful"
    REJECTED = "rejected"
    STOP = "stop"
    QUOTA = "quota"


# How many attempts that end so an item gets; 1 where none is repeated.
TRIES = {
    Treatment.RATE: 20,
    Treatment.PASSING: 8,
    Treatment.REFUSED: 8,
    Treatment.DOUBTFUL: 3,
    Treatment.REJECTED: 1,
    Treatment.STOP: 1,
    Treatment.QUOTA: 1,
}
_REFUSALS_WITHOUT_SUCCESS = 3
_REJECTIONS_ALIKE = 5


class Fault(Exception):
    """One call that brought no answer.

    delay_s: how long the server asks to wait. alike: what faults of the same cause have in common.
    """

    def __init__(
        self, treatment: Treatment, message: str, *, delay_s: float | None = None, alike: str | None = None
    ) -> None:
        super().__init__(message)
        self.treatment = treatment
        self.message = message
        self.delay_s = delay_s
        self.alike = alike or message
        self.attempts = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What a user knows of a provider's limits, and how long a call may take.

    concurrency: most requests in flight; rpm, tpm: most requests and tokens a minute.
    """

    concurrency: int = 32
    rpm: float | None = None
    tpm: float | None = None
    timeout_s: float = 180.0


class Window:
    """How many requests may be on the wire at once: additive increase, multiplicative decrease.

    Every answer widens the window by 1 / window, up to `most`; a refusal for rate halves it, once for
    all the requests that were sent before the cut, and nobody sends until the server's delay is over.
    An item that waits to try again goes before new ones, so a back-off keeps its place.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.in_flight = 0
        self.cuts = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._cut_at = self._open_at = float("-inf")

    async def enter(self, *, again: bool = False) -> float:
        """Wait for a place; returns the loop's time at which it was had."""
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        (self._waiting.appendleft if again else self._waiting.append)(place)
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave()
            raise
        return loop.time()

    def leave(self) -> None:
        self.in_flight -= 1
        self._admit()

    def widen(self) -> None:
        self.limit = min(float(self.most), self.limit + 1 / self.limit)

    def narrow(self, sent_at: float, pause_s: float) -> None:
        """After a refusal of a request sent at `sent_at`: pause for all and, once for its round, halve."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if sent_at >= self._cut_at:
            self.limit = max(1.0, self.limit / 2)
            self._cut_at = now
            self.cuts += 1
        if now + pause_s > self._open_at:
            self._open_at = now + pause_s
            loop.call_at(self._open_at, self._admit)

    def _admit(self) -> None:
        if asyncio.get_running_loop().time() < self._open_at:
            return  # narrow() has set the clock
        while self._waiting and self.in_flight < int(self.limit):
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)


class Pacer:
    """Keeps under limits that the user knows: nine tenths of them, evenly spread over the minute."""

    def __init__(self, rpm: float | None, tpm: float | None) -> None:
        from aiolimiter import AsyncLimiter

        self._requests = AsyncLimiter(1, 60 / (0.9 * rpm)) if rpm else None
        # a sixtieth of a minute's tokens may go at once
        self._tokens = AsyncLimiter(max(1.0, 0.9 * tpm / 60), 1) if tpm else None

    async def wait(self, tokens: int) -> None:
        if self._requests:
            await self._requests.acquire()
        if self._tokens:
            left = float(tokens)
            while left > 0:  # more than the bucket holds is taken in several draughts
                draught = min(left, self._tokens.max_rate)
                await self._tokens.acquire(draught)
                left -= draught


class Policy:
    """Retries, back-off, concurrency and pace of one run; lives in one event loop.

    proven: the model has answered such questions before, so that rejections alike are the questions' fault.
    """

    def __init__(self, limits: Limits, *, proven: bool = False) -> None:
        self.limits = limits
        self.window = Window(limits.concurrency)
        self.refused_for_rate = 0
        self.stopped = False  # nothing is tried again
        self._pacer = Pacer(limits.rpm, limits.tpm)
        self._answered = 0
        self._refusals = 0
        self._rejections: Counter[str] = Counter()
        self._finished = 1 if proven else 0

    async def call(self, ask: Callable[[], Awaitable[T]], tokens: int = 0) -> tuple[T, int]:
        """ask() with retries: what it returns and the number of attempts it took.

        tokens: what one attempt uses of the limit of tokens. Raises the last Fault, with `attempts`; it is
        of treatment STOP or QUOTA when the whole run has to stop.
        """
        from tenacity import AsyncRetrying

        patience = _Patience()
        attempts = 0
        try:
            async for attempt in AsyncRetrying(
                stop=patience, wait=_wait, retry=self._worth_another, reraise=True, sleep=asyncio.sleep
            ):
                with attempt:
                    attempts += 1
                    answer = await self._once(ask, tokens, again=attempts > 1)
        except Fault as fault:
            self._finished += 1
            fault = self._weighed(fault)
            fault.attempts = attempts
            raise fault from None
        self._finished += 1
        return answer, attempts

    async def _once(self, ask: Callable[[], Awaitable[T]], tokens: int, *, again: bool) -> T:
        sent_at = await self.window.enter(again=again)
        try:
            await self._pacer.wait(tokens)
            try:
                async with asyncio.timeout(self.limits.timeout_s):
                    answer = await ask()
            except TimeoutError:
                raise Fault(Treatment.DOUBTFUL, f"no answer within {self.limits.timeout_s:g} s") from None
        except Fault as fault:
            self._note(fault, sent_at)
            raise
        finally:
            self.window.leave()
        self._answered += 1
        self.window.widen()
        return answer

    def _note(self, fault: Fault, sent_at: float) -> None:
        if (fault.delay_s or 0) > MAX_SERVER_DELAY_S:
            minutes = (fault.delay_s or 0) / 60
            raise Fault(
                Treatment.QUOTA,
                f"the server asks to wait {minutes:.0f} minutes ({fault.message}). The same command goes on then",
            )
        if fault.treatment is Treatment.RATE:
            self.refused_for_rate += 1
            self.window.narrow(sent_at, fault.delay_s or 0.0)
        if fault.treatment is Treatment.REFUSED and not self._answered:
            self._refusals += 1
            if self._refusals >= _REFUSALS_WITHOUT_SUCCESS:
                raise Fault(Treatment.STOP, fault.message)

    def _worth_another(self, state: Any) -> bool:
        fault = state.outcome.exception() if state.outcome.failed else None
        return isinstance(fault, Fault) and TRIES[fault.treatment] > 1 and not self.stopped

    def _weighed(self, fault: Fault) -> Fault:
        """The fault, or a STOP when the first requests of a run were all rejected for the same cause."""
        if fault.treatment is Treatment.REJECTED:
            self._rejections[fault.alike] += 1
            if self._rejections[fault.alike] == self._finished == _REJECTIONS_ALIKE:
                return Fault(
                    Treatment.STOP,
                    f"the first {_REJECTIONS_ALIKE} requests were all rejected alike: {fault.message}",
                )
        return fault


class _Patience:
    """tenacity's stop: each kind of fault has its own count, and no item goes on for ever."""

    def __init__(self) -> None:
        self._seen: Counter[Treatment] = Counter()

    def __call__(self, state: Any) -> bool:
        fault = state.outcome.exception()
        assert isinstance(fault, Fault)
        self._seen[fault.treatment] += 1
        return self._seen[fault.treatment] >= TRIES[fault.treatment]


_PATIENT_AFTER = 4  # refusals of one item; a server that keeps asking for no delay gets one


def _wait(state: Any) -> float:
    """The server's delay, or full-jitter exponential: uniform below 1, 2, 4, ... seconds, at most 60."""
    fault, attempt = state.outcome.exception(), state.attempt_number
    if fault.treatment is Treatment.RATE and fault.delay_s is not None:
        # the window is shut for that long, and whoever waits to try again goes first
        attempt -= _PATIENT_AFTER
        if attempt < 1:
            return 0.0
    jitter = random.uniform(0, min(MAX_WAIT_S, 2.0 ** (attempt - 1)))
    return max(fault.delay_s or 0.0, jitter)
