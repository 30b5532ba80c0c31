"""`evalkit view` over real sockets: only this folder, only reading, only for this machine's own name."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import pytest
from support import cli

from evalkit.errors import StoreError
from evalkit.serving import Server


@pytest.fixture
def folder(tmp_path):
    results = tmp_path / "results"
    (results / "leaderboard").mkdir(parents=True)
    (results / "leaderboard/leaderboard.html").write_text("<!doctype html><title>board</title>")
    (results / "runs/m/r").mkdir(parents=True)
    (results / "runs/m/r/rows.jsonl").write_text('{"reply": "<script>alert(1)</script>"}\n')
    (results / "runs/m/r/.lock").write_text("1")
    (results / "a b").mkdir()
    (results / "a b/ü%41.png").write_bytes(b"png")
    (results / "page.svg").write_text("<svg/>")
    (tmp_path / "secret").write_text("secret")
    (results / "out").symlink_to(tmp_path / "secret")
    (results / "up").symlink_to(tmp_path)
    (results / "inside.json").symlink_to(results / "page.svg")
    (results / "hidden.txt").symlink_to(results / "runs/m/r/.lock")
    os.mkfifo(results / "pipe.html")
    return results


@pytest.fixture
def server(folder):
    with Server(folder) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join(5)


def ask(server, target, method="GET", **headers):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)) as line:
        line.putrequest(method, target, skip_host="Host" in headers)
        for name, value in headers.items():
            line.putheader(name.replace("_", "-"), value)
        line.endheaders()
        answer = line.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def raw(server, text):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as line:
        line.sendall(text)
        line.shutdown(socket.SHUT_WR)
        found = b""
        while chunk := line.recv(65536):
            found += chunk
        return found


def test_files_and_their_headers(server):
    status, headers, body = ask(server, "/leaderboard/leaderboard.html?x=1")
    assert (status, body) == (200, b"<!doctype html><title>board</title>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Content-Security-Policy" not in headers, "pages have their own"
    for target, kind in (
        ("/runs/m/r/rows.jsonl", "text/plain; charset=utf-8"),
        ("/page.svg", "image/svg+xml"),
    ):
        status, headers, _ = ask(server, target)
        assert (status, headers["Content-Type"]) == (200, kind)
        assert "sandbox" in headers["Content-Security-Policy"]
    assert ask(server, "/a%20b/" + urllib.parse.quote("ü%41.png"))[0] == 200
    assert ask(server, "/inside.json")[0] == 200, "a link that stays inside"


def test_not_modified(server):
    _, headers, _ = ask(server, "/page.svg")
    status, _, body = ask(server, "/page.svg", If_None_Match=headers["ETag"])
    assert (status, body) == (304, b"")
    (server.folder / "page.svg").write_text("<svg></svg>")
    assert ask(server, "/page.svg", If_None_Match=headers["ETag"])[0] == 200


def test_head_has_no_body(server):
    status, headers, body = ask(server, "/page.svg", method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, "6", b"")


@pytest.mark.parametrize(
    "target",
    [
        "/../secret", "/%2e%2e/secret", "/leaderboard/%2e%2e/%2e%2e/secret", "/..%2fsecret", "/..%5csecret", "/out", "/up/secret",
        "/up/results/page.svg/../../secret", "//secret", "/./page.svg", "/runs/m/r/.lock", "/hidden.txt", "/runs", "/runs/", "/",
        "/page.svg%00.html", "/page.svg/", "/nothing", "/%ff%fe", "/" + "a" * 5_000, "/" + "a/" * 3_000, "/pipe.html",
        "http://127.0.0.1/page.svg/../../secret", "*", "/leaderboard//leaderboard.html", "/page.svg%0d%0aX:%20y", "/[::1",
    ],
)  # fmt: skip
def test_nothing_else_is_served(server, target):
    status, _, body = ask(server, target)
    assert status in (404, 421)
    assert b"secret" not in body.replace(target.encode(), b"")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", "", "localhost.evil.example"]
)
def test_other_names_for_us_are_refused(server, host):
    status, _, body = ask(server, "/page.svg", Host=host)
    assert status == 421
    assert b"svg" not in body


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"]
)
def test_only_reading(server, method):
    status, headers, _ = ask(server, "/page.svg", method=method, Content_Length="0")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\r\n\r\n", b"GET\r\n\r\n", b"GET /page.svg\r\n\r\n", b"\x00\xff\xfe\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
        b"GET " + b"/" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"GET /page.svg HTTP/1.1\r\n" + b"X: y\r\n" * 300 + b"\r\n",
        b"GET /../secret HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /page.svg HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ],
)  # fmt: skip
def test_malformed_requests_do_no_harm(server, text):
    assert b"<svg" not in raw(server, text)
    assert ask(server, "/page.svg")[0] == 200


def test_a_hanging_client_holds_nobody_up(server):
    with socket.create_connection(("127.0.0.1", server.server_port)) as hanging:
        hanging.sendall(b"GET /page")
        assert ask(server, "/page.svg")[0] == 200
        start = time.monotonic()
        server.shutdown()
        assert time.monotonic() - start < 2


def test_only_loopback(server):
    assert server.server_address[0] == "127.0.0.1"


def test_a_taken_port_is_one_line(server, folder):
    with pytest.raises(StoreError, match=f"Port {server.server_port} of 127.0.0.1 cannot be had"):
        Server(folder, server.server_port)


def test_without_a_leaderboard(tmp_path):
    result = cli("view", tmp_path)
    assert result.exit_code == 1
    assert f"evalkit leaderboard --results {tmp_path}" in result.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_until_it_is_stopped(folder, number):
    words = [sys.executable, "-m", "evalkit", "view", str(folder), "--no-browser"]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root
    ) as running:
        watch = threading.Timer(30, running.kill)  # leaving the block waits for it, whatever happens in it
        watch.start()
        address = running.stdout.readline().strip()
        parts = urllib.parse.urlsplit(address)
        assert (parts.hostname, parts.path) == ("127.0.0.1", "/leaderboard/leaderboard.html")
        with contextlib.closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)) as line:
            line.request("GET", parts.path)
            assert line.getresponse().status == 200
        running.send_signal(number)
        assert running.wait(10) == 0
        watch.cancel()
        assert "Traceback" not in running.stderr.read()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", parts.port))
