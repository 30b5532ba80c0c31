"""Objects and files: what is moved, what is united, and which names, URLs and errors there are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from remote_fixture import ASKED, KEY_ID, SECRET, asked, lines, mirrored, row, words
from support import cli, cli_json

from evalkit.errors import StoreError, Unsent
from evalkit.remote import folders, uploading
from evalkit.remote import lease as leases
from evalkit.remote.address import parse
from evalkit.remote.folders import fetched, local_folder, sent
from evalkit.remote.names import is_plain
from evalkit.remote.parts import run_of
from evalkit.remote.rows import content, contradictions, only_in, united
from evalkit.remote.run import open_run

# Rows of several parts


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([[row("a"), row("b")], [row("c")]], ["a correct", "b correct", "c correct"]),
        ([[row("a", "wrong")], [row("a", "correct")]], ["a wrong"]),  # the first stands
        ([[row("a", "failed")], [row("a", "correct")]], ["a correct"]),  # but for one that failed
        ([[row("a", "failed")], [row("a", "failed"), row("b")]], ["a failed", "b correct"]),
        ([[row("a", "correct")], [row("a", "failed")]], ["a correct"]),
        ([[], []], []),
    ],
)
def test_each_sample_stands_once(parts, expected):
    found = united(lines(*part) for part in parts)
    assert [
        f"{one['sample_id']} {one['verdict']}" for one in map(json.loads, content(found).splitlines())
    ] == expected


def test_what_is_no_row_is_kept_for_its_reader_and_torn_ends_are_not():
    found = united([b'{"sample_id": "a", "verdict": "correct"}\nrubbish\n{"sample_id": "b"'])
    assert content(found) == b'{"sample_id": "a", "verdict": "correct"}\nrubbish\n'


def test_rows_of_the_mirror_alone():
    shared = united([lines(row("a", reply="1"), row("b", "failed"), row("c", reply="3"))])
    mine = united([lines(row("a", reply="2"), row("b", reply="4"), row("c", reply="3", read=1), row("d"))])
    assert list(only_in(mine, shared)) == ["b", "d"]
    assert contradictions(mine, shared) == ["a"]


def test_a_contradiction_keeps_the_buckets_row_and_says_so(s3, caplog):
    folder = local_folder(f"{s3.url}/runs/m/t-0a1b2c3d")
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_bytes(lines(row("a", reply="here"), row("b", reply="here")))
    s3.put("shared/runs/m/t-0a1b2c3d/rows.jsonl", lines(row("a", reply="there")))
    with open_run(folder) as store:
        assert {name: one["reply"] for name, one in store.rows.items()} == {"a": "there", "b": "here"}
    assert "1 samples have another reply here than in the bucket, whose stands; the first: 'a'" in caplog.text
    assert s3.get("shared/runs/m/t-0a1b2c3d/rows.jsonl") == lines(
        row("a", reply="there"), row("b", reply="here")
    )


def test_a_damaged_segment_is_named_and_leaves_the_mirror_as_it_was(s3, caplog):
    """Rows that only this machine has are there when the object is mended."""
    url = f"{s3.url}/runs/m/t-0a1b2c3d"
    folder, sound = local_folder(url), lines(row("a"))
    key = "shared/runs/m/t-0a1b2c3d/rows/000001-o.jsonl"
    s3.put(key, b"garbage\n" + sound)
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_bytes(lines(row("mine")))
    with pytest.raises(StoreError, match=r"000001-o\.jsonl:1: not a row"):
        open_run(folder)
    fetched(local_folder(s3.url), "runs")
    assert "000001-o.jsonl:1: not a row" in caplog.text
    assert (folder / "rows.jsonl").read_bytes() == lines(row("mine"))
    s3.put(key, sound)
    with open_run(folder) as store:
        assert set(store.rows) == {"a", "mine"}
    assert sorted(s3.samples()) == ["a", "mine"]


def test_replies_survive_as_they_were(s3):
    odd = "zwei\nZeilen \u2028 \ud800"  # a lone surrogate as models send them
    folder = local_folder(f"{s3.url}/runs/m/t-0a1b2c3d")
    with open_run(folder) as store:
        store.append(row("a", reply=odd))
    with open_run(folder) as store:
        assert store.rows["a"]["reply"] == odd


@pytest.mark.parametrize(
    ("key", "run"),
    [
        ("p/runs/m/t-0a1b2c3d/rows.jsonl", "p/runs/m/t-0a1b2c3d"),
        ("runs/m/t-0a1b2c3d/rows/000001-a.jsonl", "runs/m/t-0a1b2c3d"),
        ("runs/m/t-0a1b2c3d/run.json", "runs/m/t-0a1b2c3d"),
        ("leaderboard/runs/m/t-0a1b2c3d.html", None),
        ("runs/experiment/leaderboard/leaderboard.html", None),  # of s3://bucket/runs/experiment
        ("runs/experiment/runs/m/t-0a1b2c3d/run.json", "runs/experiment/runs/m/t-0a1b2c3d"),
        ("probes/m/r/rows.jsonl", None),
    ],
)
def test_run_of(key, run):
    assert run_of(key) == run


# Pulling and pushing


def test_only_what_changed_is_moved(s3):
    for i in range(5):
        s3.put(f"shared/d/{i}", b"one")
    folder = local_folder(f"{s3.url}/d")
    fetched(folder)
    assert sorted(path.name for path in folder.iterdir()) == list("01234")
    s3.put("shared/d/3", b"two")
    s3.delete("shared/d/4")
    s3.proxy.seen.clear()
    fetched(folder)
    assert [path.rpartition("/")[2] for path in s3.proxy.asked("GET", "/d/3")] == ["3"]
    assert len(s3.proxy.asked("GET")) == 2  # the list, and what changed in it
    assert (folder / "3").read_bytes() == b"two"
    assert not (folder / "4").exists()

    (folder / "0").write_bytes(b"mine")
    (folder / "1").unlink()
    (folder / "new").mkdir()
    (folder / "new" / "5").write_bytes(b"five")
    (folder / "half.tmp").write_bytes(b"")
    (folder / ".hidden").write_bytes(b"")
    (folder / "link").symlink_to("/etc/hostname")
    s3.proxy.seen.clear()
    sent(folder)
    assert sorted(path.rpartition("/")[2] for path in s3.proxy.asked("PUT")) == ["0", "5"]
    assert s3.names() == [f"shared/d/{name}" for name in ("0", "2", "3", "new/5")]
    s3.proxy.seen.clear()
    sent(folder)
    fetched(folder)
    assert [method for method, _ in s3.proxy.seen] == ["GET"]  # one list


def test_where_both_changed_the_bucket_stands_and_what_changed_here_alone_is_kept(s3):
    for name in "ab":
        s3.put(f"shared/d/{name}", b"old")
    folder = fetched(local_folder(f"{s3.url}/d"))
    for name in "ab":
        (folder / name).write_bytes(b"mine")
    s3.put("shared/d/b", b"theirs")
    fetched(folder)
    assert [(folder / name).read_bytes() for name in "ab"] == [b"mine", b"theirs"]


@pytest.mark.parametrize("fault", ["cut", "refuse", "503"])
def test_a_torn_download_leaves_the_old_file(s3, fault):
    s3.put("shared/d/a", b"old" * 1000)
    folder = fetched(local_folder(f"{s3.url}/d"))
    s3.put("shared/d/a", b"new" * 2000)
    s3.proxy.rule = lambda method, path: fault if method == "GET" and path.endswith("/d/a") else None
    with pytest.raises(StoreError, match="does not answer as it should"):
        fetched(folder)
    assert (folder / "a").read_bytes() == b"old" * 1000
    assert [path.name for path in folder.iterdir()] == ["a"]
    s3.proxy.fail(None)
    fetched(folder)
    assert (folder / "a").read_bytes() == b"new" * 2000


def test_a_failed_upload_leaves_the_old_object(s3):
    folder = local_folder(f"{s3.url}/d")
    s3.put("shared/d/a", b"old")
    fetched(folder)
    (folder / "a").write_bytes(b"new" * 100_000)
    s3.proxy.fail("refuse", "PUT")
    with pytest.raises(Unsent, match=r"is kept in .* the same command sends it"):
        sent(folder)
    assert s3.get("shared/d/a") == b"old"
    s3.proxy.fail(None)
    sent(folder)
    assert s3.get("shared/d/a") == b"new" * 100_000


HOSTILE = [
    "../escape", "a/../../escape", "/absolute", "a//b", "./dot", ".hidden", "a/.git/config", "a\\..\\b", "bell\x07",
    "\u202egnp.exe", "l" * 300, "half.tmp", "lease.json",
]  # fmt: skip


def test_hostile_names_never_leave_the_mirror(s3, tmp_path, caplog):
    for i, name in enumerate(HOSTILE):
        s3.put(f"shared/d/{name}", f"evil {i}".encode())
        s3.put(f"shared/runs/m/t-0a1b2c3d/{name}", f"evil {i}".encode())
        if name in HOSTILE[:-2]:
            s3.put(f"shared/runs/m/t-0a1b2c3d/rows/{name}.jsonl", lines(row(f"evil{i}")))
    s3.put("shared/d/good", b"good")
    s3.put("shared/d/x", b"file")
    s3.put("shared/d/x/y", b"file below a file")
    s3.put("shared/runs/m/t-0a1b2c3d/rows.jsonl", lines(row("a")))
    before = {path for path in tmp_path.parent.rglob("*") if "machine-1" not in path.parts}
    fetched(local_folder(s3.url), "d", "runs")
    assert {path for path in tmp_path.parent.rglob("*") if "machine-1" not in path.parts} == before
    files = {name.partition("/files/")[2] for name in mirrored(tmp_path) if "/files/" in name}
    assert files - {"shared/runs/m/t-0a1b2c3d/.lock"} in (
        {"shared/d/good", "shared/d/x", "shared/runs/m/t-0a1b2c3d/rows.jsonl"},
        {"shared/d/good", "shared/d/x/y", "shared/runs/m/t-0a1b2c3d/rows.jsonl"},
    )
    said = [record.getMessage() for record in caplog.records if record.name.startswith("evalkit")]
    assert all(
        "their names are no file names here" in line and line.isascii() and line.isprintable()
        for line in said
    )
    assert len(said) == 2
    (rows,) = (tmp_path / "machine-1").rglob("rows.jsonl")
    assert [json.loads(line)["sample_id"] for line in rows.read_text().splitlines()] == ["a"]


@pytest.mark.parametrize("name", [*HOSTILE[:-2], "new\nline", "\ud800", "", "/".join(["deep"] * 300)])
def test_is_plain(name):
    assert not is_plain(name)


def test_a_link_in_the_mirror_is_not_followed(s3, tmp_path):
    folder = local_folder(f"{s3.url}/d")
    folder.mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (folder / "sub").symlink_to(tmp_path / "outside")
    s3.put("shared/d/sub/file", b"evil")
    fetched(folder)
    assert not list((tmp_path / "outside").iterdir())


# Other storages, errors, secrets


def test_memory(grid_data, tmp_path, monkeypatch):
    """Any protocol of fsspec; without conditions on puts the lease is looked at again."""
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "a"))
    monkeypatch.setattr(leases, "_LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(uploading, "EVERY_S", 0.05)
    monkeypatch.setattr(folders, "_NOT_SHARED", frozenset())
    url = f"memory://{tmp_path.name}/results"
    assert cli_json(*words(grid_data, url, tmp_path / "log"))["status"] == "complete"
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "b"))
    assert cli_json(*words(grid_data, url, tmp_path / "log"))["status"] == "complete"
    assert len(asked(tmp_path / "log")) == ASKED
    assert len(cli_json("leaderboard", "--results", url, "--no-pages")["runs"]) == 1


@pytest.mark.parametrize("url", ["memory://bucket/x", "http://127.0.0.1:9/x", "https://host/x"])
def test_what_nobody_else_could_read_is_refused(url, grid_data, tmp_path, monkeypatch):
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    result = cli(*words(grid_data, url))
    assert result.exit_code == 1
    assert "keeps nothing that another process could read" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_file_urls_are_folders(tmp_path):
    assert local_folder(f"file://{tmp_path}") == tmp_path
    assert local_folder("a/b") == Path("a/b")


@pytest.mark.parametrize(
    "url",
    [
        f"s3://{KEY_ID}:{SECRET}@bucket/x",
        f"s3://{KEY_ID}:with/slash{SECRET}@bucket/x",
        f"s3://{SECRET}@bucket/x",
        f"sftp://user:{SECRET}@host/x",
        f"abfs://c@account.dfs.core.windows.net/x?sig={SECRET}",
        f"s3://bucket/x#{SECRET}",
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_repeated(url, tmp_path, monkeypatch):
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    result = cli("leaderboard", "--results", url)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert SECRET not in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://no-such-bucket-here/x", "no such bucket"),
        ("nope://bucket/x", "no storage is called 'nope'"),
        ("s3://", "expected s3://BUCKET/PATH"),
        ("s3://bucket/../x", "must be a plain name"),
        ("s3://bucket/a//b", "must be a plain name"),
    ],
)
def test_errors_are_one_line(s3, url, words):
    result = cli("leaderboard", "--results", url)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert words in line


def test_no_permission_is_one_line(s3, grid_data):
    s3.proxy.fail("403")
    for command in (("leaderboard", "--results", s3.url), words(grid_data, s3.url)):
        result = cli(*command)
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert "these credentials do not allow it" in line


def test_storage_that_is_down_at_the_start_is_one_line(s3, grid_data, tmp_path):
    s3.proxy.fail("refuse")
    result = cli(*words(grid_data, s3.url, tmp_path / "log"))
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "the storage does not answer" in line
    assert not asked(tmp_path / "log")


def test_no_credentials_is_one_line(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    result = cli("leaderboard", "--results", s3.url)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "no credentials" in line
    assert "AWS_PROFILE" in line


@pytest.mark.parametrize(
    ("package", "url", "how"),
    [
        ("fsspec", "s3://b/x", "pip install 'evalkit-vlm[s3]'"),
        ("s3fs", "s3://b/x", "pip install 'evalkit-vlm[s3]'"),
        ("gcsfs", "gs://b/x", "pip install 'gcsfs'"),
    ],
)
def test_a_missing_package_is_named(package, url, how, tmp_path):
    program = f"import sys; sys.modules[{package!r}] = None\nfrom evalkit.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, "leaderboard", "--results", url],
        env=os.environ | {"EVALKIT_CACHE": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert how in line


def test_local_folders_need_no_fsspec(grid_data, tmp_path):
    program = (
        "import sys; sys.modules['fsspec'] = sys.modules['s3fs'] = None\n"
        "from evalkit.cli import main; main(sys.argv[1:])"
    )
    for command in (
        words(grid_data, tmp_path / "r"),
        ("leaderboard", "--results", tmp_path / "r", "--data", grid_data),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, command)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_secrets_are_in_no_output_and_in_no_file(s3, grid_data, tmp_path, monkeypatch, caplog):
    password = "hunter2hunter2"
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.proxy.url.replace("//", f"//me:{password}@"))
    outputs = [cli(*words(grid_data, s3.url)).output, cli("leaderboard", "--results", s3.url).output]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://me:{password}@127.0.0.1:9")
    outputs += [cli("leaderboard", "--results", s3.url).output, cli(*words(grid_data, s3.url)).output]
    files = [path.read_bytes() for path in (tmp_path / "machine-1").rglob("*") if path.is_file()]
    objects = [s3.get(key) for key in s3.names()]
    assert len(outputs[2].splitlines()) == 1
    for secret in (SECRET, KEY_ID, password):
        assert not [text for text in [*outputs, caplog.text] if secret in text]
        assert not [text for text in [*files, *objects] if secret.encode() in text]


def test_a_mirror_of_another_endpoint_is_not_taken_for_this_one(s3, monkeypatch):
    folder = local_folder(s3.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert local_folder(s3.url) != folder
    with pytest.raises(StoreError, match="of another endpoint"):
        fetched(folder)


def test_parse():
    assert str(parse("S3A://b/x/y/")) == "s3://b/x/y"
    assert parse("abfs://c@account.dfs.core.windows.net/x").bucket == "c@account.dfs.core.windows.net"


def test_without_a_home_local_folders_work_and_urls_say_what_to_set(tmp_path, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("EVALKIT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert fetched(tmp_path) == tmp_path
    with pytest.raises(StoreError, match="set EVALKIT_CACHE"):
        local_folder("s3://bucket/x")
