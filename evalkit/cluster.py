"""A Ray cluster: one that is running, or processes of this machine for the time of a command."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from evalkit.errors import Unavailable
from evalkit.extras import require

# Ours hold what is on its way to a worker of another machine; Ray's own default is a third of the memory.
_OBJECT_STORE_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Cluster:
    """A connection. ray: the package; far: whether files of this machine may not be a worker's."""

    ray: Any
    kept: bool  # it was open before, and stays open
    client: bool

    @property
    def gpus(self) -> int:
        return int(self.ray.cluster_resources().get("GPU", 0))

    @property
    def nodes(self) -> int:
        return sum(bool(node["Alive"]) for node in self.ray.nodes())

    @property
    def own_node(self) -> str | None:
        """The node that this process runs on; None where it is none of the cluster's."""
        return None if self.client else str(self.ray.get_runtime_context().get_node_id())

    def close(self) -> None:
        """Disconnect, and end what was started for us. What others opened stays open."""
        if not self.kept:
            self.ray.shutdown()


def connect(address: str | None, workers: int) -> Cluster:
    """Join the cluster at `address`, or RAY_ADDRESS; without either, start one for `workers` on this machine.

    Raises Unavailable, in one line, where Ray is not installed or the cluster does not answer.
    """
    require("--engine ray", "ray", "ray")
    address = address or os.environ.get("RAY_ADDRESS") or None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = import_module("ray")
    client = bool(address and address.startswith("ray://"))
    if ray.is_initialized():
        return Cluster(ray, kept=True, client=client)
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    own = {
        "num_cpus": max(os.cpu_count() or 1, workers),
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "_node_ip_address": "127.0.0.1",  # nobody else's business
    }
    # what it says of lost workers it prints on standard output, among our JSON; --engine ray says it itself
    vars(import_module("ray._private.worker"))["_worker_logs_enabled"] = False
    try:
        if address:
            _knock(address)
        with _signals_kept():
            ray.init(address=address, **quiet) if address else ray.init(address="local", **quiet, **own)
    except (OSError, RuntimeError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise Unavailable(
            f"Ray at {address or 'this machine'}: {reason}. Is it running (ray status --address ...), of this "
            "version of Ray and Python? Without --address, and RAY_ADDRESS unset, one is started here."
        ) from None
    return Cluster(ray, kept=False, client=client)


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray would end this process at SIGTERM, whoever else listens for it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
