"""The command line as a whole: light imports, listings, validation, folders accepted everywhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import cli, cli_json

from evalkit.cli import main
from evalkit.paths import resource

FORBIDDEN = ("torch", "pandas", "openai", "google", "transformers", "vllm")


@pytest.mark.parametrize("words", [["--help"], ["tasks"], ["run", "--help"], ["data", "--help"], ["models"]])
def test_light_commands_import_nothing_heavy(words):
    code = (
        "import sys\nfrom evalkit.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('LOADED', [name for name in {FORBIDDEN!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_help_names_every_command():
    text = cli("--help").stdout
    for name in (
        "tasks",
        "models",
        "validate",
        "data",
        "run",
        "parse",
        "score",
        "import",
        "compare",
        "tables",
    ):
        assert f"\n  {name} " in text


def test_version():
    assert cli("--version").stdout.startswith("evalkit, version 0.")


def test_tasks(tmp_path):
    rows = cli_json("tasks", "--data", tmp_path)
    assert [row["name"] for row in rows] == [
        "grid_patch", "line_intersection", "line_tracing", "pixmo_points", "refcoco",
    ]  # fmt: skip
    assert "evalkit data build grid_patch" in rows[0]["data"]
    assert "Table 2" in cli("tasks").stdout


def test_models_say_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    rows = {row["name"]: row for row in cli_json("models")}
    assert rows["fake"]["ready"]
    assert rows["gemini-2.0-flash"]["missing"].startswith("retired since 2026-06-01")
    assert not rows["qwen-klal"]["ready"]
    text = cli("models").stdout
    assert "ready  fake" in text


def _leaves(command, name=""):
    for child_name, child in getattr(command, "commands", {}).items():
        yield from _leaves(child, f"{name} {child_name}")
    if not hasattr(command, "commands"):
        yield name.strip(), command


@pytest.mark.parametrize(("name", "command"), list(_leaves(main)))
def test_every_command_takes_the_folders(name, command):
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--data", "--results"} <= options
    assert command.help, f"{name}: no help"


JSON_COMMANDS = {
    "tasks", "models", "validate", "run", "score", "import", "compare", "tables", "data verify", "data list",
}  # fmt: skip


def test_json_where_it_was_promised():
    found = {n for n, c in _leaves(main) if "--json" in {o for p in c.params for o in p.opts}}
    assert found >= JSON_COMMANDS


def test_validate_shipped():
    document = cli_json("validate")
    assert document["ok"]
    assert document["faults"] == []
    assert document["tasks"] == 5


def test_validate_five_broken_files(tmp_path):
    """Unknown key, unknown parser, unknown variable, an example that parses otherwise, no YAML."""
    source = {p.stem: p.read_text() for p in resource("tasks").glob("*.yaml")}
    changes = {
        "grid_patch": {"promt": "x"},
        "line_intersection": {"parser": "number"},
        "line_tracing": {"prompt": "Is {{ node_c }} connected to {{ node_b }}?"},
        "pixmo_points": {"examples": [{"reply": "(5, 9)", "answer": [9, 5]}]},
    }
    for name, change in changes.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(yaml.safe_load(source[name]) | change))
    (tmp_path / "refcoco.yaml").write_text("name: [refcoco")
    result = cli("validate", tmp_path)
    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert len(lines) == 5
    for line, words in zip(
        lines,
        [
            "unknown key 'promt'",
            "no parser named 'number'",
            "variable 'node_c'",
            "expected [9, 5]",
            "not valid YAML",
        ],
        strict=True,
    ):
        assert words in line
    document = cli_json("validate", tmp_path, exit_code=1)
    assert document["faults"] == lines


def test_validate_a_broken_registry(tmp_path):
    path = tmp_path / "models.yaml"
    path.write_text("pointer: {title: P, adapter: null, family: molmo}\nbad: {title: B, adapter: warp}\n")
    result = cli("validate", "--models", path)
    assert result.exit_code == 1
    assert "no adapter named 'warp'" in result.stdout
    # two tasks ask the family in its own frame
    assert result.stdout.count("pointer: task") == 2


@pytest.mark.parametrize(
    ("text", "words", "answers"),
    [
        ("They do not touch.\nI count {4}.\n", [], [0, 4]),
        ('{"raw": "2"}\n\n{"raw": null}\n', ["--field", "raw"], [2, None]),
        ("", [], []),
    ],
)
def test_parse(tmp_path, text, words, answers):
    (tmp_path / "replies").write_text(text)
    result = cli("parse", "--parser", "integer", *words, tmp_path / "replies")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["answer"] for row in rows] == answers
    for row in rows:
        assert list(row) == ["reply", "answer", "status", "reason"]
        assert (row["reason"] is None) == (row["status"] == "parsed")


def test_parse_standard_input_in_any_bytes():
    done = subprocess.run(
        [sys.executable, "-m", "evalkit", "parse", "--parser", "integer"],
        input=b"answer: \xff 3\n\xe2\x80\xa8 4\n",
        capture_output=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0
    assert [json.loads(line)["answer"] for line in done.stdout.splitlines()] == [3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [("nonsense", ":1: not a JSON object"), ('{"a": 1}\n{"b": 2}', ":2: no field 'a'; there is: b")],
)
def test_parse_errors(tmp_path, text, message):
    (tmp_path / "r").write_text(text)
    result = cli("parse", "--parser", "integer", "--field", "a", tmp_path / "r")
    assert result.exit_code == 1
    assert message in result.stderr


def test_parse_unknown_parser():
    result = cli("parse", "--parser", "float")
    assert result.exit_code == 2
    assert "known: " in result.stderr
