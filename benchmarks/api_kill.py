"""Kill API runs with SIGKILL at random moments, live and batch, resume them, and count what was paid twice.

    python -m benchmarks.api_kill [--kills 10] [--json]

The witness is the log of a loopback server in a process of its own, which lives on when its client is killed.
A live request that is in flight at a kill is answered to nobody and asked again: no client can know better,
so these are counted by themselves. Nothing that is stored, and nothing in a batch, may be asked again.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from evalkit.datasets.build import build
from evalkit.datasets.disk import read_split
from evalkit.prompts import make_prompt
from evalkit.task import load_task
from tests.api_servers import BatchScript, Script, ServerProcess, item_id

_ADAPTERS = {
    "openai": ("openai_api", "/v1", "OPENAI_API_KEY"),
    "gemini": ("gemini_api", "", "GEMINI_API_KEY"),
}
_CONCURRENCY = 16
_LATENCY_S = 0.1


@dataclass(frozen=True)
class Outcome:
    """What a killed and resumed run came to."""

    run: str
    kills: int
    samples: int
    rows: int
    distinct: int
    requests: int
    stored_asked_again: int
    in_flight_asked_again: int
    batches: int
    in_two_batches: int
    status: str


class Killing:
    """One run against one server."""

    def __init__(self, folder: Path, provider: str, *, batch: bool, kills: int) -> None:
        self.folder, self.batch, self.kills = folder, batch, kills
        self.name = f"{provider} {'batch' if batch else 'live'}"
        self.adapter, self.path, self.variable = _ADAPTERS[provider]
        script = Script(latency_s=_LATENCY_S, batch=BatchScript(polls=40))
        self.server = ServerProcess(provider, script, folder / "requests.jsonl")
        build("line_intersection", folder / "data", n=500)
        task = load_task("line_intersection")
        samples = read_split(folder / "data", "line_intersection", "train").samples
        prompts = [make_prompt(task, task.default_variant, sample) for sample in samples]
        self.items = {p.sample_id: item_id(p.text, p.image_path.read_bytes()) for p in prompts}

    def outcome(self, seed: int) -> Outcome:
        moments, again = random.Random(seed), 0
        with self.server:
            self._write_registry()
            for _ in range(self.kills):
                again += self._stored_asked(lambda: self._killed(moments))
            again += self._stored_asked(self._finished)
            result = json.loads(self.last.stdout)
            log, rows = self.server.log, self._rows()
            twice = Counter(line["item"] for line in log.lines("arrived", "ask"))
            return Outcome(
                run=self.name,
                kills=self.kills,
                samples=result["n"],
                rows=len(rows),
                distinct=len(set(rows)),
                requests=sum(twice.values()),
                stored_asked_again=again,
                in_flight_asked_again=sum(times - 1 for times in twice.values()),
                batches=len(log.batches()),
                in_two_batches=len(log.batched_twice()),
                status=result["status"],
            )

    def _stored_asked(self, run) -> int:
        """Requests of a run for what was stored before it began."""
        before = {self.items[sample_id] for sample_id in self._rows()}
        seen = len(self.server.log.lines("arrived", "ask"))
        run()
        return sum(line["item"] in before for line in self.server.log.lines("arrived", "ask")[seen:])

    def _killed(self, moments: random.Random) -> None:
        seen = len(self.server.log.lines("arrived"))
        process = subprocess.Popen(
            self._command(), env=self._environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # until it asks, so that kills fall into the run and not into Python's start
        give_up = time.monotonic() + 30
        while (
            len(self.server.log.lines("arrived")) == seen
            and process.poll() is None
            and time.monotonic() < give_up
        ):
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 4 * _LATENCY_S))
        process.kill()
        process.wait()

    def _finished(self) -> None:
        self.last = subprocess.run(self._command(), env=self._environment(), capture_output=True, text=True)
        if self.last.returncode:
            sys.exit(f"{self.name}: the run did not finish: {self.last.stderr.strip()}")

    def _rows(self) -> list[str]:
        files = list((self.folder / "results").glob("runs/*/*/rows.jsonl"))
        lines = files[0].read_bytes().split(b"\n")[:-1] if files else []
        return [json.loads(line)["sample_id"] for line in lines]

    def _write_registry(self) -> None:
        runtime = {"base_url": self.server.url + self.path, "concurrency": _CONCURRENCY, "poll_s": 0.02}
        entry = {"adapter": self.adapter, "checkpoint": "loopback", "runtime": runtime}
        (self.folder / "models.yaml").write_text(json.dumps({"them": entry}))

    def _command(self) -> list[str]:
        words = [
            "run", "--model", "them", "--task", "line_intersection", "--split", "train", "--json",
            "--models", str(self.folder / "models.yaml"), "--data", str(self.folder / "data"),
            "--results", str(self.folder / "results"),
        ]  # fmt: skip
        return [sys.executable, "-m", "evalkit", *words, *(["--batch"] if self.batch else [])]

    def _environment(self) -> dict[str, str]:
        return os.environ | {self.variable: "sk-loopback"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    outcomes = []
    for provider in _ADAPTERS:
        for batch in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                killing = Killing(Path(folder), provider, batch=batch, kills=arguments.kills)
                outcomes.append(asdict(killing.outcome(arguments.seed)))
    if arguments.json:
        print(json.dumps(outcomes, indent=2))
        return
    for name in outcomes[0]:
        print(f"{name.replace('_', ' '):<22}" + "".join(f"{outcome[name]!s:>14}" for outcome in outcomes))


if __name__ == "__main__":
    main()
