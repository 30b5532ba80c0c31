"""What a server is told to do; as JSON too, for a server in a process of its own."""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .faults import FaultPlan

Answer = Callable[[str, tuple[int, int]], str]


@dataclass(frozen=True)
class BatchScript:
    """How batches go.

    polls:     how often a batch is looked at before it has ended.
    end:       completed | failed | expired | cancelled.
    unanswered: share of the items that an expired or cancelled batch has not answered.
    shuffled:  results come in another order than the requests.
    inlined:   Gemini answers even a file of requests inside the batch, not as a file.
    max_requests, max_bytes: larger files are refused.
    """

    polls: int = 2
    end: str = "completed"
    unanswered: float = 0.5
    shuffled: bool = True
    inlined: bool = False
    max_requests: int = 50_000
    max_bytes: int = 200_000_000

    def __post_init__(self) -> None:
        if self.end not in ("completed", "failed", "expired", "cancelled"):
            raise ValueError(
                f"BatchScript: end must be completed, failed, expired or cancelled, found {self.end!r}."
            )


@dataclass(frozen=True)
class Script:
    """One server's behaviour.

    reply:         the text of every answer; `answer(question text, (width, height))` in its stead, where given.
    latency_s:     median time to an answer, in seconds; latency_sigma: sigma of its log (0: always the same).
    rate, burst:   a token bucket: requests a second, and how many at once; over it a 429 that says how long to
                   wait, unless `tells_delay` is false.
    retry_after_s: the delay that a rate_limit fault asks for.
    key:           the only key that is accepted; None accepts all.
    models:        the models there are; empty: all.
    reasoning_tokens: what each answer is said to have reasoned.
    fast:          do not look at questions: every one gets the same bytes. For measurements; no faults, no rate.
    ops:           faults of the next calls of models, model, upload, create, get, list, content, cancel, one each.
    """

    faults: FaultPlan = field(default_factory=FaultPlan)
    reply: str = "{3}"
    answer: Answer | None = None
    latency_s: float = 0.0
    latency_sigma: float = 0.0
    rate: float | None = None
    burst: int = 1
    tells_delay: bool = True
    retry_after_s: float = 0.05
    key: str | None = None
    models: tuple[str, ...] = ()
    reasoning_tokens: int = 0
    fast: bool = False
    ops: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    batch: BatchScript = field(default_factory=BatchScript)
    seed: int = 0

    def text(self, question: str, image_size_wh: tuple[int, int]) -> str:
        return self.answer(question, image_size_wh) if self.answer else self.reply

    def latency(self, draw: random.Random) -> float:
        """Seconds until an answer."""
        return self.latency_s * math.exp(draw.gauss(0.0, self.latency_sigma)) if self.latency_s else 0.0


def script_to_json(script: Script) -> dict[str, Any]:
    """All but `answer`, which only a server in this process can have."""
    if script.answer is not None:
        raise ValueError("Script: a server in a process of its own takes `reply`, not `answer`.")
    told = dict(vars(script))
    del told["answer"]
    return told | {"faults": dict(vars(script.faults)), "batch": dict(vars(script.batch))}


def script_from_json(told: Mapping[str, Any]) -> Script:
    """The Script of such JSON; an unknown key raises TypeError."""
    plan = dict(told.get("faults", {}))
    plan["ordered"] = tuple(plan.get("ordered", ()))
    plain = {name: value for name, value in told.items() if name not in ("faults", "batch", "models")}
    return replace(
        Script(**plain),
        faults=FaultPlan(**plan),
        batch=BatchScript(**told.get("batch", {})),
        models=tuple(told.get("models", ())),
    )
