"""What replies cost, and a budget that a run does not exceed."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from evalkit.lazy import Left
from evalkit.records import Prompt


def cost_usd(prices: Mapping[str, Any] | None, rows: Iterable[Mapping[str, Any]]) -> float | None:
    """US dollars for the tokens of these rows, or None where the model has no price.

    Cached input counts at the full price: an upper bound where a provider gives a discount on it.
    """
    if prices is None:
        return None
    total = 0.0
    for row in rows:
        usage = row["usage"]
        tokens_usd = usage.get("input_tokens", 0) * prices["input_usd"]
        tokens_usd += usage.get("output_tokens", 0) * prices["output_usd"]
        total += tokens_usd * (prices.get("batch_factor", 1.0) if row.get("batched") else 1.0)
    return total / 1e6


_ROUNDING_USD = 1e-9  # sums of many cents of cents are not exact


class Budget:
    """Hands out questions while what is spent and what is in flight stay within a limit, and until stop().

    expected_usd: what a question will cost at most, as far as can be known before it is asked; the dearest
    reply so far counts where it was dearer. Without a limit everything is handed out. Questions are handed
    out in another thread than replies are charged in.
    """

    def __init__(
        self,
        limit_usd: float | None = None,
        prices: Mapping[str, Any] | None = None,
        expected_usd: Callable[[Prompt], float] | None = None,
    ) -> None:
        self._limit, self._prices, self._expected = limit_usd, prices, expected_usd
        self._spent = self._dearest = 0.0
        self._reserved: dict[str, float] = {}
        self.stopped = False
        self.counts = limit_usd is not None  # else what is spent decides nothing
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Hand out nothing more; what was handed out is still answered."""
        self.stopped = True

    def charge_stored(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            self.charge(row)

    def charge(self, row: Mapping[str, Any]) -> None:
        """Count a stored row in place of what was reserved for it."""
        cost = cost_usd(self._prices, [row]) or 0.0
        with self._lock:
            self._reserved.pop(row["sample_id"], None)
            self._spent += cost
            self._dearest = max(self._dearest, cost)

    def has_room_for(self, prompt: Prompt) -> bool:
        """Whether this question could be asked with nothing else in flight."""
        if self.stopped:
            return False
        return self._limit is None or self._spent + self._worth(prompt) <= self._limit + _ROUNDING_USD

    def handed(self, left: deque[Prompt] | Left[Prompt]) -> Iterator[Prompt]:
        """Take questions from the left while the budget has room for them."""
        while left and self._reserve(left[0]):
            yield left.popleft()

    def _worth(self, prompt: Prompt) -> float:
        return max(self._dearest, self._expected(prompt) if self._expected else 0.0)

    def _reserve(self, prompt: Prompt) -> bool:
        if self.stopped or self._limit is None:
            return not self.stopped
        with self._lock:
            worth = self._worth(prompt)
            if self._spent + sum(self._reserved.values()) + worth > self._limit + _ROUNDING_USD:
                return False
            self._reserved[prompt.sample_id] = worth
            return True
