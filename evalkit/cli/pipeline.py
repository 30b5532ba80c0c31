"""A plan of evalkit commands, run by a few processes at a time; a killed one goes on where it stopped."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from evalkit.errors import EvalkitError
from evalkit.provenance import digest
from evalkit.report.pages import write

_POLL_S = 0.2
_LOG_TAIL = 12


class StepFailed(EvalkitError):
    """A command of the plan ended with an error; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Command:
    """One step as it is started: its key, the words after `evalkit`, and the keys it waits for."""

    key: str
    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    always: bool = False  # run again each time: a report of what is there

    @property
    def digest(self) -> str:
        return digest([self.key, list(self.words)])


@dataclass(slots=True)
class _Running:
    command: Command
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    since: float


@dataclass(slots=True)
class Pipeline:
    """Runs commands whose needs are done, `jobs` at a time, in the order given.

    state: which commands are done and how long they took; a command that changed is run again.
    """

    folder: Path  # logs and state
    jobs: int
    threads: int
    report: Callable[[str], None]
    _done: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, commands: Sequence[Command]) -> dict[str, float]:
        """Seconds by key, of all commands. Raises StepFailed once those that are running have ended."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "logs").mkdir(exist_ok=True)
        self._done = self._read_state()
        valid = {
            c.key for c in commands if not c.always and self._done.get(c.key, {}).get("digest") == c.digest
        }
        waiting = [c for c in commands if c.key not in valid]
        done = set(valid)
        if valid:
            self.report(f"{len(valid)} of {len(commands)} steps are done already.")
        running: list[_Running] = []
        failed: list[_Running] = []
        try:
            while running or (waiting and not failed):
                while len(running) < self.jobs and not failed and (ready := _ready(waiting, done)):
                    waiting.remove(ready)
                    running.append(self._start(ready))
                time.sleep(_POLL_S)
                for one in [r for r in running if r.process.poll() is not None]:
                    running.remove(one)
                    one.log.close()
                    if one.process.returncode == 0:
                        done.add(one.command.key)
                        self._finish(one, len(done), len(commands), [*waiting, *(r.command for r in running)])
                    else:
                        failed.append(one)
                if not running and waiting and not failed and not _ready(waiting, done):
                    raise AssertionError(f"steps wait for what no step makes: {waiting[0]}")
        finally:
            for one in running:  # Ctrl-C, or a kill of this process that can still be heard
                one.process.terminate()
            for one in running:
                one.process.wait()
                one.log.close()
        if failed:
            raise StepFailed(self._failure(failed[0]))
        return {command.key: float(self._done[command.key]["seconds"]) for command in commands}

    def _start(self, command: Command) -> _Running:
        log = self._log(command).open("wb")
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads), "TOKENIZERS_PARALLELISM": "false"}
        process = subprocess.Popen(
            [sys.executable, "-m", "evalkit", *command.words],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        return _Running(command, process, log, time.monotonic())

    def _log(self, command: Command) -> Path:
        return self.folder / "logs" / (command.key.replace(" ", "-").replace("/", "-") + ".log")

    def _finish(self, one: _Running, n_done: int, n: int, left: Sequence[Command]) -> None:
        seconds = time.monotonic() - one.since
        self._done[one.command.key] = {"digest": one.command.digest, "seconds": round(seconds, 1)}
        write(self.folder / "state.json", json.dumps(self._done, indent=2) + "\n")
        remaining = f", about {self._minutes(left):.0f} min left" if left else ""
        self.report(f"[{n_done}/{n}] {one.command.key}  {seconds:.0f} s{remaining}")

    def _minutes(self, left: Sequence[Command]) -> float:
        """What is left, from how long steps of the same kind took so far."""
        times: dict[str, list[float]] = {}
        for key, entry in self._done.items():
            times.setdefault(_kind(key), []).append(float(entry["seconds"]))
            times.setdefault("", []).append(float(entry["seconds"]))
        means = {kind: sum(values) / len(values) for kind, values in times.items()}
        return sum(means.get(_kind(c.key), means[""]) for c in left) / self.jobs / 60

    def _read_state(self) -> dict[str, dict[str, Any]]:
        try:
            state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def _failure(self, one: _Running) -> str:
        path = self._log(one.command)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("Error:")]
        end = errors[-1] if errors else "\n".join(lines[-_LOG_TAIL:])
        return (
            f"step {one.command.key!r} ended with status {one.process.returncode}: "
            f"evalkit {' '.join(one.command.words)}\n{end}\nIts log: {path}. The same command goes on from here."
        )


def _ready(waiting: Sequence[Command], done: set[str]) -> Command | None:
    return next((command for command in waiting if done.issuperset(command.needs)), None)


def _kind(key: str) -> str:
    """`train tiny-qwen-klal on grid_patch seed 1` -> `train grid_patch`: steps of a kind take about as long."""
    task = key.partition(" on ")[2].partition(" ")[0]
    return f"{key.partition(' ')[0]} {task}"
