"""Servers that run: in a thread of a test, or as a process of their own."""

import asyncio
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from .core import Core, Provider
from .gemini_server import GeminiProvider
from .log import LogWriter, RequestLog
from .openai_server import OpenAIProvider
from .script import Script, script_to_json

_ROOT = Path(__file__).resolve().parents[2]
PROVIDERS: Mapping[str, Callable[[Script, LogWriter], Provider]] = {
    "openai": OpenAIProvider,
    "gemini": GeminiProvider,
}


class Listener:
    """A core that listens on 127.0.0.1; stops listening for a while when it is told to."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, port: int = 0) -> int:
        """Returns the port, a free one for 0."""
        # a client that hangs up ends what is done for it
        self._runner = web.AppRunner(
            self._core.app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        self._core.connections = lambda: len(self._runner.server.connections)
        self._core.refuse = self._refuse
        return await self._listen(port)

    async def _listen(self, port: int) -> int:
        self._server = await asyncio.get_running_loop().create_server(
            self._runner.server, "127.0.0.1", port, backlog=1024
        )
        return int(self._server.sockets[0].getsockname()[1])

    def _refuse(self, seconds: float) -> None:
        """Close the door and all connections; the same port opens again after that."""
        port = self._server.sockets[0].getsockname()[1]
        self._server.close()
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()

        async def reopen() -> None:
            await asyncio.sleep(seconds)
            await self._listen(port)

        task = asyncio.get_running_loop().create_task(reopen())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._server.close()
        await self._runner.cleanup()


class _Controlled:
    """A server's address, its log and its switches."""

    url: str = ""  # while it runs

    def __init__(self, log_path: Path) -> None:
        self._log = RequestLog(log_path)

    @property
    def log(self) -> RequestLog:
        """The log, with the end of every answer that a client may have by now."""
        if self.url:
            with suppress(OSError):  # a door that is closed for a while
                self.control()
        return self._log

    def control(self, **told: Any) -> None:
        """See Core: all=, after=, off=, refuse_s=, ops=. Raises urllib's HTTPError for an unknown fault."""
        request = urllib.request.Request(
            f"{self.url}/control", json.dumps(told).encode(), {"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(request, timeout=10).close()


class ApiServer(_Controlled):
    """A provider ("openai" | "gemini") in a thread, on a free port of 127.0.0.1, while a `with` block lasts.

    url has no path: OpenAI's clients want url + "/v1", Gemini's the url itself. Raises ValueError at once
    for a fault that the provider does not know.
    """

    def __init__(self, provider: str, script: Script, log_path: Path) -> None:
        super().__init__(log_path)
        self._writer = LogWriter(log_path)
        try:
            self.core = Core(PROVIDERS[provider](script, self._writer), script, self._writer)
        except ValueError:
            self._writer.close()
            raise
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"{provider}-server", daemon=True)
        self._listener = Listener(self.core)

    def __enter__(self) -> Self:
        self._thread.start()
        port = asyncio.run_coroutine_threadsafe(self._listener.open(), self._loop).result(10)
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *exception: object) -> None:
        self.url = ""
        asyncio.run_coroutine_threadsafe(self._listener.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._writer.close()


class ServerProcess(_Controlled):
    """The same as a process of its own, which ends with this one, even when this one is killed."""

    def __init__(self, provider: str, script: Script, log_path: Path) -> None:
        super().__init__(log_path)
        self._config = log_path.with_suffix(".config.json")
        self._config.write_text(json.dumps(script_to_json(script)), encoding="utf-8")
        self._words = [
            *(sys.executable, "-m", "tests.api_servers", provider, "--log", str(log_path.resolve())),
            *("--config", str(self._config.resolve()), "--until-eof"),
        ]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._words, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError(f"The server did not start: {' '.join(self._words)}")
        self.pid = self._process.pid
        return self

    def __exit__(self, *exception: object) -> None:
        self.url = ""
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()
