"""What the servers of all providers share: a request comes in, is logged, ruled on, answered, logged."""

import asyncio
import hashlib
import itertools
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from aiohttp import web

from .delivery import BODIES, LINE, Canned, deliver
from .faults import OK, Rulings
from .items import Question
from .limits import TokenBucket
from .log import ASK, LogWriter
from .script import Script

OVER_RATE = "over_rate"  # the script's own limit, which no plan names
_NEVER_DONE = ("reset_before_headers", "slow")  # nothing is done for such a request


@dataclass(frozen=True)
class Call:
    """One kind of request: op names it in logs and scripts; `handle` answers all but questions (op "ask")."""

    method: str
    path: str
    op: str
    handle: Callable[[web.Request, bytes], Canned] | None = None


@dataclass
class Visit:
    """One request on its way through the server; fault: what becomes of it."""

    number: int
    call: Call
    arrived: float  # time.time()
    body: bytes = b""
    question: Question | None = None
    attempt: int = 1
    fault: str = OK
    delay_s: float = 0.0
    status: int | None = None
    answered: bool = False

    def line(self) -> dict[str, Any]:
        """What each line of the log says of it."""
        return {
            "number": self.number,
            "op": self.call.op,
            "item": self.question.item if self.question else None,
            "attempt": self.attempt,
            "fault": self.fault,
            "model": self.question.model if self.question else None,
        }


class Provider(Protocol):
    """One API: its addresses and the shapes of its answers."""

    faults: frozenset[str]  # those it knows besides BODIES and LINE

    def calls(self) -> list[Call]: ...

    def key(self, request: web.Request) -> str | None:
        """The API key that came with the request."""
        ...

    def question(self, request: web.Request, body: bytes) -> Question:
        """Raises ValueError, KeyError or TypeError for what is none."""
        ...

    def answer(self, question: Question, fault: str) -> Canned: ...

    def error(self, fault: str, model: str) -> Canned | None:
        """The error of that name; None where the fault is none that calls of all kinds can meet."""
        ...

    def too_many(self, delay_s: float) -> Canned: ...


class Core:
    """The web application of one provider under one script."""

    def __init__(self, provider: Provider, script: Script, log: LogWriter) -> None:
        self.provider, self._script, self._log = provider, script, log
        self.known = frozenset({OK, *BODIES, *LINE, *provider.faults})
        self._check([*script.faults.names(), *itertools.chain(*script.ops.values())])
        self.rulings = Rulings(script.faults, script.ops)
        self.connections: Callable[[], int] = lambda: 0
        self.refuse: Callable[[float], None] = lambda seconds: None
        self._bucket = TokenBucket(script.rate, script.burst) if script.rate else None
        self._draw = random.Random(script.seed)
        self._numbers = itertools.count(1)
        self._in_flight = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**31)
        app.router.add_post("/control", self._control)
        for call in self.provider.calls():
            app.router.add_route(call.method, call.path, self._handler(call))
        app.router.add_route("*", "/{path:.*}", self._handler(Call("*", "", "unknown", self._nothing_there)))
        return app

    def _check(self, faults: list[str]) -> None:
        if unknown := sorted(set(faults) - self.known):
            raise ValueError(f"No fault named {unknown[0]!r}. Known: {', '.join(sorted(self.known))}.")

    async def _control(self, request: web.Request) -> web.Response:
        """{"all": fault, "after": n} | {"off": true} | {"refuse_s": seconds} | {"ops": {op: [faults]}}."""
        told: Mapping[str, Any] = await request.json()
        try:
            self._check(
                [*([told["all"]] if "all" in told else []), *itertools.chain(*told.get("ops", {}).values())]
            )
        except ValueError as error:
            return web.Response(status=400, text=str(error))
        if told.get("off"):
            self.rulings.all_fault = None
        if "all" in told:
            self.rulings.all_fault, self.rulings.after = told["all"], told.get("after", 0)
        self.rulings.ops.update({op: list(faults) for op, faults in told.get("ops", {}).items()})
        if "refuse_s" in told:
            # after this answer has gone out
            asyncio.get_running_loop().call_later(0.02, self.refuse, float(told["refuse_s"]))
        return web.json_response({"requests": self._in_flight})

    def _nothing_there(self, request: web.Request, body: bytes) -> Canned:
        return self.provider.error("404", request.path) or Canned(404, b"{}")

    def _handler(self, call: Call) -> Callable[[web.Request], Any]:
        if call.op == ASK and self._script.fast:
            return self._fast

        async def handle(request: web.Request) -> web.StreamResponse:
            visit = Visit(next(self._numbers), call, time.time())
            self._in_flight += 1
            try:
                visit.body = await request.read()
                self._rule(visit, request)
                self._log.write(
                    event="arrived", **visit.line(), bytes=len(visit.body), in_flight=self._in_flight,
                    connections=self.connections(), key_sha256=self._key_sha256(request), t=visit.arrived,
                )  # fmt: skip
                return await self._answered(visit, request)
            finally:
                self._in_flight -= 1
                self._log.write(
                    event="done", **visit.line(), status=visit.status, answered=visit.answered,
                    in_flight=self._in_flight, t=time.time(),
                )  # fmt: skip

        return handle

    def _rule(self, visit: Visit, request: web.Request) -> None:
        """Read the question, and say what becomes of the request."""
        if visit.call.op != ASK:
            visit.fault = self.rulings.of_call(visit.call.op, visit.number)
        else:
            try:
                question = visit.question = self.provider.question(request, visit.body)
            except (ValueError, KeyError, TypeError):
                visit.fault = "bad_parameter"
                return
            visit.fault, visit.attempt = self.rulings.of_question(question.item, question.text, visit.number)
            if self._script.models and question.model not in self._script.models:
                visit.fault = "404"
            elif visit.fault == OK and self._bucket and (delay_s := self._bucket.take()):
                visit.fault, visit.delay_s = OVER_RATE, delay_s
        # the address of an upload's session is a secret of its own
        keyed = self._script.key is not None and visit.call.op != "upload_bytes"
        if keyed and self.provider.key(request) != self._script.key:
            visit.fault = "401"

    async def _answered(self, visit: Visit, request: web.Request) -> web.StreamResponse:
        answer = self._canned(visit, request)
        if answer.status != 429 and visit.call.op == ASK:
            await asyncio.sleep(self._script.latency(self._draw))
        try:
            sent = await deliver(request, answer, visit.fault)
        except ConnectionError:  # the client is gone
            return web.Response()
        visit.status, visit.answered = sent.status, sent.whole and answer.final
        return sent.response

    def _canned(self, visit: Visit, request: web.Request) -> Canned:
        provider, fault, question = self.provider, visit.fault, visit.question
        if fault == OVER_RATE:
            return provider.too_many(visit.delay_s)
        if fault in _NEVER_DONE:
            return Canned(200, b"{}")
        if found := BODIES.get(fault) or provider.error(fault, question.model if question else ""):
            return found
        if visit.call.handle is not None:
            return visit.call.handle(request, visit.body)
        assert question is not None, "a question that cannot be read is ruled bad_parameter"
        return provider.answer(question, fault)

    def _key_sha256(self, request: web.Request) -> str | None:
        key = self.provider.key(request)
        return hashlib.sha256(key.encode()).hexdigest() if key else None

    async def _fast(self, request: web.Request) -> web.StreamResponse:
        """A question that nobody reads: its body is drained and thrown away."""
        visit, size = Visit(next(self._numbers), Call("POST", "", ASK), time.time()), 0
        self._in_flight += 1
        try:
            async for piece in request.content.iter_any():
                size += len(piece)
            self._log.write(
                event="arrived", **visit.line(), bytes=size, in_flight=self._in_flight,
                connections=self.connections(), t=visit.arrived,
            )  # fmt: skip
            await asyncio.sleep(self._script.latency(self._draw))
            sent = await deliver(request, self._fast_answer, OK)
            visit.status, visit.answered = sent.status, sent.whole
            return sent.response
        finally:
            self._in_flight -= 1
            self._log.write(
                event="done", **visit.line(), status=visit.status, answered=visit.answered,
                in_flight=self._in_flight, t=time.time(),
            )  # fmt: skip

    @cached_property
    def _fast_answer(self) -> Canned:
        model = self._script.models[0] if self._script.models else "loopback"
        return self.provider.answer(Question("", b"", model), OK)
