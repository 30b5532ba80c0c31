"""A Ray cluster: one that is running, or processes of this machine for the time of a command."""

import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

from evalkit.errors import AdapterError, ConfigError, EvalkitError, Unavailable
from evalkit.extras import require

# Ours hold what is on its way to a worker of another machine; Ray's own default is a third of the memory.
_OBJECT_STORE_BYTES = 256 * 2**20


_FEW, _A_CORE = 16, 4  # workers that one machine may be asked for
_CHUNK = 16  # pieces of work that travel together
_RETRIES = 3
T = TypeVar("T")


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

    def in_order(self, work: Callable[[int], T], n: int) -> Iterator[T]:
        """work(0), ..., work(n - 1) from the workers, in this order, as they are asked for.

        Work that is lost with its worker is done again. Only a few chunks for each CPU are under way. Raises
        EvalkitError as `work` does, and AdapterError where a chunk kills its workers again and again.
        """
        ray = self.ray
        remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(_chunk)
        ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        starts, pending = iter(range(0, n, _CHUNK)), deque[Any]()
        while True:
            while len(pending) < ahead and (start := next(starts, None)) is not None:
                pending.append(remote.remote(work, range(start, min(start + _CHUNK, n))))
            if not pending:
                return
            try:
                yield from ray.get(pending.popleft())
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, EvalkitError) else error) from None
            except ray.exceptions.RayError as error:
                reason = str(error).strip().partition("\n")[0]
                raise AdapterError(f"Ray: work was lost {_RETRIES + 1} times ({reason}).") from None

    def close(self) -> None:
        """Disconnect, and end what was started for us. What others opened stays open."""
        if not self.kept:
            self.ray.shutdown()


def _chunk(work: Callable[[int], T], indices: range) -> list[T]:
    return [work(index) for index in indices]


def connect(address: str | None, workers: int) -> Cluster:
    """Join the cluster at `address`, or RAY_ADDRESS; without either, start one for `workers` on this machine.

    Raises Unavailable, in one line, where Ray is not installed or the cluster does not answer, and ConfigError
    for more workers than this machine could serve.
    """
    require("--engine ray", "ray", "ray")
    address = address or os.environ.get("RAY_ADDRESS") or None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cores = os.cpu_count() or 1
    if not address and workers > (most := max(_FEW, _A_CORE * cores)):
        raise ConfigError(
            f"{workers:,} workers on this machine, which has {cores} cores: at most {most}. --address names a cluster."
        )
    ray = import_module("ray")
    client = bool(address and address.startswith("ray://"))
    if ray.is_initialized():
        return Cluster(ray, kept=True, client=client)
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    own = {
        "num_cpus": max(cores, workers),
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
