"""Random numbers that depend on their key alone: not on order, worker, platform or numpy's version."""

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Stream:
    """A random stream keyed by (seed, task, what for, ...).

    Built on `random.Random.random()` alone, whose sequence Python keeps between versions; its other
    methods, and those of numpy's generators, may change theirs.
    """

    def __init__(self, *key: int | str) -> None:
        digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
        self._next = random.Random(int.from_bytes(digest, "big")).random

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._next()

    def below(self, n: int) -> int:
        """An integer of 0 .. n-1."""
        return int(self._next() * n)

    def choice(self, values: Sequence[T]) -> T:
        return values[self.below(len(values))]

    def shuffled(self, values: Sequence[T]) -> list[T]:
        result = list(values)
        for i in range(len(result) - 1, 0, -1):
            j = self.below(i + 1)
            result[i], result[j] = result[j], result[i]
        return result
