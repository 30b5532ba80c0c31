"""Kill a run with SIGKILL at random moments, resume it, and count what was lost or asked twice.

    python -m benchmarks.kill_resume [--kills 30] [--latency 0.02]

The witness is the scripted model's own log of requests, compared with what was stored at each kill.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What a killed and resumed run came to; `asked_again` counts stored samples asked once more."""

    kills: int
    samples: int
    rows: int
    distinct: int
    asked: int
    asked_again: int
    in_flight_repeated: int
    status: str


def command(folder: Path, latency_s: float) -> list[str]:
    return [
        sys.executable, "-m", "evalkit", "run", "--model", "fake", "--task", "grid_patch", "--split", "train",
        "--data", str(folder / "data"), "--results", str(folder / "results"),
        "--set", f"latency_s={latency_s}", "--set", f"log={folder / 'log.jsonl'}", "--set", "reply=(3, 4)",
        "--json",
    ]  # fmt: skip


def lines(path: Path) -> Iterator[dict]:
    """Whole lines of a JSONL file."""
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:
            yield json.loads(line)


def stored(folder: Path) -> list[str]:
    files = list((folder / "results").glob("runs/fake/*/rows.jsonl"))
    return [row["sample_id"] for row in lines(files[0])] if files else []


def kill_and_resume(folder: Path, kills: int, latency_s: float, seed: int = 0, n: int = 500) -> Outcome:
    """Build data, then run and kill `kills` times, then let the run end. `n` images, 80 % of them asked."""
    build = [sys.executable, "-m", "evalkit", "data", "build", "grid_patch", "--n", str(n)]
    subprocess.run([*build, "--data", str(folder / "data")], check=True, capture_output=True)
    moments = random.Random(seed)
    log = folder / "log.jsonl"
    asked_again = 0
    for _ in range(kills):
        before, asked_before = set(stored(folder)), len(list(lines(log)))
        process = subprocess.Popen(
            command(folder, latency_s), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # wait until it asks, so that kills fall into the run and not into Python's start
        give_up = time.monotonic() + 30
        while len(list(lines(log))) == asked_before and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 12 * latency_s))
        process.kill()
        process.wait()
        asked_again += sum(row["sample_id"] in before for row in list(lines(log))[asked_before:])
        assert before <= set(stored(folder)), "a stored row was lost"
    before, asked_before = set(stored(folder)), len(list(lines(log)))
    last = subprocess.run(command(folder, latency_s), check=True, capture_output=True, text=True)
    asked_again += sum(row["sample_id"] in before for row in list(lines(log))[asked_before:])
    result, rows, asked = json.loads(last.stdout), stored(folder), list(lines(log))
    return Outcome(
        kills=kills,
        samples=result["n"],
        rows=len(rows),
        distinct=len(set(rows)),
        asked=len(asked),
        asked_again=asked_again,
        in_flight_repeated=len(asked) - result["n"],
        status=result["status"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--latency", type=float, default=0.02)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_and_resume(Path(folder), arguments.kills, arguments.latency)
    print(f"kills                          {outcome.kills}")
    print(f"samples                        {outcome.samples}  ({outcome.status})")
    print(f"rows, distinct                 {outcome.rows}, {outcome.distinct}")
    print(f"requests                       {outcome.asked}")
    print(f"stored samples asked again     {outcome.asked_again}")
    print(f"in flight at a kill, repeated  {outcome.in_flight_repeated}")


if __name__ == "__main__":
    main()
