"""Archives of results: what leaves the machine, what is refused by name, merging, what changed and why."""

import hashlib
import json
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from sharing_fixture import lines, make_results, rewrite, rows_of
from support import cli, cli_json, read_rows

from evalkit.sharing.archive import row_digest
from evalkit.sharing.scrub import holds_key, scrub_hosts, scrub_meta, scrub_text


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def archive(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "all.zip"
    cli("results", "export", "--all", "--results", source, "--out", path)
    return path


def runs_in(archive):
    with zipfile.ZipFile(archive) as file:
        return [entry["run"] for entry in json.loads(file.read("manifest.json"))["runs"]]


def refused(path, tmp_path, *more):
    """The lines of a refusal; nothing may have been written."""
    target = tmp_path / "target"
    result = cli("results", "import", path, "--results", target, *more)
    assert result.exit_code == 1, result.output
    left = (
        [p for p in target.rglob("*") if p.is_file() and p.name != ".import.lock"] if target.exists() else []
    )
    assert left == []
    return result.stderr.splitlines()


def with_manifest(change):
    """A change of a member whose checksums are put right, as a careful forger would."""

    def apply(contents):
        manifest = json.loads(contents["manifest.json"])
        change(contents)
        for entry in manifest["runs"]:
            run = entry["run"]
            meta, rows = contents[f"{run}/run.json"], contents[f"{run}/rows.jsonl"]
            entry["run_json_sha256"] = hashlib.sha256(meta).hexdigest()
            entry["rows_jsonl_sha256"] = hashlib.sha256(rows).hexdigest()
            entry["row_sha256"] = [row_digest(run, line) for line in rows.splitlines(keepends=True)]
        contents["manifest.json"] = json.dumps(manifest).encode()

    return apply


def forged(archive, target, change):
    with zipfile.ZipFile(archive) as old:
        contents = {name: old.read(name) for name in old.namelist()}
    with_manifest(change)(contents)
    with zipfile.ZipFile(target, "w") as new:
        for name, content in contents.items():
            new.writestr(name, content)
    return target


def test_there_and_back(source, archive, tmp_path):
    """All runs arrive, are there when they come again, and make the same archive."""
    target = tmp_path / "target"
    document = cli_json("results", "import", archive, "--results", target)
    assert sorted(document["imported"]) == sorted(runs_in(archive))
    assert len(document["imported"]) == 2
    for run in document["imported"]:
        assert read_rows(target / run) == read_rows(source / run)
    assert cli_json("results", "import", archive, "--results", target)["present"] == runs_in(archive)
    assert cli_json("results", "import", archive, "--results", source)["present"] == runs_in(archive)
    cli("results", "export", "--all", "--results", target, "--out", tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    assert not list(target.glob(".importing-*"))


def test_one_run_by_its_folder(source, archive, tmp_path):
    run = runs_in(archive)[0]
    cli("results", "export", source / run, "--results", source, "--out", tmp_path / "one.zip")
    assert runs_in(tmp_path / "one.zip") == [run]


def test_a_tampered_row_is_named(archive, tmp_path):
    run = runs_in(archive)[1]

    def change(name, content):
        if name != f"{run}/rows.jsonl":
            return content
        rows = rows_of(content)
        rows[4]["verdict"] = "correct" if rows[4]["verdict"] != "correct" else "wrong"
        change.sample = rows[4]["sample_id"]
        return lines(rows)

    found = refused(rewrite(archive, tmp_path / "t.zip", change), tmp_path)
    assert (
        f"{run}/rows.jsonl:5: sample '{change.sample}' changed since it was exported, or was not in it."
        in found
    )
    assert any("counts are not those of its rows" in line for line in found)
    assert "nothing was imported" in found[0]


def test_a_row_of_another_run_is_named(archive, tmp_path):
    first, second = runs_in(archive)
    with zipfile.ZipFile(archive) as file:
        foreign = file.read(f"{first}/rows.jsonl").splitlines(keepends=True)

    def change(name, content):
        if name != f"{second}/rows.jsonl":
            return content
        mine = content.splitlines(keepends=True)
        at = next(i for i, line in enumerate(foreign) if line not in mine)
        change.at, change.sample = at, json.loads(foreign[at])["sample_id"]
        mine[at] = foreign[at]
        return b"".join(mine)

    found = refused(rewrite(archive, tmp_path / "t.zip", change), tmp_path)
    assert f"{second}/rows.jsonl:{change.at + 1}: sample '{change.sample}' is a row of {first}." in found


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows[:-2], "2 of 24 exported rows are missing"),
        (lambda rows: [*rows, rows[3]], "stands there again"),
        (
            lambda rows: [*rows, {**rows[0], "sample_id": "new"}],
            "sample 'new' changed since it was exported, or was not in it",
        ),
        (lambda rows: rows[::-1], "its rows stand in another order"),
    ],
)
def test_rows_missing_doubled_added_or_moved(archive, tmp_path, change, told):
    run = runs_in(archive)[0]
    path = rewrite(
        archive,
        tmp_path / "t.zip",
        lambda name, content: lines(change(rows_of(content))) if name == f"{run}/rows.jsonl" else content,
    )
    assert any(told in line and run in line for line in refused(path, tmp_path))


def test_a_changed_run_json_is_named(archive, tmp_path):
    run = runs_in(archive)[0]

    def change(name, content):
        return content.replace(b'"seed": 0', b'"seed": 1', 1) if name == f"{run}/run.json" else content

    assert f"{run}/run.json: changed since it was exported." in refused(
        rewrite(archive, tmp_path / "t.zip", change), tmp_path
    )


def test_many_faults_are_counted(archive, tmp_path):
    def change(name, content):
        return (
            content.replace(b'"latency_s": 0', b'"latency_s": 1') if name.endswith("rows.jsonl") else content
        )

    found = refused(rewrite(archive, tmp_path / "t.zip", change), tmp_path)
    assert "48 faults" in found[0]
    assert found[-1] == "and 28 more."


def test_forgeries_with_right_checksums(archive, tmp_path):
    """What the numbers themselves give away."""
    run = runs_in(archive)[0]

    def counts(contents):
        meta = json.loads(contents[f"{run}/run.json"])
        meta["counts"]["correct"] += 1
        contents[f"{run}/run.json"] = json.dumps(meta).encode()

    assert any(
        "counts are not those" in line
        for line in refused(forged(archive, tmp_path / "a.zip", counts), tmp_path)
    )

    def renamed(contents):
        meta = json.loads(contents[f"{run}/run.json"])
        meta["model"]["name"] = "another"
        contents[f"{run}/run.json"] = json.dumps(meta).encode()

    assert any(
        "says another on grid_patch-test" in line
        for line in refused(forged(archive, tmp_path / "b.zip", renamed), tmp_path)
    )

    def verdicts(contents):
        rows = rows_of(contents[f"{run}/rows.jsonl"])
        meta = json.loads(contents[f"{run}/run.json"])
        row = next(row for row in rows if row["verdict"] == "wrong")
        row["verdict"] = "correct"
        meta["counts"]["wrong"] -= 1
        meta["counts"]["correct"] += 1
        contents[f"{run}/rows.jsonl"], contents[f"{run}/run.json"] = lines(rows), json.dumps(meta).encode()

    path = forged(archive, tmp_path / "c.zip", verdicts)
    assert any(
        "1 verdict that this evalkit would not give" in line for line in refused(path, tmp_path, "--strict")
    )
    document = cli_json("results", "import", path, "--results", tmp_path / "lenient")
    assert len(document["warnings"]) == 1


def hostile_zip(path, name, content=b"x", mode=None, again=False):
    with zipfile.ZipFile(path, "w") as file:
        info = zipfile.ZipInfo(name)
        if mode:
            info.external_attr = mode << 16
        file.writestr(info, content)
        if again:
            file.writestr(name.upper(), content)
    return path


MANIFEST = json.dumps({"format": "evalkit-results", "version": 1, "evalkit": "0", "runs": []}).encode()


@pytest.mark.parametrize(
    "name",
    [
        "../../evil",
        "/etc/evil",
        "runs/../../evil/run.json",
        "C:\\evil",
        "runs/m/r/run.json\x1b[31m",
        "runs/.hidden/r/rows.jsonl",
    ],
)
def test_members_that_lead_elsewhere(archive, tmp_path, name):
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("manifest.json", MANIFEST)
        file.writestr(name, "x")
    (line,) = refused(path, tmp_path)
    assert "does not belong into it" in line
    assert "\x1b" not in line
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize(
    "run",
    [
        "runs/../x",
        "runs/a/../../b",
        "/runs/a/b",
        "runs/a",
        "runs/.a/b",
        "runs/a/b/c",
        "runs/a/b\n",
        "runs/a/" + "b" * 300,
        "runs\\a\\b",
    ],
)
def test_runs_that_lead_elsewhere(tmp_path, run):
    entry = {"run": run, "run_json_sha256": "0" * 64, "rows_jsonl_sha256": "0" * 64, "row_sha256": []}
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("manifest.json", json.dumps({**json.loads(MANIFEST), "runs": [entry]}))
        file.writestr(f"{run}/run.json", "{}")
        file.writestr(f"{run}/rows.jsonl", "")
    (line,) = refused(path, tmp_path)
    assert "no name of a run" in line


def test_links_and_doubles(archive, tmp_path):
    run = runs_in(archive)[0]
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            info = zipfile.ZipInfo(name)
            if name == f"{run}/rows.jsonl":
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            new.writestr(info, old.read(name))
    assert "no plain file" in refused(path, tmp_path)[0]
    with zipfile.ZipFile(path, "w") as new:
        new.writestr("manifest.json", MANIFEST)
        with pytest.warns(UserWarning, match="Duplicate"):
            new.writestr("manifest.json", MANIFEST)
    assert "more than once" in refused(path, tmp_path)[0]
    with zipfile.ZipFile(path, "w") as new:
        new.writestr("manifest.json", MANIFEST)
        new.writestr("MANIFEST.json", MANIFEST)
    assert "more than once" in refused(path, tmp_path)[0]


def test_a_bomb_is_stopped_early(archive, tmp_path):
    run = runs_in(archive)[0]
    bomb = rewrite(
        archive,
        tmp_path / "t.zip",
        lambda name, content: b"0" * (200 << 20) if name == f"{run}/rows.jsonl" else content,
    )
    assert bomb.stat().st_size < 1 << 20
    (line,) = refused(bomb, tmp_path)
    assert "unpacks beyond all measure" in line


@pytest.mark.parametrize(
    "content",
    [
        b"", b"not a zip", b"PK\x03\x04" + b"\x00" * 100, b"PK\x05\x06" + b"\x00" * 18,
    ],
)  # fmt: skip
def test_what_is_no_archive(tmp_path, content):
    path = tmp_path / "t.zip"
    path.write_bytes(content)
    assert len(refused(path, tmp_path)) == 1


@pytest.mark.parametrize(
    "manifest",
    [b"", b"[]", b"{}", b"[" * 100_000, b'{"format": NaN}', MANIFEST.replace(b'"version": 1', b'"version": 2'),
     MANIFEST.replace(b'"runs": []', b'"runs": [{"run": 1}]'), b"\xff\xfe", MANIFEST.replace(b'"runs"', b'"more": 1, "runs"')],
)  # fmt: skip
def test_malformed_manifests(tmp_path, manifest):
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("manifest.json", manifest)
    (line,) = refused(path, tmp_path)
    assert "manifest.json is not one of evalkit's" in line


@pytest.mark.parametrize(
    "content", [b"{", b"[" * 50_000 + b"\n", b'{"schema": 1}', b'{"schema": 1e999}', b"null", b"\xff"]
)
def test_malformed_runs(archive, tmp_path, content):
    run = runs_in(archive)[0]
    for name in ("run.json", "rows.jsonl"):
        path = forged(
            archive,
            tmp_path / "t.zip",
            lambda contents, name=name: contents.update({f"{run}/{name}": content + b"\n"}),
        )
        assert any(run in line for line in refused(path, tmp_path))


def test_a_torn_archive(archive, tmp_path):
    whole = archive.read_bytes()
    for cut in range(10, len(whole), len(whole) // 25):
        (tmp_path / "t.zip").write_bytes(whole[:cut])
        assert len(refused(tmp_path / "t.zip", tmp_path)) == 1


def test_flipped_bytes_are_always_noticed(archive, tmp_path):
    import random

    whole = bytearray(archive.read_bytes())
    draw = random.Random(0)
    noticed = 0
    for _ in range(60):
        broken = whole.copy()
        broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
        (tmp_path / "t.zip").write_bytes(broken)
        target = tmp_path / "target"
        result = cli("results", "import", tmp_path / "t.zip", "--results", target)
        if (
            result.exit_code == 0
        ):  # a byte that says nothing, such as a date: the content must be the very same
            cli("results", "export", "--all", "--results", target, "--out", tmp_path / "again.zip")
            assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
            import shutil

            shutil.rmtree(target)
        else:
            noticed += 1
    assert noticed > 40


def test_other_content_is_not_replaced_unasked(source, archive, tmp_path):
    target = tmp_path / "target"
    cli("results", "import", archive, "--results", target)
    run = runs_in(archive)[0]
    rows = (target / run / "rows.jsonl").read_text().splitlines(keepends=True)
    (target / run / "rows.jsonl").write_text("".join(rows[:-1]))
    result = cli("results", "import", archive, "--results", target)
    assert result.exit_code == 1
    assert f"{run}: is there already, with other content" in result.stderr
    document = cli_json("results", "import", archive, "--results", target, "--replace", "--dry-run")
    assert document["replaced"] == [run]
    assert len(read_rows(target / run)) == 23, "a dry run writes nothing"
    assert cli_json("results", "import", archive, "--results", target, "--replace")["replaced"] == [run]
    assert read_rows(target / run) == read_rows(source / run)


def test_a_run_that_is_being_written_is_left_alone(archive, tmp_path):
    from evalkit.store import RunStore

    target = tmp_path / "target"
    cli("results", "import", archive, "--results", target)
    with RunStore(target / runs_in(archive)[0]):
        result = cli("results", "import", archive, "--results", target, "--replace")
    assert result.exit_code == 1
    assert "another process" in result.stderr


def test_imports_at_once_and_killed(archive, tmp_path):
    """However many at once, and killed at whatever moment: whole runs or none, and the next import ends well."""
    target, root = tmp_path / "target", Path(__file__).resolve().parent.parent
    words = [
        sys.executable,
        "-m",
        "evalkit",
        "results",
        "import",
        str(archive),
        "--results",
        str(target),
        "--replace",
    ]
    for i in range(6):
        running = [
            subprocess.Popen(words, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for _ in range(2)
        ]
        time.sleep(0.25 + 0.08 * i)
        for process in running:
            process.send_signal(signal.SIGKILL)
            process.wait()
        for run in (target / "runs").glob("*/*"):
            assert len(read_rows(run)) == 24
    document = cli_json("results", "import", archive, "--results", target)
    assert sorted(document["imported"] + document["present"]) == sorted(runs_in(archive))
    assert not list(target.glob(".importing-*"))


def test_two_threads_at_once(archive, tmp_path):
    from evalkit.errors import StoreError
    from evalkit.sharing.merging import merge

    ended = []

    def go():
        try:
            ended.append(merge(archive, tmp_path / "t", replace=False, strict=False, dry_run=False))
        except StoreError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any(isinstance(one, dict) and one["imported"] for one in ended)
    assert all(isinstance(one, dict) or "another import is at work" in one for one in ended)


def test_nothing_of_this_machine_leaves_it(source, tmp_path, monkeypatch):
    from evalkit.store import read_meta

    run = next((source / "runs").glob("*/*"))
    copy = tmp_path / "results/runs" / run.parent.name / run.name
    copy.mkdir(parents=True)
    meta = read_meta(run)
    meta["model"]["checkpoint"] = "/home/someone/checkpoints/secret-model/step 5"
    meta["model"]["runtime"] = {
        "base_url": "http://user:pass@gpu-7.lab.example:8000/v1",
        "note": "~/models/x",
    }
    meta["ran_on"] = {"checkpoint": "C:\\Users\\someone\\model", "device": "cuda"}
    meta["model"]["prices"] = {"source": "https://example.com/prices/"}
    (copy / "run.json").write_text(json.dumps(meta))
    rows = read_rows(run)
    rows[0]["error"] = "OSError: /home/someone/data/x.png at http://gpu-7.lab.example:8000/v1: gone"
    rows[1]["reply"] = "see /home/me/x"
    (copy / "rows.jsonl").write_bytes(lines(rows))
    cli("results", "export", "--all", "--results", tmp_path / "results", "--out", tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        text = "".join(file.read(name).decode() for name in file.namelist())
        out = rows_of(file.read(next(n for n in file.namelist() if n.endswith("rows.jsonl"))))
    for gone in ("someone", "gpu-7", "user:pass", str(tmp_path)):
        assert gone not in text
    assert "https://example.com/prices/" in text
    assert out[1]["reply"] == "see /home/me/x", "a reply is evidence"


@pytest.mark.parametrize("where", ["reply", "error", "meta"])
@pytest.mark.parametrize(
    "key", ["env-key-0123456789", "sk-proj-" + "a1B2" * 8, "AIza" + "b" * 35, "hf_" + "c" * 34]
)
def test_a_key_stops_the_export_and_is_not_shown(source, tmp_path, monkeypatch, where, key):
    monkeypatch.setenv("OPENAI_API_KEY", "env-key-0123456789")
    run = next((source / "runs").glob("*/*"))
    copy = tmp_path / "results/runs" / run.parent.name / run.name
    copy.mkdir(parents=True)
    meta, rows = json.loads((run / "run.json").read_text()), read_rows(run)
    if where == "meta":
        meta["model"]["options"] = {"header": f"Bearer {key}"}
    else:
        rows[2][where] = f"it said {key}."
    (copy / "run.json").write_text(json.dumps(meta))
    (copy / "rows.jsonl").write_bytes(lines(rows))
    result = cli("results", "export", "--all", "--results", tmp_path / "results", "--out", tmp_path / "a.zip")
    assert result.exit_code == 1
    assert key[:12] not in result.output
    assert "run.json" in result.output if where == "meta" else rows[2]["sample_id"] in result.output
    assert not list(tmp_path.glob("a.zip*"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/a b/c/model-7b", "…/model-7b"), ("~/x/y", "…/y"), ("file:///srv/x/y.png", "…/y.png"), ("C:\\a\\b", "…/b"),
        ("Qwen/Qwen2.5-VL-7B", "Qwen/Qwen2.5-VL-7B"), ("checkpoints/x/y", "checkpoints/x/y"), ("yes/no", "yes/no"),
        ("https://u:p@h/v1", "https://h/v1"), ("http://h.example/a/b", "http://h.example/a/b"), ("a / b", "a / b"),
    ],
)  # fmt: skip
def test_paths_are_cut_to_their_last_part(text, shown):
    assert scrub_text(text) == shown


def test_hosts_and_keys():
    assert scrub_hosts("at http://gpu:8000/v1 and https://x") == "at http://…/v1 and https://…"
    assert scrub_meta({"task": {"prompt": "/a/b/c"}, "x": ["/a/b/c"]}) == {
        "task": {"prompt": "/a/b/c"},
        "x": ["…/c"],
    }
    assert not holds_key("a risk-averse mask-like task-based sk-ill", [])


def test_usage(source, tmp_path):
    assert cli("results", "export", "--results", source, "--out", tmp_path / "x.zip").exit_code == 2
    assert (
        cli("results", "export", "--all", "--results", tmp_path, "--out", tmp_path / "x.zip").exit_code == 1
    )
    assert cli("results", "diff", tmp_path / "no", source).exit_code == 1


def changed(source, tmp_path, change):
    """A copy of the results in which each run went through change(meta, rows), against the results."""
    import shutil

    copy = shutil.copytree(source, tmp_path / "copy")
    run = sorted((copy / "runs").glob("*/*"))[0]
    meta, rows = json.loads((run / "run.json").read_text()), read_rows(run)
    change(meta, rows)
    counts = {v: sum(row["verdict"] == v for row in rows) for v in meta["counts"]}
    (run / "run.json").write_text(json.dumps(meta | {"counts": counts}))
    (run / "rows.jsonl").write_bytes(lines(rows))
    return cli_json("results", "diff", source, copy), copy


def causes(document):
    (cell,) = document["changed"]
    return {one["cause"]: [key["key"] for key in one["keys"]] for one in cell["causes"]}


def flip(rows):
    row = next(row for row in rows if row["verdict"] == "wrong")
    row["verdict"] = "correct"
    return row


def test_nothing_changed(source, archive):
    assert cli_json("results", "diff", source, archive) == {
        "changed": [],
        "appeared": [],
        "vanished": [],
        "same": 2,
    }


@pytest.mark.parametrize(
    ("cause", "change"),
    [
        ("prompt", lambda m: m["task"].update(prompt="Where?")),
        ("data", lambda m: m["dataset"].update(fingerprint="0" * 64)),
        ("parser", lambda m: m["task"].update(parser="integer")),
        ("decoding", lambda m: m.update(decoding={"temperature": 1})),
        ("model", lambda m: m["model"].update(checkpoint="other/model")),
    ],
)
def test_why_a_cell_changed(source, tmp_path, cause, change):
    def both(meta, rows):
        change(meta)
        flip(rows)["reply"] = "other"

    document, copy = changed(source, tmp_path, both)
    assert cause in causes(document)
    (cell,) = document["changed"]
    assert (cell["other_replies"], cell["other_verdicts"], cell["won"], cell["lost"]) == (1, 1, 1, 0)
    assert cell["difference"] == pytest.approx(1 / 24)
    shown = cli("results", "diff", source, copy).stdout
    assert cause in shown
    assert "won 1, lost 0" in shown


def test_the_same_settings_and_other_replies(source, tmp_path):
    document, _ = changed(source, tmp_path, lambda meta, rows: flip(rows).update(reply="other"))
    assert "other replies under the same settings" in causes(document)


def test_cells_that_come_and_go(source, tmp_path):
    import shutil

    copy = shutil.copytree(source, tmp_path / "copy")
    shutil.rmtree(copy / "runs/gpt-4o")
    document = cli_json("results", "diff", source, copy)
    assert [cell["model"] for cell in document["vanished"]] == ["gpt-4o"]
    assert cli_json("results", "diff", copy, source)["appeared"][0]["n"] == 24
    assert "only in A" in cli("results", "diff", source, copy).stdout


def test_rescoring_lists_what_flipped(source, tmp_path):
    import shutil

    copy = shutil.copytree(source, tmp_path / "copy")
    run = sorted((copy / "runs").glob("*/*"))[0]
    rows = read_rows(run)
    first, second = [row for row in rows if row["verdict"] == "wrong"][:2]
    first |= {"verdict": "unparsed", "answer": None}  # as an older parser would have stored it
    second |= {"verdict": "correct"}
    (run / "rows.jsonl").write_bytes(lines(rows))
    document = cli_json("score", run, "--dry-run")
    flipped = {one["sample_id"]: one for one in document["flipped"]}
    assert flipped.keys() == {first["sample_id"], second["sample_id"]}
    assert flipped[first["sample_id"]]["before"]["verdict"] == "unparsed"
    assert flipped[first["sample_id"]]["after"]["verdict"] == "wrong"
    assert flipped[first["sample_id"]]["reply"] == first["reply"]
    assert read_rows(run) == rows, "a dry run changes nothing"
    result = cli("score", run)
    assert "2 verdicts changed." in result.stderr
    assert "unparsed -> wrong: 1" in result.stderr
    assert re.search(rf"{second['sample_id']}: correct \(.*\) -> wrong", result.stderr)
    assert cli_json("score", run)["flipped"] == []


def test_flips_cannot_steer_the_terminal(source, tmp_path):
    import shutil

    copy = shutil.copytree(source, tmp_path / "copy")
    run = sorted((copy / "runs").glob("*/*"))[0]
    rows = read_rows(run)
    rows[0] |= {"reply": "\x1b]0;evil\x07\u202e", "verdict": "correct", "answer": "\x1b[31m"}
    (run / "rows.jsonl").write_bytes(lines(rows))
    result = cli("score", run)
    assert "\x1b" not in result.stderr
    assert "\u202e" not in result.stderr


def test_formats_are_offered(source, tmp_path):
    result = cli(
        "results", "export", "--all", "--results", source, "--format", "nonsense", "--out", tmp_path / "x"
    )
    assert result.exit_code == 2
    for name in ("every-eval-ever", "hub", "model-index", "inspect"):
        assert name in result.output


def test_a_run_at_work_is_not_exported(source, tmp_path):
    import shutil

    copy = shutil.copytree(source, tmp_path / "copy")
    run = sorted((copy / "runs").glob("*/*"))[0]
    meta = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(meta | {"status": "running"}))
    result = cli("results", "export", "--all", "--results", copy, "--out", tmp_path / "a.zip")
    assert "Left out" in result.stderr
    assert len(runs_in(tmp_path / "a.zip")) == 1
    assert cli("results", "export", run, "--results", copy, "--out", tmp_path / "b.zip").exit_code == 1


def test_both_ends_name_the_same_fingerprint(source, tmp_path):
    sent = cli_json("results", "export", "--all", "--results", source, "--out", tmp_path / "a.zip")
    came = cli_json("results", "import", tmp_path / "a.zip", "--results", tmp_path / "there")
    assert sent["sha256_of_manifest"] == came["sha256_of_manifest"]
    assert len(sent["sha256_of_manifest"]) == 64


def test_a_server_that_calls_its_model_by_a_path(source, tmp_path):
    import shutil

    copy = shutil.copytree(source, tmp_path / "copy")
    run = sorted((copy / "runs").glob("*/*"))[0]
    path = "/home/someone/models/secret/qwen"
    meta, rows = json.loads((run / "run.json").read_text()), read_rows(run)
    (run / "run.json").write_text(json.dumps(meta | {"answered_by": {path: 24}}))
    (run / "rows.jsonl").write_bytes(lines([row | {"answered_by": path} for row in rows]))
    cli("results", "export", run, "--results", copy, "--out", tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        text = "".join(file.read(name).decode() for name in file.namelist())
    assert "someone" not in text
    assert text.count("/qwen") >= 25
