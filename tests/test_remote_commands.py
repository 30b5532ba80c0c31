"""Every command that has --results or --data, on shared storage."""

import json
from pathlib import Path

import pytest
from remote_fixture import ASKED, another_machine, killed_run, lines, mirrored, words
from support import cli, cli_json

from evalkit.errors import StoreError
from evalkit.remote.folders import local_folder
from evalkit.remote.run import held

# Commands


def test_reports_from_another_machine(s3, grid_data, tmp_path, monkeypatch):
    cli_json(*words(grid_data, s3.url))
    cli_json(*words(grid_data, s3.url, None, "--limit", 10))
    another_machine(monkeypatch, tmp_path)
    board = cli_json("leaderboard", "--results", s3.url, "--data", grid_data)
    assert len(board["runs"]) == 2
    assert {"leaderboard.html", "leaderboard.json"} <= {
        key.rpartition("/")[2] for key in s3.names("leaderboard/")
    }
    assert len(s3.names("leaderboard/images/")) == ASKED
    assert json.loads(s3.get("shared/leaderboard/leaderboard.json"))["runs"] == board["runs"]
    assert cli_json("tables", "--results", s3.url)["tables"]
    assert "shared/tables/tables.html" in s3.names()
    cli("leaderboard", "--results", s3.url, "--no-pages", "--out", f"{s3.url}/elsewhere")
    assert "shared/elsewhere/leaderboard.md" in s3.names()

    s3.proxy.seen.clear()
    run = f"{s3.url}/{board['runs'][0]['run']}"
    scored = cli_json("score", run)
    assert scored["flipped"] == []
    pair = cli_json("compare", run, f"{s3.url}/{board['runs'][1]['run']}", "--task", "grid_patch",
                    "--split", "train", "--results", s3.url)  # fmt: skip
    assert pair["n"] == 10
    assert len(cli_json("score", "--all", "--dry-run", "--results", s3.url)) == 2
    assert not s3.names("lease")


def test_a_reader_sees_segments_of_a_run_at_work(s3, grid_data, tmp_path, monkeypatch):
    """What was killed in its middle counts as far as it came."""
    stored = killed_run(s3, grid_data, tmp_path / "log")
    another_machine(monkeypatch, tmp_path)
    assert len(cli_json("leaderboard", "--results", s3.url, "--no-pages")["runs"]) == 1
    (path,) = (tmp_path / "machine-2").rglob("rows.jsonl")
    assert [json.loads(line)["sample_id"] for line in path.read_text().splitlines()] == stored


def test_score_changes_the_bucket(s3, grid_data, tmp_path, monkeypatch):
    run = Path(cli_json(*words(grid_data, s3.url))["run"])
    key = f"shared/runs/fake/{run.name}/rows.jsonl"
    rows = [json.loads(line) for line in s3.get(key).splitlines()]
    s3.put(key, lines(*(one | {"verdict": "wrong", "answer": None} for one in rows)))
    another_machine(monkeypatch, tmp_path)
    document = cli_json("score", f"{s3.url}/runs/fake/{run.name}")
    assert document["flipped"]
    assert [json.loads(line) for line in s3.get(key).splitlines()] == rows
    assert not s3.names("/rows/")


def test_export_import_diff(s3, grid_data, tmp_path, monkeypatch):
    run = cli_json(*words(grid_data, s3.url))["run"]
    archive = tmp_path / "runs.zip"
    assert cli("results", "export", "--all", "--out", archive, "--results", s3.url).exit_code == 0
    other = f"s3://{s3.bucket}/other"
    assert cli("results", "import", archive, "--results", other).exit_code == 0
    key = f"other/runs/fake/{Path(run).name}/rows.jsonl"
    assert s3.get(key) == (Path(run) / "rows.jsonl").read_bytes()
    assert cli("results", "diff", s3.url, other).stdout == "1 cell the same.\n"
    # another content in the bucket gives way to the archive's with --replace alone
    right = s3.get(key)
    s3.put(key, right.replace(b"(3, 4)", b"(4, 3)"))
    another_machine(monkeypatch, tmp_path)
    assert cli("results", "import", archive, "--results", other).exit_code == 1
    assert cli("results", "import", archive, "--results", other, "--replace").exit_code == 0
    assert s3.get(key) == right


def test_import_of_replies(s3, grid_data, tmp_path, monkeypatch):
    made = cli_json(*words(grid_data, s3.url))
    rows = [json.loads(line) for line in (Path(made["run"]) / "rows.jsonl").read_text().splitlines()]
    file = tmp_path / "replies.jsonl"
    file.write_bytes(lines(*({"sample_id": one["sample_id"], "reply": "(3, 4)"} for one in rows)))
    result = cli_json("import", file, "--task", "grid_patch", "--split", "train", "--model", "other",
                      "--data", grid_data, "--results", s3.url)  # fmt: skip
    assert f"shared/runs/other/{Path(result['run']).name}/rows.jsonl" in s3.names()


def test_data_on_s3(s3, tmp_path, monkeypatch):
    url = f"s3://{s3.bucket}/data"
    (built,) = cli_json("data", "build", "grid_patch", "--n", 20, "--data", url)
    assert built["fresh"]
    assert len(s3.names("data/grid_patch/")) == 20 + 3
    s3.put("data/refcoco/val/metadata.jsonl", b"not asked for")
    another_machine(monkeypatch, tmp_path)
    result = cli_json("run", "--model", "fake", "--task", "grid_patch", "--data", url, "--results", s3.url)
    assert result["status"] == "complete"
    assert not any("refcoco" in name for name in mirrored(tmp_path, "machine-2"))
    s3.delete("data/refcoco/val/metadata.jsonl")
    s3.proxy.seen.clear()
    (again,) = cli_json("data", "build", "grid_patch", "--n", 20, "--data", url)
    assert not again["fresh"]
    assert s3.proxy.asked("PUT") == []
    assert cli_json("data", "verify", "--data", url)["ok"]
    listed = cli_json("data", "list", "--data", url)
    assert sum(entry["images"] for entry in listed) == 20
    assert "test, train" in cli("tasks", "--data", url).stdout


def test_damaged_data_on_s3_are_found_and_only_rows_are_fetched_for_a_list(s3, tmp_path, monkeypatch):
    url = f"s3://{s3.bucket}/data"
    cli_json("data", "build", "grid_patch", "--n", 10, "--data", url)
    images = s3.names("data/grid_patch/train/images/")
    s3.put(images[0], s3.get(images[1]))
    another_machine(monkeypatch, tmp_path)
    s3.proxy.seen.clear()
    (_, train) = cli_json("data", "list", "--data", url)
    assert not s3.proxy.asked("GET", ".png")
    assert train["bytes"] == sum(len(s3.get(key)) for key in s3.names("data/grid_patch/train/"))
    result = cli("data", "verify", "--data", url)
    assert result.exit_code == 1
    assert "other pixels than were recorded" in result.stdout


def test_replacing_data_removes_what_they_have_no_longer(s3):
    url = f"s3://{s3.bucket}/data"
    cli_json("data", "build", "grid_patch", "--n", 20, "--data", url)
    cli_json("data", "build", "grid_patch", "--n", 10, "--force", "--data", url)
    assert len(s3.names("data/grid_patch/")) == 10 + 3


def test_replicate_names_urls_to_its_steps(s3):
    shown = cli("replicate", "--scale", "tiny", "--task", "grid_patch", "--dry-run", "--results", s3.url,
                "--data", f"s3://{s3.bucket}/data").stdout  # fmt: skip
    assert f"--data s3://{s3.bucket}/data/tiny --results {s3.url}/replicate-tiny" in shown


def test_view_says_what_is_missing_by_its_url(s3):
    result = cli("view", s3.url, "--no-browser")
    assert result.exit_code == 1
    assert f"Make it: evalkit leaderboard --results {s3.url}" in result.stderr


def test_a_folder_that_is_held_is_sent_also_after_a_failure(s3, tmp_path, monkeypatch):
    folder = local_folder(f"{s3.url}/probes/p")

    def fail_halfway():
        with held(folder):
            (folder / "rows.jsonl").write_text("half\n")
            another_machine(monkeypatch, tmp_path)
            with pytest.raises(StoreError, match="is writing this run"):
                held(local_folder(f"{s3.url}/probes/p")).__enter__()
            another_machine(monkeypatch, tmp_path, "machine-1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert s3.names() == ["shared/probes/p/rows.jsonl"]
