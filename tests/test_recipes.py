"""The recipes of docs/recipes: shellcheck finds nothing, and what they start is run, with stand-ins for the cluster.

srun and scontrol are scripts that do on this machine what they would on one node; `ray symmetric-run` is one that
runs its command against a cluster that is there (the real one stops all Ray of a machine at its end).
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from ray_cluster import cluster  # noqa: F401 - a fixture

from evalkit.cli.main import main
from evalkit.datasets.build import build
from evalkit.suites import read_suite

RECIPES = Path(__file__).parents[1] / "docs/recipes"
SCRIPTS = sorted(RECIPES.glob("*.sbatch"))
STAND_INS = {
    "scontrol": '[ "$1 $2" = "show hostnames" ] && echo 127.0.0.1',
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "ray": 'echo "$@" >"$SEEN"; while [ "$1" != -- ]; do shift; done; shift; RAY_ADDRESS=$CLUSTER exec "$@"',
    "evalkit": f'exec {sys.executable} -m evalkit "$@"',
    "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
}


@pytest.fixture
def slurm(tmp_path):
    """submit(script, *words): runs a recipe as a job of one node with two CPUs for GPUs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, line in STAND_INS.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)

    def submit(script, *words, **environment):
        job = {
            "SLURM_JOB_NODELIST": "node1", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2",
            "PATH": f"{folder}:{os.environ['PATH']}", "SEEN": str(tmp_path / "seen"), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        return subprocess.run(
            ["bash", RECIPES / script, *map(str, words)],
            env=os.environ | job | environment, capture_output=True, text=True, timeout=280,
        )  # fmt: skip

    return submit


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_shellcheck_finds_nothing(path):
    shellcheck = Path(sys.executable).with_name("shellcheck")
    if not shellcheck.exists():
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([shellcheck, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^#SBATCH --requeue$", path.read_text(), re.M)


@pytest.mark.filterwarnings("ignore")
def test_an_evaluation_under_slurm(slurm, cluster, tmp_path):  # noqa: F811
    build("grid_patch", tmp_path / "data", n=20)
    words = ["run", "--model", "fake", "--task", "grid_patch", "--split", "train", "--set", "reply=(3, 4)"]
    words += ["--data", tmp_path / "data", "--results", tmp_path / "results", "--json"]
    done = slurm("slurm-ray.sbatch", *words, CLUSTER=cluster, SLURM_GPUS_ON_NODE="0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "complete"
    assert (
        (tmp_path / "seen")
        .read_text()
        .startswith(
            "symmetric-run --address 127.0.0.1:6379 --min-nodes 1 --num-cpus 2 --num-gpus 0 -- evalkit run"
        )
    )


@pytest.mark.local
@pytest.mark.filterwarnings("ignore")
def test_a_training_under_slurm(slurm, tmp_path):
    pytest.importorskip("peft")
    build("grid_patch", tmp_path / "data", n=20)
    words = [
        "--model",
        "tiny-qwen-base",
        "--set",
        "task=grid_patch",
        "--set",
        "steps=2",
        "--set",
        "batch_size=4",
    ]
    words += ["--set", "per_device_batch=2", "--data", tmp_path / "data", "--out", tmp_path / "out", "--json"]
    done = slurm("slurm-train.sbatch", *words, SLURM_GPUS_ON_NODE="2", MASTER_PORT="0")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["ran_on"]["world_size"] == 2


def test_a_suite_on_kubernetes(tmp_path):
    config, job = yaml.safe_load_all((RECIPES / "kuberay.yaml").read_text())
    (tmp_path / "suite.yaml").write_text(config["data"]["suite.yaml"])
    assert len(read_suite(tmp_path / "suite.yaml").settled()) == 6
    cluster = job["spec"]["rayClusterSpec"]  # noqa: F811
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    (workers,) = cluster["workerGroupSpecs"]
    (worker,) = workers["template"]["spec"]["containers"]
    assert head["image"] == worker["image"]
    words = job["spec"]["entrypoint"].split()
    assert words[:3] == ["evalkit", "suite", f"{head['volumeMounts'][0]['mountPath']}/suite.yaml"]
    assert cluster["headGroupSpec"]["template"]["spec"]["volumes"][0]["configMap"] == {
        "name": config["metadata"]["name"]
    }
    # the words are ones that the command knows
    here = [*words[1:2], str(tmp_path / "suite.yaml"), *words[3:]]
    found = CliRunner().invoke(
        main, [word.replace("s3://BUCKET", str(tmp_path)) for word in here] + ["--dry-run"]
    )
    assert found.exit_code in (0, 1), found.output
    assert "No such option" not in found.output
