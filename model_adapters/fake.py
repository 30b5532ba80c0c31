"""A model that answers from a script: for tests of the harness and for rehearsing a run.

It can be slow, fail, refuse or be cut off on demand, and it writes a log of what it was asked.
"""

import json
import os
import random
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import ConfigError
from evalkit.records import Prompt, Reply

_FAULTS = ("failed", "blocked", "truncated", "empty", "crash")


class Fake:
    """Replies from a fixed text or a script, after a fixed latency, with faults at given rates.

    reply:     the text of every reply.
    script:    JSONL of {"sample_id", "reply"[, "finish_reason"]}; samples without a line get `reply`.
    faults:    {"failed": 0.1, "blocked": ..., "truncated": ..., "empty": ...}: the share of samples
               that end so, drawn by sample id. A failed sample fails on its first request alone, so
               that a second run mends it, as a server's bad minute would. At "crash" the process is killed,
               as one that runs out of memory is.
    latency_s: seconds each reply takes.
    log:       a file to which every request appends {"sample_id", "pid", "time"}, before its answer.
    """

    at_once, gathers = 1, False

    def __init__(
        self,
        reply: str = "",
        script: str | None = None,
        faults: Mapping[str, float] | None = None,
        latency_s: float = 0.0,
        log: str | None = None,
    ) -> None:
        self._reply = str(reply)
        self._faults = dict(faults or {})
        if unknown := sorted(set(self._faults) - set(_FAULTS)):
            raise ConfigError(f"fake: no fault {unknown[0]!r}. Known faults: {', '.join(_FAULTS)}.")
        if sum(self._faults.values()) > 1:
            raise ConfigError("fake: the rates of its faults add up to more than 1.")
        self._script = _read_script(Path(script)) if script else {}
        self._latency_s = float(latency_s)
        self._log = _open_log(log) if log else None
        self._asked_before = _asked(Path(log)) if log else set()

    def replies(self, prompts: Iterable[Prompt]) -> Iterator[Reply]:
        for prompt in prompts:
            self._note(prompt.sample_id)
            if self._latency_s:
                time.sleep(self._latency_s)
            yield self._answer(prompt.sample_id)

    def describe(self) -> Mapping[str, str]:
        return {"engine": "fake"}

    def close(self) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def _note(self, sample_id: str) -> None:
        if self._log is not None:
            line = json.dumps({"sample_id": sample_id, "pid": os.getpid(), "time": time.time()}) + "\n"
            os.write(self._log, line.encode())

    def _answer(self, sample_id: str) -> Reply:
        fields: dict[str, Any] = {"sample_id": sample_id, "latency_s": self._latency_s, "answered_by": "fake"}
        match self._fault(sample_id):
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
                raise AssertionError("killed")
            case "failed":
                return Reply(text=None, finish_reason="error", error="scripted failure", **fields)
            case "blocked":
                return Reply(text="", finish_reason="content_filter", **fields)
            case "truncated":
                return Reply(text=self._reply, finish_reason="length", **fields)
            case "empty":
                return Reply(text="", finish_reason="stop", **fields)
            case _:
                scripted = self._script.get(sample_id, {"reply": self._reply, "finish_reason": "stop"})
                return Reply(text=scripted["reply"], finish_reason=scripted["finish_reason"], **fields)

    def _fault(self, sample_id: str) -> str | None:
        draw = random.Random(f"fake:{sample_id}").random()
        for fault, rate in self._faults.items():
            if draw < rate:
                return None if fault == "failed" and sample_id in self._asked_before else fault
            draw -= rate
        return None


def _open_log(log: str) -> int:
    try:
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise ConfigError(f"fake: log {log}: cannot be written ({error.strerror}).") from None


def _read_script(path: Path) -> dict[str, dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        return {row["sample_id"]: {"finish_reason": "stop", **row} for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'fake: {path}: expected lines {{"sample_id", "reply"}} ({error}).') from None


def _asked(log: Path) -> set[str]:
    """Samples that earlier processes asked, by the log."""
    asked = set()
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            asked.add(json.loads(line)["sample_id"])
        except (ValueError, KeyError):  # a line torn by a kill
            continue
    return asked
