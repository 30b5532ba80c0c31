"""Training on several ranks, as torchrun starts them: the loss and gradient of one, by DDP and by FSDP2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from remote_fixture import another_machine  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from small_models import relative_error  # noqa: E402

from evalkit.datasets.build import build  # noqa: E402
from model_adapters.tiny import TINY_FAMILIES, tiny_checkpoint  # noqa: E402
from trainers.checkpoint import last_complete, read_training  # noqa: E402

pytestmark = pytest.mark.local
SCRIPT = Path(__file__).with_name("ranks_script.py")
SETTINGS = {
    "model": "tiny-x", "base": "tiny-y", "task": "line_tracing", "objective": "ntp_klal", "tuning": "full",
    "freeze": [], "batch_size": 8, "per_device_batch": 8, "lr": 1e-3, "steps": 1, "precision": "float32",
    "checkpointing": False, "device": "cpu", "log_every": 1, "clip": 1e9, "klal": {"weight": 3.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def where(tmp_path_factory, tiny_cache):
    """Data of 17 images, whose questions no batch divides, and the checkpoints."""
    data = tmp_path_factory.mktemp("data")
    build("line_tracing", data, n=17)
    return {"data": str(data)} | {
        family: str(tiny_checkpoint(family, tiny_cache)) for family in TINY_FAMILIES
    }


def run(cases, ranks, folder, status=0):
    """Run the cases with that many ranks; what they said."""
    path = folder / f"cases-{ranks}-{len(list(folder.glob('cases-*')))}.json"
    path.write_text(json.dumps(cases))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [*(launcher if ranks > 1 else [sys.executable]), str(SCRIPT), str(path)],
        capture_output=True, text=True, cwd=root, timeout=280,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode == 0) == (status == 0), done.stderr[-4000:]
    return done.stderr


def case(where, family, out, **changes):
    kind = {key: changes.pop(key) for key in ("kind", "stop_after") if key in changes}
    place = {"family": family, "checkpoint": where[family], "data": where["data"], "out": str(out)}
    return place | {"kind": "step", "spec": SETTINGS | changes} | kind


STEPS = {
    "ddp, 2 x 1 x 4": {"per_device_batch": 4},
    "ddp, 2 x 2 x 2": {"per_device_batch": 2},
    "fsdp, 2 x 1 x 4": {"per_device_batch": 4, "sharding": "fsdp"},
    "fsdp, 2 x 2 x 2": {"per_device_batch": 2, "sharding": "fsdp"},
    "fsdp, checkpointing": {"per_device_batch": 4, "sharding": "fsdp", "checkpointing": True},
    "fsdp, ntp": {"per_device_batch": 4, "sharding": "fsdp", "objective": "ntp"},
}
LORA = {
    "ddp, lora": {"per_device_batch": 4},
    "fsdp, lora": {"per_device_batch": 2, "sharding": "fsdp"},
}
OF_LORA = {"tuning": "lora", "freeze": ["vision", "projector"], "lora": {"r": 2, "alpha": 4}, "seed": 3}


@pytest.fixture(scope="module", params=TINY_FAMILIES)
def steps(request, where, tmp_path_factory):
    """(family, name -> (losses, gradients)) of one rank and of two, each in one start of its processes."""
    folder = tmp_path_factory.mktemp("steps")
    one = {"whole": {}, "whole, ntp": {"objective": "ntp"}, "whole, lora": OF_LORA}
    two = STEPS | {name: OF_LORA | changes for name, changes in LORA.items()}
    run([case(where, request.param, folder / name, **changes) for name, changes in one.items()], 1, folder)
    run([case(where, request.param, folder / name, **changes) for name, changes in two.items()], 2, folder)
    return {
        name: (json.loads((folder / f"{name}.json").read_text()), load_file(folder / f"{name}.safetensors"))
        for name in (*one, *two)
    }


@pytest.mark.parametrize("name", [*STEPS, *LORA])
def test_two_ranks_have_the_loss_and_gradient_of_one(name, steps):
    alone = "whole, lora" if name in LORA else "whole, ntp" if "ntp" in name else "whole"
    logs, gradients = steps[alone]
    other_logs, other = steps[name]
    assert (logs["world"], other_logs["world"]) == (1, 2)
    assert (other_logs["sharded"] > 0) == ("fsdp" in name)
    assert other_logs["keeps_casts"] == ("fsdp" not in name)  # of gathered weights: a whole model a rank
    assert ("klal" in other_logs) == ("ntp" not in name)
    for key in ("loss", "ntp", "klal"):
        if key in logs:
            assert other_logs[key] == pytest.approx(logs[key], rel=1e-5)
    assert other.keys() == gradients.keys()
    assert relative_error(other, gradients) < 1e-5


def trained_weights(folder):
    return {k: v for path in sorted(Path(folder).glob("*.safetensors")) for k, v in load_file(path).items()}


TUNED = {"qwen2_5_vl": {}, "llava": OF_LORA}  # full, and LoRA
LONG = {"steps": 7, "save_every": 2, "per_device_batch": 2, "clip": 1.0, "limit": 51}


@pytest.fixture(scope="module")
def unbroken(where, tmp_path_factory):
    """family -> the folder of a training by one rank, whole."""
    folder = tmp_path_factory.mktemp("unbroken")
    cases = [
        case(where, family, folder / family, kind="training", **LONG | more) for family, more in TUNED.items()
    ]
    run(cases, 1, folder)
    return folder


@pytest.mark.parametrize(
    ("family", "sharding", "then"),
    [("qwen2_5_vl", "none", 1), ("qwen2_5_vl", "fsdp", 1), ("llava", "fsdp", 2)],
)
def test_what_two_ranks_saved_goes_on(family, sharding, then, where, unbroken, tmp_path):
    """Two ranks are killed after step 4 of 7; one rank, or two of another sharding, end where one alone ends.

    51 samples: the last batch of an epoch is not whole, and every sample counts once an epoch all the same.
    """
    more, whole, cut = LONG | TUNED[family], unbroken / family, tmp_path / "cut"
    broken = case(where, family, cut, kind="training", stop_after=4, sharding=sharding, **more)
    run([broken], 2, tmp_path, status=1)
    found = last_complete(cut / "trainer")
    assert found is not None
    assert found.name == "checkpoint-4"
    assert not list(found.glob("*.pt*"))  # no pickles
    run([case(where, family, cut, kind="training", sharding="none", **more)], then, tmp_path)
    training, alone = read_training(cut), read_training(whole)
    assert training["resumed_from_step"] == 4
    assert training["ran_on"]["world_size"] == then
    for key in ("loss", "ntp", "klal"):
        steps = [[entry[key] for entry in one["history"]] for one in (training, alone)]
        assert steps[0] == pytest.approx(steps[1], rel=2e-4), key
    found, expected = trained_weights(cut), trained_weights(whole)
    assert found.keys() == expected.keys()
    before = trained_weights(where[family])
    moved = {name: weight - before[name] for name, weight in expected.items()}
    again = {name: weight - before[name] for name, weight in found.items()}
    assert relative_error(again, moved) < 0.02  # Adam divides by what is small: rounding grows over the steps


CONFIG = """
model: tiny-qwen-klal
base: tiny-qwen
task: line_tracing
objective: ntp_klal
tuning: lora
lora: {r: 2, alpha: 4}
batch_size: 8
per_device_batch: 2
lr: 0.001
steps: 2
precision: bfloat16
device: cpu
sharding: fsdp
"""


def torchrun(*words, **more):
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
        "-m",
        "evalkit",
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, *map(str, words)], capture_output=True, text=True, env=env, timeout=280, **more
    )


def test_the_command_line_speaks_once(where, tmp_path):
    """A LoRA in bfloat16, sharded: frozen weights of one dtype beside trained ones of another."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    words = ["train", tmp_path / "config.yaml", "--data", where["data"], "--out", tmp_path / "out"]
    done = torchrun(*words, "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    training = json.loads(done.stdout)
    assert (training["ran_on"]["world_size"], training["ran_on"]["sharding"]) == (2, "fsdp")
    assert (tmp_path / "out/model.safetensors").is_file()
    again = torchrun(*words)
    assert again.stdout.splitlines() == [
        "tiny-qwen-klal trained on line_tracing (ntp_klal, seed 0): 2 steps, 16 samples; there already",
        f"  {tmp_path / 'out'}",
    ]


def test_sharding_that_would_not_be_is_refused(where, tmp_path, monkeypatch):
    from support import cli

    (tmp_path / "config.yaml").write_text(CONFIG)
    words = ["train", tmp_path / "config.yaml", "--data", where["data"], "--out", tmp_path / "out"]
    result = cli(*words)
    assert result.exit_code == 1
    assert "torchrun --nproc-per-node" in result.output
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    result = cli(*words, "--set", "sharding=none")
    assert result.exit_code == 1
    assert "--set sharding=fsdp" in result.output


def test_two_ranks_probe_what_one_does(where, tmp_path):
    from support import cli_json, read_rows

    words = [
        "--model",
        "tiny-qwen",
        "--task",
        "line_tracing",
        "--engine",
        "hf_local",
        "--data",
        where["data"],
    ]
    words += ["--split", "train", "--results"]
    for name in ("one", "two"):
        cli_json("run", *words, tmp_path / name)
    one = cli_json("probe", *words, tmp_path / "one")
    done = torchrun("probe", *words, tmp_path / "two", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads(done.stdout)
    assert two["ran_on"]["world_size"] == 2
    rows = [read_rows(found["probe"]) for found in (one, two)]
    assert [row["sample_id"] for row in rows[0]] == [row["sample_id"] for row in rows[1]]
    for alone, shared in zip(*rows, strict=True):
        assert shared.get("skipped") == alone.get("skipped")
        if "ratio" in alone:
            assert shared["ratio"] == pytest.approx(alone["ratio"], rel=1e-4)
    assert two["summary"]["n"] == one["summary"]["n"] > 30
    assert (Path(two["probe"]) / "maps.npz").is_file()


def test_two_ranks_of_another_machine_agree_on_what_is_probed(s3, grid_data, tmp_path, monkeypatch):
    """Neither has the shared probe yet: finished, it is nobody's work; with rows missing, both do their part."""
    from support import cli_json

    words = ["--model", "tiny-qwen", "--task", "grid_patch", "--engine", "hf_local", "--data", grid_data]
    words += ["--split", "train", "--limit", 6, "--results", s3.url]
    cli_json("run", *words)
    one = cli_json("probe", *words)
    another_machine(monkeypatch, tmp_path)
    done = torchrun("probe", *words, "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["summary"] == one["summary"]
    (rows,) = [key for key in s3.names("probes/") if key.endswith(".jsonl")]
    s3.put(rows, b"".join(s3.get(rows).splitlines(keepends=True)[:2]))
    s3.delete(rows.rpartition("/")[0] + "/probe.json")
    another_machine(monkeypatch, tmp_path, "machine-3")
    done = torchrun("probe", *words, "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["summary"]["n"] == one["summary"]["n"]
    assert len(s3.get(rows).splitlines()) == 6
