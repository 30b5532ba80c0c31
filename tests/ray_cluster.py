"""A Ray cluster of two nodes on this machine, for a test module, and commands that run on it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def cluster():
    """The address of two raylets, each with room for two replicas."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 100_000_000})
    found.add_node(num_cpus=2, object_store_memory=100_000_000)
    yield found.address
    found.shutdown()


def evalkit(*words: Any) -> list[str]:
    return [sys.executable, "-m", "evalkit", *map(str, words)]


def start(*words: Any) -> subprocess.Popen[str]:
    """`evalkit ...` in a process that Ctrl-C reaches, which background jobs' children would ignore."""
    return subprocess.Popen(
        evalkit(*words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def until(found: Callable[[], Any], timeout_s: float = 60) -> Any:
    """What `found` returns, once it is true."""
    deadline = time.monotonic() + timeout_s
    while not (value := found()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
