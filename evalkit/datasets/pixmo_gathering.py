"""Asking for exactly as many photographs as are still needed, each dead one replaced by the next of its category.

So the set is the first of each category that are alive, by rank, whatever the order in which downloads end.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evalkit.datasets.fetching import Fate, Wanted
from evalkit.datasets.pixmo_manifest import Entry, Log, entry_of
from evalkit.datasets.pixmo_source import PointRow


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate and its rank in its category."""

    rank: int
    row: PointRow


@dataclass(frozen=True, slots=True)
class Need:
    """So many pictures of a category, of candidates in the order in which they are to be tried."""

    label: str
    n: int
    candidates: Sequence[Ranked]


class Gathering:
    """What is needed, what is on its way, what came. The log is the memory between runs."""

    def __init__(self, needs: Sequence[Need], log: Log, *, retry: bool) -> None:
        """retry: candidates that failed earlier are tried again where a category has no others left."""
        self._log = log
        self._left: Mapping[str, Iterator[Ranked]] = {
            need.label: iter(self._in_order(need.candidates, retry)) for need in needs
        }
        most = max((need.n for need in needs), default=0)
        self._open = deque(need.label for turn in range(most) for need in needs if turn < need.n)
        self._on_the_way: dict[str, Ranked] = {}
        self.alive: dict[str, list[Entry]] = {need.label: [] for need in needs}

    def _in_order(self, candidates: Sequence[Ranked], retry: bool) -> list[Ranked]:
        known = self._log.entries
        dead = [c for c in candidates if c.row.sha256 in known and known[c.row.sha256].outcome != "ok"]
        fine = [c for c in candidates if c.row.sha256 not in known or known[c.row.sha256].outcome == "ok"]
        return fine + dead if retry else fine

    @property
    def n_alive(self) -> int:
        return sum(map(len, self.alive.values()))

    def wanted(self) -> Iterator[Wanted | None]:
        """What to fetch next; None while only the ends of other downloads can tell."""
        while self._open or self._on_the_way:
            candidate = next(self._left[self._open.popleft()], None) if self._open else None
            if candidate is not None:
                self._on_the_way[candidate.row.sha256] = candidate
                yield Wanted(candidate.row.url, candidate.row.sha256)
            elif not self._open and self._on_the_way:
                yield None

    def ended(self, fate: Fate) -> Entry:
        """Note a fate durably, and open its place again where the picture is of no use."""
        candidate = self._on_the_way.pop(fate.wanted.sha256)
        known = self._log.entries.get(candidate.row.sha256)
        if known is None or known.outcome != fate.outcome or fate.attempts:
            known = entry_of(candidate.row, candidate.rank, fate)
            self._log.add(known)
        if fate.outcome == "ok":
            self.alive[candidate.row.label].append(known)
        else:
            self._open.append(candidate.row.label)
        return known
