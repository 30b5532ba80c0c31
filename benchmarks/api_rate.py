"""Questions lost and time taken on a server that limits its rate, beside a loop with the SDK's own retries.

    python -m benchmarks.api_rate [--n 600] [--rate 40] [--burst 20] [--concurrency 64] [--rounds 2] [--json]

The server answers after 50 ms, lets `rate` requests a second through and `burst` at once, and refuses the
others with a 429. It says when the next one could pass ("told"), or it does not ("silent"). Nobody tells the
clients of the limit:

    sdk_retries  64 workers on the openai SDK with its 2 retries, as they are by default
    evalkit      evalkit run --set concurrency=64, which finds the rate out by itself

lost        questions without an answer when the process has ended
refused     requests that got a 429
seconds     from the first request's arrival to the last answer's end; ideal: (n - burst) / rate
twice       questions that were answered, and so paid for, more than once
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.api_questions import bare_command, evalkit_command, measured, write_questions
from tests.api_servers import Script, ServerProcess

CLIENTS = ("sdk_retries", "evalkit")
VARIANTS = tuple(f"{client} {server}" for server in ("told", "silent") for client in CLIENTS)
_SIDE = 32  # px; the rate is what limits here


def measure(variant: str, folder: Path, data: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Figures of one run of a variant, by the server's log."""
    folder.mkdir()
    client, server_is = variant.split()
    script = Script(
        latency_s=0.05, rate=arguments.rate, burst=arguments.burst, tells_delay=server_is == "told"
    )
    with ServerProcess("openai", script, folder / "log.jsonl") as server:
        if client == "evalkit":
            command = evalkit_command(folder, data, server.url, arguments.concurrency, None)
        else:
            command = bare_command(data, server.url, arguments.concurrency, None, "aiohttp", retries=2)
        measured(command, allowed=(0, 3))
        log = server.log
    return {
        "lost": arguments.n - len(log.answered()),
        "seconds": log.seconds(),
        "refused": log.count(429),
        "requests": log.count(),
        "twice": len(log.answered_twice()),
        "in_flight": log.most("in_flight"),
    }


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    rounds: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_questions(folder / "data", arguments.n, _SIDE)
        for number in range(arguments.rounds):
            for variant in VARIANTS:
                rounds[variant].append(
                    measure(
                        variant, folder / f"{number}-{variant.replace(' ', '-')}", folder / "data", arguments
                    )
                )
    return {
        "ideal_seconds": (arguments.n - arguments.burst) / arguments.rate,
        "rounds": rounds,
        "median": {
            variant: {key: statistics.median(one[key] for one in found) for key in found[0]}
            for variant, found in rounds.items()
        },
    }


def table(found: dict[str, Any]) -> str:
    keys = ("lost", "seconds", "refused", "requests", "twice", "in_flight")
    lines = [f"{'':<20}" + "".join(f"{key.replace('_', ' '):>11}" for key in keys)]
    for variant, one in found["median"].items():
        lines.append(f"{variant:<20}" + "".join(f"{one[key]:>11.1f}" for key in keys))
    lines.append(f"{'ideal':<20}{0:>11.1f}{found['ideal_seconds']:>11.1f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=600)
    parser.add_argument("--rate", type=float, default=40)
    parser.add_argument("--burst", type=int, default=20)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = compare(arguments)
    print(json.dumps(found) if arguments.json else table(found))


if __name__ == "__main__":
    main()
