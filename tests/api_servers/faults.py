"""Which request gets which fault: by item, so that every attempt at a question is recognised."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

OK = "ok"


@dataclass(frozen=True)
class FaultPlan:
    """Faults of questions; the first rule that names an item holds.

    listed:  an item's id, or a piece of its text -> fault.
    ordered: faults of the first new items, in order of arrival ("ok" for none).
    shares:  fault -> share of the other items in [0, 1], drawn by a seeded hash of the item.
    times:   fault -> how many attempts at an item see it before it is answered well; 1 where not named,
             float("inf") for always, as a parameter that a model does not take is always refused.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    listed: Mapping[str, str] = field(default_factory=dict)
    ordered: tuple[str, ...] = ()
    times: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.shares.values(), default=0) < 0 or sum(self.shares.values()) > 1 + 1e-9:
            raise ValueError(
                f"FaultPlan: shares must be at least 0 and sum to at most 1, found {self.shares}."
            )

    def names(self) -> set[str]:
        return {*self.shares, *self.listed.values(), *self.ordered, *self.times}

    def times_of(self, fault: str) -> float:
        return self.times.get(fault, float("inf") if fault.startswith(("unsupported_", "unknown_")) else 1)

    def fault_of_item(self, item: str, text: str, order: int) -> str:
        """The fault of an item that arrived as the `order`-th new one (from 0), or "ok"."""
        for key, fault in self.listed.items():
            if key == item or key in text:
                return fault
        if order < len(self.ordered):
            return self.ordered[order]
        draw = int.from_bytes(hashlib.sha256(f"{self.seed}:{item}".encode()).digest()[:8], "big") / 2**64
        for fault, share in self.shares.items():
            draw -= share
            if draw < 0:
                return fault
        return OK


class Rulings:
    """A plan applied to the attempts that come in, and the switches that are flipped while it runs.

    all_fault: every request gets it, from the `after`-th on (numbered from 1), until it is switched off.
    ops:       what is called -> faults of its next calls, one each.
    """

    def __init__(self, plan: FaultPlan, ops: Mapping[str, Iterable[str]] | None = None) -> None:
        self._plan = plan
        self._order: dict[str, int] = {}
        self._attempts: Counter[str] = Counter()
        self.all_fault: str | None = None
        self.after = 0
        self.ops: dict[str, list[str]] = {op: list(faults) for op, faults in (ops or {}).items()}

    def of_question(self, item: str, text: str, number: int) -> tuple[str, int]:
        """The fault of this attempt, and which attempt at its item it is, from 1."""
        order = self._order.setdefault(item, len(self._order))
        self._attempts[item] += 1
        attempt = self._attempts[item]
        if fault := self._of_all(number):
            return fault, attempt
        fault = self._plan.fault_of_item(item, text, order)
        return (fault if attempt <= self._plan.times_of(fault) else OK), attempt

    def of_call(self, op: str, number: int) -> str:
        """The fault of a call that is no question: models, files, batches."""
        if fault := self._of_all(number):
            return fault
        return self.ops[op].pop(0) if self.ops.get(op) else OK

    def _of_all(self, number: int) -> str | None:
        return self.all_fault if number >= self.after else None
