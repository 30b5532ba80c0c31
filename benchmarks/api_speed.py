"""Samples a second and CPU time of `evalkit run` on an API, beside bare loops of the openai SDK.

    python -m benchmarks.api_speed [--n 500] [--side 336] [--latency 0.05] [--concurrency 64] [--rounds 3] [--json]

The server is a process on 127.0.0.1 that answers everything alike after `latency` seconds; every image is
noise of side x side px, so that each request carries as many bytes as a PNG of that size can. The variants

    default  64 workers on the SDK's default transport, its retries off
    aiohttp  the same with http_client=openai.DefaultAioHttpClient()
    evalkit  evalkit run --set concurrency=64: prompts, retries, parsing, and each row durably on disk

alternate in every round, each in a process of its own, and their medians over the rounds are compared:

samples/s     n over the time from the first request's arrival to the last answer's end, by the server's log
CPU ms        CPU time of the client's process a sample, without what a run of one question takes
start-up s    from the start of the process to the arrival of its first request
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.api_questions import Ended, bare_command, evalkit_command, measured, write_questions
from tests.api_servers import RequestLog, Script, ServerProcess

VARIANTS = ("default", "aiohttp", "evalkit")


def run_once(
    variant: str, folder: Path, data: Path, arguments: argparse.Namespace, limit: int | None
) -> tuple[Ended, RequestLog]:
    """One variant against a server of its own. Raises RuntimeError where not every question was answered."""
    folder.mkdir(parents=True)
    script = Script(fast=True, latency_s=arguments.latency, models=("loopback",))
    with ServerProcess("openai", script, folder / "log.jsonl") as server:
        if variant == "evalkit":
            command = evalkit_command(folder, data, server.url, arguments.concurrency, limit)
        else:
            command = bare_command(data, server.url, arguments.concurrency, limit, variant)
        ended, log = measured(command), server.log
    wanted = limit or arguments.n
    done = ended.told["n"] if variant == "evalkit" else ended.told["answered"]
    if done != wanted or log.count(200) != wanted:
        raise RuntimeError(f"{variant}: {done} of {wanted} answered, {log.count(200)} requests.")
    return ended, log


def measure(variant: str, folder: Path, data: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Figures of one run of a variant."""
    one, _ = run_once(variant, folder / "one", data, arguments, 1)
    ended, log = run_once(variant, folder / "all", data, arguments, None)
    first = min(line["t"] for line in log.lines("arrived"))
    return {
        "samples_per_s": arguments.n / log.seconds(),
        "cpu_ms": 1000 * (ended.cpu_s - one.cpu_s) / (arguments.n - 1),
        "start_up_s": first - ended.started,
        "start_up_cpu_s": one.cpu_s,
        "wall_s": ended.wall_s,
        "in_flight": log.most("in_flight"),
    }


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    rounds: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_questions(folder / "data", arguments.n, arguments.side)
        for number in range(arguments.rounds):
            for variant in VARIANTS:
                rounds[variant].append(
                    measure(variant, folder / f"{number}-{variant}", folder / "data", arguments)
                )
    median = {
        variant: {key: statistics.median(one[key] for one in found) for key in found[0]}
        for variant, found in rounds.items()
    }
    rate = {variant: figures["samples_per_s"] for variant, figures in median.items()}
    return {
        "n": arguments.n,
        "rounds": rounds,
        "median": median,
        "evalkit_over_default": rate["evalkit"] / rate["default"],
        "evalkit_over_aiohttp": rate["evalkit"] / rate["aiohttp"],
    }


def table(found: dict[str, Any]) -> str:
    head = f"{'':<10}{'samples/s':>11}{'CPU ms':>9}{'start-up s':>12}{'start-up CPU s':>16}{'in flight':>11}"
    lines = [head]
    for variant, one in found["median"].items():
        rates = sorted(figures["samples_per_s"] for figures in found["rounds"][variant])
        lines.append(
            f"{variant:<10}{one['samples_per_s']:>11.1f}{one['cpu_ms']:>9.2f}{one['start_up_s']:>12.2f}"
            f"{one['start_up_cpu_s']:>16.2f}{one['in_flight']:>11.0f}   ({rates[0]:.1f} to {rates[-1]:.1f})"
        )
    lines.append(f"evalkit over default  {found['evalkit_over_default']:.2f}  (wanted: above 1)")
    lines.append(f"evalkit over aiohttp  {found['evalkit_over_aiohttp']:.2f}  (wanted: at least 0.8)")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--side", type=int, default=336)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = compare(arguments)
    print(json.dumps(found) if arguments.json else table(found))


if __name__ == "__main__":
    main()
