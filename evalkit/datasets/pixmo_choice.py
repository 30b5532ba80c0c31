"""Which photographs of PixMo-Points are asked, and in what order others stand in for the dead: a seeded rule.

Categories are the labels with the most distinct pictures, ties by name. In a category pictures are ranked by
sha256("<seed>\\0<label>\\0<sha256 of the picture>"). A picture that several chosen categories could use serves the
one in which its rank is smallest, so none occurs twice. The first that are alive are the set.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from evalkit.datasets.pixmo_source import PointRow
from evalkit.errors import DataError

# Of 436 rows 225 were alive in 2026-08; thirty times the need outlasts any link rot short of the end.
RESERVES = 30

Rows = Callable[[], Iterable[PointRow]]


@dataclass(slots=True)
class Category:
    """need pictures of the candidates, which are in the order of their rank."""

    label: str
    n_pictures: int
    need: int
    candidates: list[PointRow] = field(default_factory=list)


def rank(seed: int, label: str, sha256: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{label}\0{sha256}".encode()).digest()


def choose(rows: Rows, n: int, n_categories: int, seed: int) -> tuple[list[Category], int]:
    """The categories with their candidates, and how many pairs of picture and label were ambiguous.

    rows is called twice: labels are counted first, then candidates kept. The same picture and label with
    different points is ambiguous and left out. Raises DataError where there are too few labels.
    """
    counts = _pictures_of_labels(rows())
    if len(counts) < n_categories:
        raise DataError(
            f"--categories {n_categories}: only {len(counts)} labels have a picture to ask about."
        )
    labels = sorted(counts, key=lambda label: (-counts[label], label))[:n_categories]
    categories = [
        Category(label, counts[label], n // n_categories + (i < n % n_categories))
        for i, label in enumerate(labels)
    ]
    n_ambiguous = _fill(categories, rows(), seed)
    return categories, n_ambiguous


def _pictures_of_labels(rows: Iterable[PointRow]) -> Counter[str]:
    """Distinct pictures a label; 64 bits of a hash stand for a pair, to keep millions of them small."""
    seen: set[int] = set()
    counts: Counter[str] = Counter()
    for row in rows:
        pair = hashlib.blake2b(f"{row.label}\0{row.sha256}".encode(), digest_size=8).digest()
        if (number := int.from_bytes(pair)) not in seen:
            seen.add(number)
            counts[row.label] += 1
    return counts


def _fill(categories: list[Category], rows: Iterable[PointRow], seed: int) -> int:
    kept = {category.label: _Best(RESERVES * category.need) for category in categories}
    for row in rows:
        if best := kept.get(row.label):
            best.add(rank(seed, row.label, row.sha256), row)
    serves: dict[str, tuple[bytes, str]] = {}
    for label, best in kept.items():
        for place, row in best.ranked():
            serves[row.sha256] = min(serves.get(row.sha256, (place, label)), (place, label))
    for category in categories:
        ranked = kept[category.label].ranked()
        category.candidates = [row for place, row in ranked if serves[row.sha256][1] == category.label]
    return sum(len(best.ambiguous) for best in kept.values())


class _Best:
    """The rows of smallest rank, at most so many; pictures whose point is not the same each time are left out."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: dict[bytes, PointRow] = {}
        self.ambiguous: set[bytes] = set()

    def add(self, place: bytes, row: PointRow) -> None:
        known = self._rows.setdefault(place, row)
        if known.point_xy_percent != row.point_xy_percent:
            self.ambiguous.add(place)
        if len(self._rows) > 2 * self._most:
            self._rows = dict(self._smallest())
            self.ambiguous &= self._rows.keys()

    def _smallest(self) -> list[tuple[bytes, PointRow]]:
        return sorted(self._rows.items(), key=lambda item: item[0])[: self._most]

    def ranked(self) -> Iterator[tuple[bytes, PointRow]]:
        return ((place, row) for place, row in self._smallest() if place not in self.ambiguous)


def split_names(sizes: Iterable[int]) -> list[list[str]]:
    """train or test for each picture of each category, in the order of rank: one in five is test.

    Rounded cumulatively over the categories, so that the total is within one of 20 % and each category within
    one of its own: ten pictures are eight and two.
    """
    names, seen, given = [], 0, 0
    for size in sizes:
        seen += size
        n_test = (2 * seen + 5) // 10 - given
        given += n_test
        names.append(["train"] * (size - n_test) + ["test"] * n_test)
    return names
