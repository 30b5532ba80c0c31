"""The run folder: durable, torn lines dropped, one writer, atomic replacement."""

import json
import os
import subprocess
import sys

import pytest

from evalkit.errors import StoreError
from evalkit.store import RunStore, find_runs, read_meta, read_rows


def row(name, **fields):
    return {"sample_id": name, "verdict": "correct", **fields}


def test_rows_survive_reopening(tmp_path):
    with RunStore(tmp_path / "run") as store:
        store.append(row("a", reply="zwei\nZeilen \u2028 \ud800"))  # a lone surrogate as models send them
        store.append(row("b"))
    with RunStore(tmp_path / "run") as store:
        assert list(store.rows) == ["a", "b"]
        assert store.rows["a"]["reply"] == "zwei\nZeilen \u2028 \ud800"


@pytest.mark.parametrize("torn", ['{"sample_id": "c", "ver', "{", '{"sample_id": "c", "verdict": "correct"}'])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    """Also a line that lacks nothing but its end: it may be the head of a longer one."""
    with RunStore(tmp_path) as store:
        store.append(row("a"))
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(torn)
    assert [r["sample_id"] for r in read_rows(tmp_path)] == ["a"]  # readers leave the file alone
    with RunStore(tmp_path) as store:
        assert list(store.rows) == ["a"]
        store.append(row("b"))
    assert [json.loads(line)["sample_id"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == [
        "a",
        "b",
    ]


def test_a_damaged_whole_line_is_an_error_with_its_place(tmp_path):
    with RunStore(tmp_path) as store:
        store.append(row("a"))
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("garbage\n")
    with pytest.raises(StoreError, match=r"rows\.jsonl:2: not a row"):
        RunStore(tmp_path)


def test_a_sample_stands_once(tmp_path):
    with RunStore(tmp_path) as store:
        store.append(row("a"))
        with pytest.raises(StoreError, match="answered twice"):
            store.append(row("a"))
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(json.dumps(row("a")) + "\n")
    with pytest.raises(StoreError, match="stands there twice"):
        RunStore(tmp_path)


def test_second_process_is_refused(tmp_path):
    code = f"from evalkit.store import RunStore; from pathlib import Path; RunStore(Path({str(tmp_path)!r}))"
    with RunStore(tmp_path):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert f"another process (pid {os.getpid()}) is writing this run" in other.stderr
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0  # free again


def test_replace_rows_is_all_or_nothing(tmp_path, monkeypatch):
    with RunStore(tmp_path) as store:
        store.append(row("a"))
        store.append(row("b"))
        store.replace_rows([row("b")])
        store.append(row("c"))
        assert [r["sample_id"] for r in read_rows(tmp_path)] == ["b", "c"]
        monkeypatch.setattr(
            "pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
        )
        with pytest.raises(StoreError, match="No space left"):
            store.replace_rows([])
    assert [r["sample_id"] for r in read_rows(tmp_path)] == ["b", "c"]


def test_nan_is_refused(tmp_path):
    with RunStore(tmp_path) as store, pytest.raises(ValueError, match="JSON compliant"):
        store.append(row("a", distance=float("nan")))
    assert not list(read_rows(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot be read"), ('{"schema": 99}', "found 99"), ("[]", "found 'list'")],
)
def test_read_meta_errors(tmp_path, content, message):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(StoreError, match=message):
        read_meta(tmp_path)


def test_read_meta_of_no_run(tmp_path):
    with pytest.raises(StoreError, match="no run here"):
        read_meta(tmp_path)


def test_find_runs(tmp_path):
    for name in ("m/b-test-1", "m/a-test-2", "n/a-test-3"):
        with RunStore(tmp_path / "runs" / name) as store:
            store.write_meta({"schema": 1})
    RunStore(tmp_path / "runs" / "n" / "empty").__exit__(None, None, None)
    assert [p.name for p in find_runs(tmp_path)] == ["a-test-2", "b-test-1", "a-test-3"]


def test_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        RunStore(tmp_path / "file" / "run")
