"""What the batch services of all providers share: a batch's questions, its way to its end, its order."""

import hashlib
import random
from dataclasses import dataclass, field
from typing import Any

from .faults import OK, FaultPlan
from .items import Question
from .script import BatchScript

PENDING_LOOKS = 1  # at a batch before it leaves the first state


@dataclass
class Job:
    """One batch of `questions` by key, looked at `looks` times; told: what its maker said of it."""

    name: str
    told: dict[str, Any]
    questions: dict[str, Question]
    created_at: float
    looks: int = 0
    cancelled: bool = False
    invalid: str = ""  # what is wrong with its file
    results: dict[str, Any] = field(default_factory=dict)  # made at its end, once

    def look(self, script: BatchScript) -> str:
        """The state that one more look finds."""
        self.looks += 1
        return self.state(script)

    def state(self, script: BatchScript) -> str:
        """pending | running | completed | failed | expired | cancelled."""
        if self.cancelled:
            return "cancelled"
        if self.looks > script.polls:
            return "failed" if self.invalid else script.end
        return "pending" if self.looks <= PENDING_LOOKS else "running"


def fault_of_line(plan: FaultPlan, question: Question, order: int) -> str:
    """A batch's line is attempted once."""
    fault = plan.fault_of_item(question.item, question.text, order)
    return fault if plan.times_of(fault) >= 1 else OK


def unanswered(job: Job, state: str, script: BatchScript) -> set[str]:
    """Keys that a batch which ended early has no answer to: the first ones of a seeded order."""
    if state not in ("expired", "cancelled"):
        return set()
    keys = sorted(job.questions, key=lambda key: hashlib.sha256(key.encode()).digest())
    return set(keys[: round(script.unanswered * len(keys))])


def in_order_of_results(keys: list[str], script: BatchScript, seed: int) -> list[str]:
    """Another order than that of the requests, wherever there is more than one."""
    if not script.shuffled or len(keys) < 2:
        return keys
    shuffled = list(keys)
    random.Random(seed).shuffle(shuffled)
    return shuffled if shuffled != keys else keys[::-1]
