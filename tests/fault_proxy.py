"""An HTTP proxy before a server on loopback that fails on demand: drops, cuts, refuses, stalls, answers 503 or 403."""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What a rule may ask for:
#   refuse   the connection ends before the server sees the request
#   lose     the server does what it was asked, and its answer is lost
#   cut      the answer ends in its middle
#   stall    no answer, until the proxy is told otherwise
#   503, 403 an error of S3, without asking the server
FAULTS = ("refuse", "lose", "cut", "stall", "503", "403")
Rule = Callable[[str, str], str | None]

_CODES = {"503": ("Service Unavailable", "SlowDownNot"), "403": ("Forbidden", "AccessDenied")}


class FaultProxy:
    """`url` forwards to the server; `rule(method, path)` names a fault, or None. `seen` has what was asked."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.rule: Rule = lambda method, path: None
        self.seen: list[tuple[str, str]] = []
        self.failed = 0
        self.conditions = True  # False: as servers that take no notice of If-Match and If-None-Match
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def fail(self, fault: str | None, *methods: str) -> None:
        """From now on every request (of these methods) ends in this fault; None: all is well."""
        self.rule = lambda method, path: fault if not methods or method in methods else None

    def asked(self, method: str, part: str = "") -> list[str]:
        return [path for found, path in self.seen if found == method and part in path]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    proxy: FaultProxy

    def handle_error(self, request, client_address):
        """A client that went away is no event."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def _forward(self) -> None:
        proxy = self.server.proxy
        fault = proxy.rule(self.command, self.path)
        proxy.seen.append((self.command, self.path))
        proxy.failed += fault is not None
        if fault == "refuse":
            return self._hang_up()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault == "stall":
            while proxy.rule(self.command, self.path) == "stall":
                time.sleep(0.02)
            return self._hang_up()
        if fault in _CODES:
            return self._refuse(fault)
        status, headers, content = self._ask(body)
        if fault == "lose":
            return self._hang_up()
        self._answer(status, headers, content, cut=fault == "cut" and len(content) > 1)
        return None

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _forward

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.proxy.port, timeout=30)
        try:
            left_out = ["expect", "connection"]
            if not self.server.proxy.conditions:
                left_out += ["if-match", "if-none-match"]
            headers = {k: v for k, v in self.headers.items() if k.lower() not in left_out}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, cut: bool) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = next((v for k, v in headers if k.lower() == "content-length"), str(len(content)))
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)

    def _refuse(self, fault: str) -> None:
        reason, code = _CODES[fault]
        content = (
            f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{reason}</Message></Error>".encode()
        )
        self._answer(int(fault), [("Content-Type", "application/xml")], content, cut=False)

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format, *args):
        """Silent."""
