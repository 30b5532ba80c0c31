"""A server as a process of its own: python -m tests.api_servers openai --log FILE [--port 0] [--config FILE].

Its address is the first line on standard output. It runs until SIGTERM or Ctrl-C, with --until-eof also
until its standard input ends.
"""

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from .core import Core
from .log import LogWriter
from .running import PROVIDERS, Listener
from .script import script_from_json


async def serve(arguments: argparse.Namespace) -> None:
    config = json.loads(arguments.config.read_text(encoding="utf-8")) if arguments.config else {}
    script, log = script_from_json(config), LogWriter(arguments.log)
    listener = Listener(Core(PROVIDERS[arguments.provider](script, log), script, log))
    print(f"http://127.0.0.1:{await listener.open(arguments.port)}", flush=True)
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    if arguments.until_eof:
        loop.add_reader(sys.stdin, lambda: over.set() if not sys.stdin.buffer.read1(1024) else None)
    await over.wait()
    await listener.close()
    log.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.api_servers", description=__doc__.splitlines()[0])
    parser.add_argument("provider", choices=PROVIDERS)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--config", type=Path, help="JSON of a Script (see script.py)")
    parser.add_argument("--until-eof", action="store_true")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
