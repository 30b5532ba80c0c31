"""The providers' own SDKs with one question each, their retries off: what tests ask the servers with."""

import base64
import struct
import zlib

import openai
from google import genai
from google.genai import types

ONCE = types.HttpRetryOptions(attempts=1)


def png(width=48, height=32):
    """A PNG of one grey, built by hand: signature, IHDR, IDAT, IEND."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + b"\x80" * width for _ in range(height)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


PNG = png()


def chat(text, image=PNG, **more):
    """The arguments of chat.completions.create for one question."""
    url = "data:image/png;base64," + base64.b64encode(image).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def generate(text, image=PNG):
    """The arguments of models.generate_content for one question."""
    return {"model": "m", "contents": [types.Part.from_bytes(data=image, mime_type="image/png"), text]}


def ask_openai(server, text, **more):
    with openai.OpenAI(api_key="k", base_url=server.url + "/v1", max_retries=0, timeout=1) as client:
        return client.chat.completions.create(**chat(text, **more))


def ask_gemini(server, text):
    with genai.Client(
        api_key="k", http_options=types.HttpOptions(base_url=server.url, timeout=1000)
    ) as client:
        return client.models.generate_content(**generate(text))


async def ask_openai_later(server, text, http_client=None):
    async with openai.AsyncOpenAI(
        api_key="k", base_url=server.url + "/v1", max_retries=0, timeout=1, http_client=http_client
    ) as client:
        return await client.chat.completions.create(**chat(text))


async def ask_gemini_later(server, text, retry=ONCE):
    options = types.HttpOptions(base_url=server.url, timeout=1000, retry_options=retry)
    async with genai.Client(api_key="k", http_options=options).aio as client:
        return await client.models.generate_content(**generate(text))
