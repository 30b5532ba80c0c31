"""The baseline of the API benchmarks: a loop of the bare openai SDK, as one writes it first.

    python -m benchmarks.api_bare URL DATA --transport default|aiohttp [--concurrency 64] [--retries 0] [--limit N]

Each worker takes the next question, reads its image, encodes it, asks, and takes the answer's text. Prints
{"answered", "lost"}: lost are questions that ended in an exception.
"""

import argparse
import asyncio
import base64
import json
from pathlib import Path

import openai

from benchmarks.api_questions import image_files

QUESTION = "How many times do the blue and red lines touch each other?"


async def ask_all(arguments: argparse.Namespace) -> dict[str, int]:
    http_client = openai.DefaultAioHttpClient() if arguments.transport == "aiohttp" else None
    client = openai.AsyncOpenAI(
        api_key="loopback",
        base_url=f"{arguments.url}/v1",
        max_retries=arguments.retries,
        http_client=http_client,
    )
    files = iter(image_files(arguments.data)[: arguments.limit])
    count = {"answered": 0, "lost": 0}

    async def worker() -> None:
        for file in files:
            image = "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
            content = [
                {"type": "image_url", "image_url": {"url": image, "detail": "auto"}},
                {"type": "text", "text": QUESTION},
            ]
            try:
                answer = await client.chat.completions.create(
                    model="loopback",
                    messages=[{"role": "user", "content": content}],
                    max_completion_tokens=128,
                )
                count["answered"] += answer.choices[0].message.content is not None
            except openai.OpenAIError:
                count["lost"] += 1

    await asyncio.gather(*(worker() for _ in range(arguments.concurrency)))
    await client.close()
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("data", type=Path)
    parser.add_argument("--transport", choices=["default", "aiohttp"], required=True)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--retries", type=int, default=0)
    parser.add_argument("--limit", type=int)
    print(json.dumps(asyncio.run(ask_all(parser.parse_args()))))


if __name__ == "__main__":
    main()
