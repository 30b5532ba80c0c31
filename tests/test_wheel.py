"""The wheel in a clean environment, away from the checkout: the core works, and without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def succeed(*words, **where):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **where)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def evalkit(tmp_path_factory):
    """The command `evalkit` of a clean environment into which the built wheel was installed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
    succeed(sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    succeed(sys.executable, "-m", "venv", folder / "env")
    wheel = next(folder.glob("*.whl"))
    succeed(folder / "env/bin/python", *pip, "install", "--constraint", ROOT / "constraints.txt", wheel)
    return folder / "env/bin/evalkit"


def test_the_core_works_from_another_folder(evalkit, tmp_path):
    tasks = json.loads(succeed(evalkit, "tasks", "--json", cwd=tmp_path))
    assert len(tasks) == 5
    succeed(evalkit, "validate", cwd=tmp_path)
    succeed(evalkit, "data", "build", "line_intersection", "--n", 30, cwd=tmp_path)
    dry = json.loads(
        succeed(evalkit, "run", "--model", "fake", "--task", "line_intersection", "--json", cwd=tmp_path)
    )
    assert dry["n"] == 6
    succeed(evalkit, "score", "--all", cwd=tmp_path)
    succeed(evalkit, "leaderboard", cwd=tmp_path)
    succeed(evalkit, "tables", cwd=tmp_path)
    assert (tmp_path / "results/leaderboard/leaderboard.html").exists()


def test_there_is_no_torch_and_models_say_so(evalkit, tmp_path):
    python = evalkit.with_name("python")
    missing = "import importlib.util as u; print([n for n in ('torch', 'transformers', 'openai') if u.find_spec(n)])"
    assert succeed(python, "-c", missing).strip() == "[]"
    rows = {row["name"]: row for row in json.loads(succeed(evalkit, "models", "--json", cwd=tmp_path))}
    assert "pip install 'evalkit-vlm[local]'" in rows["tiny-qwen"]["missing"]


def test_no_stray_top_level_modules(evalkit):
    python = evalkit.with_name("python")
    code = "import importlib.util as u; print([n for n in ('tasks', 'results', 'tests', 'benchmarks') if u.find_spec(n)])"
    assert succeed(python, "-c", code, cwd="/").strip() == "[]"
