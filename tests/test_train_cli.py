"""evalkit train and run through the command line: checkpoints by name, task and seed; merged or as an adapter."""

import json

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from evalkit.cli import main  # noqa: E402
from evalkit.datasets.build import build  # noqa: E402
from model_adapters.tiny import tiny_checkpoint  # noqa: E402

pytestmark = pytest.mark.local

REGISTRY = """
noise:
  title: noise
  adapter: hf_local
  family: {family}
  checkpoint: {base}
  options: {{dtype: float32}}
  runtime: {{device: cpu}}
  scale: tiny
mine:
  title: mine
  adapter: hf_local
  family: {family}
  checkpoint: checkpoints/mine/{{trained_on}}
  options: {{dtype: float32}}
  runtime: {{device: cpu}}
  scale: tiny
  objective: ntp_klal
"""
CONFIG = """
model: mine
base: noise
task: grid_patch
objective: ntp_klal
tuning: {tuning}
lora: {{r: 4, alpha: 8}}
freeze: []
export: {export}
steps: 3
batch_size: 4
per_device_batch: 2
lr: 1.0e-2
precision: float32
device: cpu
log_every: 1
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    build("grid_patch", folder, n=40)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_cache):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVALKIT_CACHE", str(tiny_cache))
    return tmp_path


def write(here, family, tiny_cache, tuning="lora", export="merged"):
    (here / "models.yaml").write_text(
        REGISTRY.format(family=family, base=tiny_checkpoint(family, tiny_cache))
    )
    (here / f"{export}.yaml").write_text(CONFIG.format(tuning=tuning, export=export))


def evalkit(data_dir, *words):
    return CliRunner().invoke(main, [*words, "--data", str(data_dir), "--models", "models.yaml"])


def replies(results="results"):
    from pathlib import Path

    found = {}
    for path in Path(results).glob("runs/*/*/rows.jsonl"):
        found[path.parent.name] = {
            r["sample_id"]: r["reply"] for r in map(json.loads, path.read_text().splitlines())
        }
    return found


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava"])
def test_train_run_and_the_adapter_answers_as_the_merged_model(family, here, data_dir, tiny_cache):
    write(here, family, tiny_cache)
    write(here, family, tiny_cache, export="adapter")
    run = ("run", "--model", "mine", "--task", "grid_patch")
    missing = evalkit(data_dir, *run)
    assert missing.exit_code == 1
    assert (
        "mine: no checkpoint in checkpoints/mine/grid_patch (no such folder). "
        "Train it: evalkit train --model mine --task grid_patch" in missing.output
    )
    trained = evalkit(data_dir, "train", "merged.yaml")
    assert trained.exit_code == 0, trained.output
    assert "mine trained on grid_patch (ntp_klal, seed 0): 3 steps, 12 samples" in trained.output
    assert "there already" in evalkit(data_dir, "train", "merged.yaml").output
    assert evalkit(data_dir, *run).exit_code == 0
    adapter = evalkit(data_dir, "train", "adapter.yaml", "--out", "checkpoints/adapter")
    assert adapter.exit_code == 0, adapter.output
    assert (here / "checkpoints/adapter/adapter_config.json").is_file()
    assert not (here / "checkpoints/adapter/config.json").exists()
    other = evalkit(data_dir, *run, "--checkpoint", "checkpoints/adapter", "--results", "other")
    assert other.exit_code == 0, other.output
    (merged,), (adapted,) = replies().values(), replies("other").values()
    assert merged == adapted
    meta = json.loads(next((here / "results").glob("runs/mine/*/run.json")).read_text())
    assert meta["trained_on"] == "grid_patch"
    assert meta["training"]["objective"] == "ntp_klal"
    assert meta["training"]["seed"] == 0


def test_seeds_have_folders_of_their_own(here, data_dir, tiny_cache):
    write(here, "llava", tiny_cache, tuning="full")
    trained = evalkit(data_dir, "train", "merged.yaml", "--set", "seed=3", "--set", "steps=1", "--json")
    assert json.loads(trained.output)["folder"] == "checkpoints/mine/grid_patch-seed3"
    without = evalkit(data_dir, "run", "--model", "mine", "--task", "grid_patch", "--train-seed", "2")
    assert "--task grid_patch --set seed=2" in without.output
    done = evalkit(data_dir, "run", "--model", "mine", "--task", "grid_patch", "--train-seed", "3")
    assert done.exit_code == 0, done.output
    refused = evalkit(data_dir, "run", "--model", "noise", "--task", "grid_patch", "--train-seed", "3")
    assert "noise is not trained here" in refused.output


def test_a_full_checkpoint_loads_as_published(here, data_dir, tiny_cache):
    """The keys that vLLM wants, no trace of the recording attention, tokenizer files byte for byte."""
    write(here, "llava", tiny_cache, tuning="full")
    assert evalkit(data_dir, "train", "merged.yaml").exit_code == 0
    folder, base = here / "checkpoints/mine/grid_patch", tiny_checkpoint("llava", tiny_cache)
    from safetensors.torch import load_file

    assert load_file(folder / "model.safetensors").keys() == load_file(base / "model.safetensors").keys()
    assert "evalkit_row" not in (folder / "config.json").read_text()
    for name in (
        "tokenizer.json",
        "preprocessor_config.json",
        "chat_template.jinja",
        "processor_config.json",
    ):
        assert (folder / name).read_bytes() == (base / name).read_bytes()


def test_dry_run_and_usage(here, data_dir, tiny_cache):
    write(here, "llava", tiny_cache)
    plan = evalkit(data_dir, "train", "merged.yaml", "--dry-run", "--json")
    facts = json.loads(plan.output)
    assert (facts["steps"], facts["samples"], facts["folder"]) == (3, 32, "checkpoints/mine/grid_patch")
    assert not (here / "checkpoints").exists()
    assert evalkit(data_dir, "train").exit_code == 2
    assert evalkit(data_dir, "train", "merged.yaml", "--task", "grid_patch").exit_code == 2
    bad = evalkit(data_dir, "train", "merged.yaml", "--set", "lr=fast")
    assert bad.exit_code == 1
    assert "lr: Input should be a valid number" in bad.output
