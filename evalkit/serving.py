"""A results folder on loopback, to be looked at: read-only, and nothing outside of the folder."""

import contextlib
import os
import stat
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from evalkit import __version__
from evalkit.errors import StoreError

_TEXT = "text/plain; charset=utf-8"
# By a table of our own: what the operating system believes of an ending may be anything.
_TYPES = {
    ".html": "text/html; charset=utf-8", ".json": "application/json; charset=utf-8", ".jsonl": _TEXT, ".md": _TEXT,
    ".csv": _TEXT, ".tex": _TEXT, ".log": _TEXT, ".txt": _TEXT, ".png": "image/png", ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif", ".svg": "image/svg+xml",
    ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".pdf": "application/pdf",
}  # fmt: skip
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",
}
# Pages bring a policy of their own; nothing else that is opened may run or load anything.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
_TIMEOUT_S = 15
_CHUNK = 1 << 16


class Server(ThreadingHTTPServer):
    """Serves `folder` on 127.0.0.1. `report`, if any, gets a line a request."""

    daemon_threads = True
    block_on_close = False  # a client that hangs must not keep us from ending

    def __init__(self, folder: Path, port: int = 0, report: Callable[[str], None] | None = None) -> None:
        """port 0: any that is free. Raises StoreError in one line."""
        self.folder, self.report = folder.resolve(), report
        if not self.folder.is_dir():
            raise StoreError(f"{folder}: no such folder.")
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise StoreError(
                f"Port {port} of 127.0.0.1 cannot be had ({error.strerror}): choose another."
            ) from None
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no event."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = f"evalkit/{__version__}"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):  # every other method there may be
            return self._refuse_method
        raise AttributeError(name)

    def _refuse_method(self) -> None:
        self.close_connection = True  # a body that may follow is not read
        self._fail(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})

    def _answer(self, body: bool) -> None:
        if self.headers.get("Host", "") not in self.server.hosts:
            self._fail(
                HTTPStatus.MISDIRECTED_REQUEST
            )  # another name for us: a page elsewhere that would read here
            return
        path = find(self.server.folder, self.path)
        if path is None:
            self._fail(HTTPStatus.NOT_FOUND)
            return
        try:
            # what is opened is what was found: a link put there since then is not followed
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            self._fail(HTTPStatus.NOT_FOUND)
            return
        with os.fdopen(fd, "rb") as file:
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode):
                self._fail(HTTPStatus.NOT_FOUND)
                return
            self._send(file, facts, path, body)

    def _send(self, file: Any, facts: os.stat_result, path: Path, body: bool) -> None:
        tag = f'W/"{facts.st_mtime_ns:x}-{facts.st_size:x}"'
        if tag in (self.headers.get("If-None-Match") or ""):
            self._head(HTTPStatus.NOT_MODIFIED, {"ETag": tag})
            return
        kind = _TYPES.get(path.suffix.lower(), "application/octet-stream")
        headers = {"Content-Type": kind, "Content-Length": str(facts.st_size), "ETag": tag}
        headers["Last-Modified"] = formatdate(facts.st_mtime, usegmt=True)
        if path.suffix.lower() != ".html":
            headers["Content-Security-Policy"] = _POLICY
        self._head(HTTPStatus.OK, headers)
        left = facts.st_size if body else 0
        while left > 0:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:  # it was cut while we read
                self.close_connection = True
                return
            self.wfile.write(chunk)
            left -= len(chunk)

    def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (_HEADERS | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def _fail(self, status: HTTPStatus, headers: dict[str, str] | None = None) -> None:
        text = f"{status.value} {status.phrase}\n".encode()
        self._head(status, {"Content-Type": _TEXT, "Content-Length": str(len(text)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        if self.server.report is not None:
            self.server.report(format % args)


def find(folder: Path, target: str) -> Path | None:
    """The regular file below `folder` (resolved) that a request's target names; None of anything else.

    Links are followed as long as they stay below the folder; hidden names are not served.
    """
    try:
        name = unquote_to_bytes(urlsplit(target).path).decode("utf-8")
    except ValueError:
        return None
    parts = name.split("/")[1:]
    if (
        not name.startswith("/")
        or "\\" in name
        or any(not p.isprintable() or p.startswith(".") for p in parts)
    ):
        return None  # fmt: skip
    if parts and parts[-1] == "":
        parts[-1] = "index.html"
    if "" in parts:
        return None
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        path = folder.joinpath(*parts).resolve(strict=True)
        below = path.is_relative_to(folder)
        shown = not any(part.startswith(".") for part in path.relative_to(folder).parts) if below else False
        if shown and path.is_file():
            return path
    return None
