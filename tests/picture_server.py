"""A loopback server of pictures, good ones and every kind of bad one; its log is the witness of what was asked.

    /ok/12.jpg          picture 12; what it shows depends on its number alone
    /404/12.jpg         and so on: the first part of the path is what is wrong with it, see HAZARDS

Run as a process: python -m picture_server --log FILE [--latency-ms 5]; it prints its port.
"""

import argparse
import asyncio
import functools
import hashlib
import io
import json
import struct
import threading
import time
import zlib
from pathlib import Path

from aiohttp import web
from PIL import Image

# What is wrong -> the outcome that a fetch should record.
HAZARDS = {
    "404": "http_status",
    "410": "http_status",
    "500": "http_status",
    "changed": "changed",
    "drip": "timeout",
    "hang": "timeout",
    "inside": "refused",  # a redirect to another port of this machine
    "file": "refused",
    "ftp": "refused",
    "loop": "refused",
    "bomb": "too_many_pixels",
    "html": "not_an_image",
    "empty": "not_an_image",
    "torn": "truncated",
    "endless": "too_large",
    "announced": "too_large",
    "short": "unreachable",  # less than was announced
}
MENDED = ("503-once", "hop")  # come out well in the end


@functools.cache
def picture(index):
    """A JPEG of 64 x 48 in a colour of its own."""
    colour = (index * 37 % 256, index * 91 % 256, index // 7 % 256)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(buffer, "JPEG", comment=f"picture {index}".encode())
    return buffer.getvalue()


@functools.cache
def bomb():
    """A PNG of 20,000 x 15,000 pixels in some 40 kB."""
    width, height = 20_000, 15_000
    rows = zlib.compress(bytes((1 + width // 8) * height), 9)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def recorded(kind, index):
    """The bytes that the data set's authors saw: a torn file was torn for them too, a bomb a bomb."""
    if kind == "bomb":
        return bomb() + str(index).encode()
    return picture(index)[:-200] if kind == "torn" else picture(index)


def sha256(kind, index):
    return hashlib.sha256(recorded(kind, index)).hexdigest()


class PictureServer:
    """Serves on 127.0.0.1 from a thread. `log` has (path, status, finished) of every answer, in order."""

    def __init__(self, latency_s=0.0, log_file=None):
        self.latency_s, self.log, self.log_file = latency_s, [], log_file
        self.open, self.most_open = 0, 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def paths(self, status=None):
        return [path for path, found, _ in self.log if status is None or found == status]

    def _serve(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self):
        self._stop = asyncio.Event()
        app = web.Application()
        app.router.add_get("/{kind}/{index}.jpg", self._answer)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _answer(self, request):
        kind, index = request.match_info["kind"], int(request.match_info["index"])
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        status, finished = 0, False
        try:
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            response = await self._response(request, kind, index)
            status = response.status
            if not response.prepared:
                await response.prepare(request)
                await response.write_eof()
            finished = True
            return response
        finally:
            self.open -= 1
            self._note(request.path, status, finished)

    def _note(self, path, status, finished):
        self.log.append((path, status, finished))
        if self.log_file:
            self.log_file.write(json.dumps([path, status, finished, time.time()]) + "\n")
            self.log_file.flush()

    async def _response(self, request, kind, index):
        jpeg = {"Content-Type": "image/jpeg"}
        if kind in ("404", "410", "500"):
            return web.Response(status=int(kind), text="<h1>gone</h1>")
        if kind == "503-once" and request.path not in self.paths():
            return web.Response(status=503, headers={"Retry-After": "0"})
        if kind in ("hop", "inside", "file", "ftp", "loop"):
            goal = {
                "hop": f"/ok/{index}.jpg",
                "inside": "http://127.0.0.1:9/latest/meta-data",
                "file": "file:///etc/passwd",
                "ftp": "ftp://127.0.0.1/x.jpg",
                "loop": request.path,
            }[kind]
            return web.Response(status=302, headers={"Location": goal})
        if kind in ("drip", "hang", "endless", "announced", "short"):
            return await self._stream(request, kind, jpeg)
        body = {
            "changed": picture(index + 1_000_000),
            "html": b"<!doctype html><title>Image not found</title>",
            "empty": b"",
        }.get(kind)
        return web.Response(body=recorded(kind, index) if body is None else body, headers=jpeg)

    async def _stream(self, request, kind, headers):
        if kind == "hang":
            await asyncio.sleep(60)
        response = web.StreamResponse(headers=headers)
        if kind in ("announced", "short"):
            response.content_length = {"announced": 10**12, "short": 10_000}[kind]
        await response.prepare(request)
        if kind == "short":
            await response.write(b"\xff\xd8\xff")
            request.transport.close()
        while kind != "short":
            await response.write(bytes(1 if kind == "drip" else 1 << 20))
            await asyncio.sleep(0.05 if kind == "drip" else 0)
        return response


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--log", type=Path, required=True)
    options.add_argument("--latency-ms", type=float, default=0.0)
    chosen = options.parse_args()
    with chosen.log.open("a") as log, PictureServer(chosen.latency_ms / 1000, log) as server:
        print(server.port, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
