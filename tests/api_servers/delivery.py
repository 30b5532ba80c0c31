"""How an answer goes over the wire: whole, in pieces, cut off, or never."""

import asyncio
import socket
import struct
from dataclasses import dataclass, field

from aiohttp import web

JSON = "application/json"
_PIECE_S = 0.1  # a trickling server sends one byte each


@dataclass(frozen=True)
class Canned:
    """An HTTP answer. final: the client may take it as the answer to its question, for better or worse."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = JSON
    final: bool = False


@dataclass(frozen=True)
class Delivered:
    """status: what went out, None where the line broke first; whole: to the last byte."""

    response: web.StreamResponse
    status: int | None
    whole: bool


def html(status: int, title: str) -> Canned:
    """What a proxy in front of an API says."""
    page = (
        f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>\r\n"
    )
    return Canned(status, page.encode(), content_type="text/html")


# Answers that are none, alike for all providers.
BODIES: dict[str, Canned] = {
    "bad_json": Canned(200, b'{"id": "x", "choices": [{"ind'),
    "html_200": html(200, "Sign in to the network"),
    "empty_body": Canned(200, b""),
}
# What happens on the line to an answer that is good; `reset_before_headers` before anything is done for
# the request, `lost_answer` after it. Only gzip and chunked arrive.
LINE = ("reset_before_headers", "lost_answer", "reset_mid_body", "slow", "trickle", "gzip", "chunked")


async def deliver(request: web.Request, answer: Canned, how: str) -> Delivered:
    """Send it the way that `how` says: one of LINE, or anything else for whole."""
    if how == "slow":
        await asyncio.sleep(86_400)  # until the client hangs up
    if how in ("reset_before_headers", "lost_answer"):
        reset(request)
        return Delivered(web.Response(), None, False)
    if how in ("reset_mid_body", "trickle"):
        return await _in_part(request, answer, how)
    if how == "chunked":
        return await _in_chunks(request, answer)
    response = web.Response(
        status=answer.status, body=answer.body, headers=answer.headers, content_type=answer.content_type
    )
    if how == "gzip":
        response.enable_compression(web.ContentCoding.gzip)
    await response.prepare(request)
    await response.write_eof()
    return Delivered(response, answer.status, request.transport is not None)


async def _in_chunks(request: web.Request, answer: Canned) -> Delivered:
    response = _head(answer)
    response.enable_chunked_encoding()
    await response.prepare(request)
    for start in range(0, len(answer.body), 7):
        await response.write(answer.body[start : start + 7])
    await response.write_eof()
    return Delivered(response, answer.status, request.transport is not None)


async def _in_part(request: web.Request, answer: Canned, how: str) -> Delivered:
    """Headers and a part of the body: then the line breaks, or bytes come one by one for ever."""
    response = _head(answer)
    if how == "reset_mid_body":
        response.content_length = len(answer.body)
    await response.prepare(request)
    while how == "trickle":
        await response.write(b" ")  # the head of a valid document, so that no parser gives up
        await asyncio.sleep(_PIECE_S)
    await response.write(answer.body[: len(answer.body) // 2])
    await asyncio.sleep(0.02)  # a reset overtakes what has not left yet
    reset(request)
    return Delivered(response, answer.status, False)


def _head(answer: Canned) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_type = answer.content_type
    return response


def reset(request: web.Request) -> None:
    """Break the connection with RST, as a crashed peer or a firewall does."""
    transport = request.transport
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
