"""The Ray engine beside the local one on the scripted model: overhead, samples/s by replicas, peak memory.

    python -m benchmarks.ray_scale [--samples 10000] [--most 100000]

The baseline is `--engine auto` in the same process that writes the rows. Each run is a command of its own; its
time is that between the first and the last question in the model's log, so that Python's and Ray's start stand
apart. Memory is the peak of the process that writes, and of the largest replica.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from evalkit.datasets.build import build


@dataclass(frozen=True)
class Outcome:
    """samples_s: between the first question and the last. wall_s: of the whole command. Peaks in MB."""

    samples_s: float
    wall_s: float
    writer_mb: float
    replica_mb: float


def multiply(data: Path, n: int) -> None:
    """A split of n questions on the same 80 images."""
    path = data / "grid_patch/train/metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    with path.open("w") as file:
        for i in range(n):
            row = rows[i % len(rows)]
            file.write(json.dumps(row | {"sample_id": f"{row['sample_id']}-{i}"}) + "\n")


def peak_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next(
        (int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0
    )


def run(folder: Path, latency_s: float, replicas: int | None) -> Outcome:
    log = folder / f"log-{time.monotonic_ns()}.jsonl"
    command = [
        sys.executable, "-m", "evalkit", "run", "--model", "fake", "--task", "grid_patch", "--split", "train",
        "--data", str(folder / "data"), "--results", str(folder / log.stem), "--set", "reply=(3, 4)", "--json",
        "--set", f"latency_s={latency_s}", "--set", f"log={log}",
    ]  # fmt: skip
    command += [] if replicas is None else ["--engine", "ray", "--replicas", str(replicas)]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peaks: dict[int, float] = {}

    def watch() -> None:
        while process.poll() is None:
            for pid in {process.pid, *pids(log)}:
                peaks[pid] = max(peaks.get(pid, 0.0), peak_mb(pid))
            time.sleep(0.25)

    watcher = threading.Thread(target=watch)
    watcher.start()
    process.wait()
    watcher.join()
    wall_s = time.monotonic() - started
    assert process.returncode == 0, process.returncode
    times = [json.loads(line)["time"] for line in log.read_text().splitlines()]
    rate = (len(times) - 1) / (max(times) - min(times))
    others = [peak for pid, peak in peaks.items() if pid != process.pid]
    return Outcome(rate, wall_s, peaks[process.pid], max(others, default=0.0))


def pids(log: Path) -> set[int]:
    """The processes that have asked; the first and the last lines of the log are enough to find them."""
    if not log.exists():
        return set()
    with log.open("rb") as file:
        head = file.read(4096)
        file.seek(max(0, log.stat().st_size - 4096))
        tail = file.read()
    found = set()
    for line in (head + b"\n" + tail).split(b"\n"):
        try:
            found.add(int(json.loads(line)["pid"]))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--most", type=int, default=100_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build("grid_patch", folder / "data", n=100)
        multiply(folder / "data", chosen.samples)
        print(f"{chosen.samples:,} samples, no latency")
        local = run(folder, 0.0, None)
        show("local", local, local)
        show("ray, 1 replica", run(folder, 0.0, 1), local)
        print(f"{chosen.samples:,} samples, 20 ms each")
        local = run(folder, 0.02, None)
        show("local", local, local)
        for replicas in (1, 2, 4):
            show(f"ray, {replicas} replica{'s' * (replicas > 1)}", run(folder, 0.02, replicas), local)
        for n in (1_000, chosen.most):
            multiply(folder / "data", n)
            print(f"{n:,} samples, no latency")
            local = run(folder, 0.0, None)
            show("local", local, local)
            show("ray, 2 replicas", run(folder, 0.0, 2), local)


def show(name: str, outcome: Outcome, baseline: Outcome) -> None:
    print(
        f"  {name:<16} {outcome.samples_s:>8.1f} samples/s  x {outcome.samples_s / baseline.samples_s:.2f}   "
        f"command {outcome.wall_s:>6.1f} s   "
        f"peak: writer {outcome.writer_mb:.0f} MB, replica {outcome.replica_mb:.0f} MB",
        flush=True,
    )


if __name__ == "__main__":
    main()
