"""--limit: seeded, class-stratified, in split order."""

from collections import Counter
from pathlib import Path

import pytest

from evalkit.errors import ConfigError
from evalkit.records import Sample
from evalkit.sampling import stratified


def sample(index, stratum):
    return Sample(f"s{index:04d}", f"i{index}", "test", Path("x.png"), (1, 1), "0", 0, stratum, {}, {})


SORTED_BY_CLASS = [sample(i, str(i // 40)) for i in range(240)]  # as a folder listing would have them


def test_classes_keep_their_share():
    counts = Counter(s.stratum for s in stratified(SORTED_BY_CLASS, 20, seed=0))
    assert sum(counts.values()) == 20
    assert set(counts.values()) == {3, 4}  # 20 over six classes of equal size


def test_uneven_classes():
    samples = [sample(i, "rare" if i % 10 == 0 else "common") for i in range(100)]
    assert Counter(s.stratum for s in stratified(samples, 20, 0)) == {"common": 18, "rare": 2}


def test_seed_decides_and_order_is_the_splits():
    first, again, other = (stratified(SORTED_BY_CLASS, 20, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert list(first) == sorted(first, key=lambda s: s.sample_id)


def test_order_of_the_split_does_not_matter():
    forward = {s.sample_id for s in stratified(SORTED_BY_CLASS, 33, 5)}
    backward = {s.sample_id for s in stratified(SORTED_BY_CLASS[::-1], 33, 5)}
    assert forward == backward


@pytest.mark.parametrize("limit", [None, 240, 1000])
def test_all(limit):
    assert stratified(SORTED_BY_CLASS, limit, 0) == tuple(SORTED_BY_CLASS)


def test_limit_of_one():
    assert len(stratified(SORTED_BY_CLASS, 1, 0)) == 1


def test_limit_below_one():
    with pytest.raises(ConfigError, match="at least 1"):
        stratified(SORTED_BY_CLASS, 0, 0)
