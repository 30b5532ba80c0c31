"""Files from the web by URL and sha256: concurrent, polite to each host, and what became of every one."""

import asyncio
import errno
import hashlib
import itertools
import os
import random
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from evalkit import __version__
from evalkit.datasets.addresses import PrivateAddress, check_address
from evalkit.datasets.pictures import NotAPicture, looks_like_a_picture
from evalkit.errors import DataError

if TYPE_CHECKING:
    import aiohttp
    import tenacity

Outcome = Literal[
    "ok", "changed", "http_status", "timeout", "unreachable", "refused", "too_large",
    "not_an_image", "too_many_pixels", "truncated",
]  # fmt: skip
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

_CHUNK = 1 << 16
_AHEAD = 4096  # how many downloads are begun or wait for their host at once
_PASSING_STATUS = frozenset((408, 425, 429, 500, 502, 503, 504))
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file: where it was, and the sha256 (lower-case hex) of the bytes it had."""

    url: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one URL. attempts is 0 for a file that was there already."""

    wanted: Wanted
    outcome: Outcome
    detail: str | None = None
    http_status: int | None = None
    n_bytes: int | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """jobs: requests at once; per_host: of these to one host; timeout_s: for a whole request, however it drips."""

    jobs: int = 16
    per_host: int = 2
    timeout_s: float = 60.0
    connect_timeout_s: float = 15.0
    max_bytes: int = 64 << 20
    attempts: int = 3
    first_wait_s: float = 1.0
    max_wait_s: float = 30.0
    max_redirects: int = 5


class _Ended(Exception):
    """A fetch that failed; passing: another attempt may mend it, after `wait_s` where the server says so."""

    def __init__(
        self,
        outcome: Outcome,
        detail: str,
        *,
        status: int | None = None,
        passing: bool = False,
        wait_s: float = 0.0,
    ) -> None:
        super().__init__(detail)
        self.outcome, self.detail, self.status, self.passing, self.wait_s = (
            outcome,
            detail,
            status,
            passing,
            wait_s,
        )


class Fetcher:
    """Fetches into `folder`, where a file is named by its sha256: what has another hash is never stored."""

    def __init__(
        self,
        folder: Path,
        limits: FetchLimits,
        allow_private: bool | Collection[str] = False,
        inspect: Callable[[str, Path], object] = lambda sha256, path: None,
    ) -> None:
        """inspect: looks at each file that is there, in a thread; it raises NotAPicture for a useless one."""
        self._inspect = inspect
        self._folder, self._limits, self._allow_private = folder, limits, allow_private
        self._numbers = itertools.count()
        self._hosts: defaultdict[str, asyncio.Semaphore]
        self._slots: asyncio.Semaphore

    def path(self, sha256: str) -> Path:
        """Where the file of that hash lies once it is fetched."""
        return self._folder / sha256[:2] / sha256

    def fetch(self, wanted: Iterator[Wanted | None]) -> Iterator[Fate]:
        """Yields the fate of each, in the order they end. Draws more after every fate that was handled.

        `wanted` may yield None: nothing for now, ask again after the next fate. Raises DataError where the
        folder cannot be written; a URL's own failure is its fate.
        """
        self._sweep()
        with asyncio.Runner() as runner:
            session = runner.run(self._session())
            self._hosts = defaultdict(lambda: asyncio.Semaphore(self._limits.per_host))
            self._slots = asyncio.Semaphore(self._limits.jobs)
            tasks: set[asyncio.Task[Fate]] = set()
            ended: asyncio.Queue[asyncio.Task[Fate]] = asyncio.Queue()
            try:
                while True:
                    for item in itertools.islice(wanted, _AHEAD - len(tasks)):
                        if item is None:
                            break
                        task = runner.get_loop().create_task(self._one(session, item))
                        task.add_done_callback(ended.put_nowait)
                        tasks.add(task)
                    if not tasks:
                        return
                    task = runner.run(ended.get())
                    tasks.discard(task)
                    yield task.result()
            finally:
                runner.run(_close(tasks, session))

    def _sweep(self) -> None:
        """Remove the unfinished files of killed runs; a young one may be another's."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for part in self._folder.glob(".part-*"):
                if time.time() - part.stat().st_mtime > 3600:
                    part.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{self._folder}: cannot be written ({error.strerror}).") from None

    async def _session(self) -> "aiohttp.ClientSession":
        import aiohttp

        def public_socket(address: Any) -> socket.socket:
            """Sees the address of every connection: of redirects, and whatever a name resolves to this time."""
            family, kind, protocol, _, (host, port, *_) = address
            check_address(host, port, self._allow_private)
            return socket.socket(family, kind, protocol)

        limits = self._limits
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, socket_factory=public_socket),
            timeout=aiohttp.ClientTimeout(total=limits.timeout_s, sock_connect=limits.connect_timeout_s),
            headers={
                "User-Agent": f"evalkit/{__version__} (research data set preparation)",
                "Accept": "image/*,*/*;q=0.5",
                "Accept-Encoding": "identity",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def _one(self, session: "aiohttp.ClientSession", wanted: Wanted) -> Fate:
        fate = await self._fetched(session, wanted)
        if fate.outcome == "ok":
            try:
                await asyncio.to_thread(self._inspect, wanted.sha256, self.path(wanted.sha256))
            except NotAPicture as error:
                return replace(fate, outcome=error.fault, detail=str(error))
        return fate

    async def _fetched(self, session: "aiohttp.ClientSession", wanted: Wanted) -> Fate:
        place = self.path(wanted.sha256)
        if await asyncio.to_thread(_has, place, wanted.sha256):
            return Fate(wanted, "ok", n_bytes=place.stat().st_size)
        host = wanted.url.split("/")[2].rpartition("@")[2].lower() if wanted.url.count("/") > 1 else ""
        attempts = 0

        async def attempt() -> int:
            nonlocal attempts
            # the host's turn first: waiting for a slow host takes no slot from the others
            async with self._hosts[host], self._slots:
                attempts += 1
                return await self._get(session, wanted, place)

        try:
            size: int = await _again(self._limits)(attempt)
        except _Ended as end:
            return Fate(wanted, end.outcome, end.detail, end.status, attempts=attempts)
        return Fate(wanted, "ok", http_status=200, n_bytes=size, attempts=attempts)

    async def _get(self, session: "aiohttp.ClientSession", wanted: Wanted, place: Path) -> int:
        """One attempt; returns the size in bytes of what was stored. Raises _Ended."""
        import aiohttp

        try:
            async with session.get(wanted.url, max_redirects=self._limits.max_redirects) as response:
                if response.status != 200:
                    wait_s = _seconds(response.headers.get("Retry-After"))
                    passing = response.status in _PASSING_STATUS and wait_s <= self._limits.max_wait_s
                    raise _Ended(
                        "http_status", f"HTTP {response.status}", status=response.status, passing=passing, wait_s=wait_s
                    )  # fmt: skip
                return await self._store(response, wanted, place)
        except TimeoutError:
            raise _Ended("timeout", f"not done in {self._limits.timeout_s:g} s", passing=True) from None
        except aiohttp.TooManyRedirects:
            raise _Ended("refused", f"more than {self._limits.max_redirects} redirects") from None
        except (
            aiohttp.InvalidURL,
            aiohttp.NonHttpUrlClientError,
        ):  # a redirect to another scheme than http and https too
            raise _Ended("refused", "no address that can be fetched by http or https") from None
        except (aiohttp.ClientError, ConnectionError, UnicodeError, ValueError) as error:
            if private := _private(error):
                raise _Ended("refused", str(private)) from None
            passing = isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError)
            raise _Ended("unreachable", _words(error), passing=passing) from None

    async def _store(self, response: "aiohttp.ClientResponse", wanted: Wanted, place: Path) -> int:
        most = self._limits.max_bytes
        if (response.content_length or 0) > most:
            raise _Ended("too_large", f"{response.content_length} bytes announced, more than {most}")
        part = self._folder / f".part-{os.getpid()}-{next(self._numbers)}"
        digest, head = hashlib.sha256(), b""
        size = 0
        try:
            with part.open("wb") as file:
                async for chunk in response.content.iter_chunked(_CHUNK):
                    head = head or chunk[:16]
                    size += len(chunk)
                    if size > most:
                        raise _Ended("too_large", f"more than {most} bytes")
                    digest.update(chunk)
                    file.write(chunk)
                if digest.hexdigest() != wanted.sha256:
                    raise _other(head, digest.hexdigest(), response.status)
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
            place.parent.mkdir(exist_ok=True)
            part.rename(place)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise DataError(f"{self._folder}: cannot be written ({error.strerror}).") from None
            raise
        finally:
            part.unlink(missing_ok=True)
        return size


def _other(head: bytes, sha256: str, status: int) -> _Ended:
    if looks_like_a_picture(head):
        return _Ended("changed", f"other bytes than were recorded, sha256 {sha256}", status=status)
    return _Ended("not_an_image", f"no picture any more, sha256 {sha256}", status=status)


def _has(place: Path, sha256: str) -> bool:
    """Whether the file is there and whole; a damaged one is fetched again."""
    try:
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _again(limits: FetchLimits) -> "tenacity.AsyncRetrying":
    """Passing faults again, with a doubled and jittered wait, or the one that the server asks for."""
    import tenacity

    def wait(state: "tenacity.RetryCallState") -> float:
        assert state.outcome is not None
        end = state.outcome.exception()
        doubled = limits.first_wait_s * 2.0 ** (state.attempt_number - 1) * random.uniform(0.5, 1.5)
        asked = end.wait_s if isinstance(end, _Ended) else 0.0
        return min(max(doubled, asked), limits.max_wait_s)

    return tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(limits.attempts),
        wait=wait,
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, _Ended) and error.passing),
        reraise=True,
    )


def _seconds(text: str | None) -> float:
    """Retry-After in seconds; a date, or anything else, says nothing here."""
    return float(text) if text and text.isascii() and text.isdecimal() and len(text) < 10 else 0.0


def _private(error: BaseException | None) -> PrivateAddress | None:
    """The refused address behind a connection's error, which the client wraps."""
    seen: list[BaseException] = []
    todo = [error]
    while todo:
        one = todo.pop()
        if isinstance(one, PrivateAddress):
            return one
        if one is not None and one not in seen:
            seen.append(one)
            todo += [one.__cause__, one.__context__, getattr(one, "os_error", None)]
            todo += getattr(one, "exceptions", ())
    return None


def _words(error: BaseException) -> str:
    """One printable line: part of it may be the server's."""
    line = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {''.join(c if c.isprintable() else '?' for c in line)}"


async def _close(tasks: set["asyncio.Task[Fate]"], session: "aiohttp.ClientSession") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await session.close()
