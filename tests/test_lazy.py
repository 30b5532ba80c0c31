"""Large sets and runs: what is read when it is asked for is what would have been held."""

import gc
import json
import random
from dataclasses import replace

import pytest
from support import cli_json, read_rows

from evalkit import lazy, storedrows
from evalkit.datasets.build import build
from evalkit.datasets.disk import read_split
from evalkit.errors import DataError, StoreError
from evalkit.lazy import Lazy, Left, held
from evalkit.provenance import digest, digest_of
from evalkit.sampling import stratified
from evalkit.store import RunStore


@pytest.fixture
def data(tmp_path):
    build("grid_patch", tmp_path / "data", n=60)
    return tmp_path / "data"


@pytest.fixture
def nothing_held(monkeypatch):
    monkeypatch.setattr(lazy, "KEPT", 5)
    monkeypatch.setattr(storedrows, "KEPT", 5)


def test_a_sequence_like_its_tuple():
    numbers = Lazy(7, lambda i: i * i)
    whole = tuple(i * i for i in range(7))
    assert tuple(numbers) == whole
    assert (len(numbers), numbers[3], numbers[-1]) == (7, 9, 36)
    assert numbers[1:6:2] == whole[1:6:2]
    assert numbers[::-3] == whole[::-3]
    for index in (7, -8):
        with pytest.raises(IndexError):
            numbers[index]
    assert isinstance(held(3, lambda i: i), tuple)
    assert isinstance(held(lazy.KEPT + 1, lambda i: i), Lazy)


def test_what_is_left_of_a_stream():
    left = Left(iter("ab"))
    assert left
    assert left[0] == "a"
    assert (left.popleft(), left.popleft()) == ("a", "b")
    assert not left
    with pytest.raises(IndexError):
        left.popleft()


def test_a_digest_of_values_one_by_one():
    values = [["a", 1], {"b": None, "a": [1.5, "é"]}, 3]
    assert digest_of(iter(values)) == digest(values)
    assert digest_of([]) == digest([])


def test_a_split_that_is_read_as_it_is_asked_for(data, nothing_held, monkeypatch):
    found = read_split(data, "grid_patch", "train")
    assert isinstance(found.samples, Lazy)
    some = stratified(found.samples, 20, 3)
    monkeypatch.setattr(lazy, "KEPT", 10_000)
    whole = read_split(data, "grid_patch", "train")
    assert isinstance(whole.samples, tuple)
    assert tuple(found.samples) == whole.samples
    assert tuple(some) == stratified(whole.samples, 20, 3)
    assert replace(found, samples=whole.samples) == whole


def test_a_split_that_another_takes_the_place_of(data, nothing_held):
    """As `data build --force` does: what was opened is read on, what was changed in place is named."""
    found = read_split(data, "grid_patch", "train")
    before = found.samples[7]
    path = data / "grid_patch/train/metadata.jsonl"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(b"")
    assert found.samples[7] == before
    path.write_bytes(content)
    changed = read_split(data, "grid_patch", "train")
    path.write_bytes(b"x" * len(content))
    with pytest.raises(DataError, match=r"metadata\.jsonl: was changed while it was read"):
        changed.samples[7]
    del found, changed
    gc.collect()  # leaves no file open: a ResourceWarning would be an error


def row(i, **changes):
    return {"sample_id": f"s{i}", "verdict": "correct", "reply": f"{i}\u2028é"} | changes


def test_rows_beyond_those_that_are_held(tmp_path, nothing_held):
    rng = random.Random(0)
    rows = [row(i, verdict=rng.choice(["wrong", "failed"])) for i in range(40)]
    with RunStore(tmp_path) as store:
        for one in rows[:30]:
            store.append(one)
        assert list(store.rows.values()) == rows[:30]
    with RunStore(tmp_path) as store:
        for one in rows[30:]:
            store.append(one)
        assert list(store.rows.values()) == rows
        assert store.rows["s33"] == rows[33]
        assert store.failed == {one["sample_id"] for one in rows if one["verdict"] == "failed"}
        with pytest.raises(StoreError, match="answered twice"):
            store.append(rows[20])
        kept = [one for one in rows if one["verdict"] != "failed"]
        store.replace_rows(one for one in store.rows.values() if one["verdict"] != "failed")
        assert list(store.rows.values()) == kept
        assert not store.failed
        store.append(row(99))
        assert [one["sample_id"] for one in store.rows.values()][-1] == "s99"
    assert read_rows(tmp_path) == [*kept, row(99)]


@pytest.mark.parametrize("torn", [1, 5, 70_000])
def test_a_torn_line_of_any_length_is_cut_off(torn, tmp_path):
    with RunStore(tmp_path) as store:
        store.append(row(1))
    whole = (tmp_path / "rows.jsonl").read_bytes()
    (tmp_path / "rows.jsonl").write_bytes(whole + b"{" + b"x" * torn)
    with RunStore(tmp_path) as store:
        assert list(store.rows) == ["s1"]
        store.append(row(2))
    assert [one["sample_id"] for one in read_rows(tmp_path)] == ["s1", "s2"]
    (tmp_path / "rows.jsonl").write_bytes(b"x" * torn)
    with RunStore(tmp_path) as store:
        assert not store.rows


def test_a_run_is_the_same_whether_its_parts_are_held(data, tmp_path, monkeypatch):
    """With samples that fail at first and are asked again."""
    words = ["run", "--model", "fake", "--task", "grid_patch", "--split", "train", "--data", data]
    words += ["--set", "reply=(3, 4)", "--set", "faults={failed: 0.3}"]
    held_run = cli_json(*words, "--results", tmp_path / "held", exit_code=3)
    held_again = cli_json(*words, "--results", tmp_path / "held", exit_code=3)
    monkeypatch.setattr(lazy, "KEPT", 5)
    monkeypatch.setattr(storedrows, "KEPT", 5)
    read_run = cli_json(*words, "--results", tmp_path / "read", exit_code=3)
    read_again = cli_json(*words, "--results", tmp_path / "read", exit_code=3)

    def comparable(result):
        return {key: value for key, value in result.items() if key != "run"}

    assert comparable(held_run) == comparable(read_run)
    assert comparable(held_again) == comparable(read_again)
    rows = [
        [{k: v for k, v in one.items() if k != "latency_s"} for one in read_rows(found["run"])]
        for found in (held_again, read_again)
    ]
    assert rows[0] == rows[1]
    assert any(one["verdict"] == "failed" for one in rows[0])
    assert json.dumps(rows[0]) == json.dumps(rows[1])
