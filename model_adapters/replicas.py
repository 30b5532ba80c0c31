"""Copies of a model in the workers of a Ray cluster, as one adapter: prompts stream to them, replies back.

Actors, not Ray Data: a reply counts as soon as it is there and not when its block is; a copy is loaded once and fed
prompt by prompt, which continuous batching wants; and when a copy is lost, what it had not answered is asked
elsewhere, and only that. The one who draws the replies writes them, so a run on Ray is stored as any other.

A copy holds at most a window of prompts, so that neither they nor replies pile up anywhere.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evalkit.cluster import Cluster, connect
from evalkit.errors import AdapterError, ConfigError, EvalkitError
from evalkit.records import Prompt, Reply
from model_adapters.checkpoints import local_checkpoint
from model_adapters.registry import ModelEntry
from model_adapters.replica import Loaded, Parcel, Replica
from model_adapters.settings import API_KINDS
from model_adapters.vllm_engine import EngineStopped

_LOG = logging.getLogger(__name__)
_PATIENCE_S = 10.0  # how long a call to a copy waits for a reply before it is made anew
_PLACING_S = 600.0  # how long copies may wait for a node that has room for them while none is at work
_ROOM_S = 30.0  # after which it is said that they wait
_MOST_DEATHS = (
    3  # of the copies that one sample was asked of, before it counts as failed; of idle ones in a row
)
_MOST_FAILED = 20  # samples that failed so one after the other: it is not the samples then
_ALONE_AFTER = 2  # deaths after which a sample is asked with no other beside it


def require_replicable(entry: ModelEntry) -> None:
    """Raise ConfigError for a model that copies would not make faster."""
    if entry.adapter in (*API_KINDS, "vllm_server"):
        raise ConfigError(
            f"{entry.name} is asked through a server, which limits what it answers: leave --engine ray out. "
            "concurrency and rpm (--set) decide how many requests are in flight."
        )


@dataclass(slots=True)
class _Copy:
    """One replica, and what it has been asked and has not answered.

    call:  what is awaited of it: its place, its loading, or its next replies.
    stage: what happens when that comes.
    """

    number: int
    actor: Any
    call: Any
    stage: Callable[["_Copy", Any], Iterator[Reply]]
    since: float = field(default_factory=time.monotonic)
    node: str | None = None
    window: int = 0  # 0 until it is loaded
    asked: dict[str, Prompt] = field(default_factory=dict)
    answered: int = 0


class RayReplicas:
    """An Adapter over `replicas` copies of a local model (default: what the cluster's GPUs hold; one a node
    without GPUs). Each is given the GPUs that one engine needs: tensor_parallel_size x data_parallel_size.

    address: of a running cluster; RAY_ADDRESS where it is None; without either, workers of this machine.
    Waits until the first copy is loaded; others join when they are. Raises AdapterError, Unavailable.
    """

    def __init__(self, entry: ModelEntry, replicas: int | None = None, address: str | None = None) -> None:
        require_replicable(entry)
        self._entry = _with_absolute_paths(entry)
        self._name = entry.name
        self._cluster: Cluster = connect(address, replicas or 1)
        self._copies: list[_Copy] = []
        self._deaths: Counter[str] = Counter()
        self._idle_deaths = self._failed = (
            0  # since a reply: of copies with nothing to answer; samples given up
        )
        self._told_of_room = False
        self._again: deque[Prompt] = deque()
        self._descriptions: dict[int, Mapping[str, str]] = {}
        self._closed = False
        try:
            self._gpus = self._gpus_each()
            self._wanted = replicas or self._default_number()
            self._here = self._cluster.own_node
            for number in range(1, self._wanted + 1):
                self._start(number)
            self._await_the_first()
        except BaseException:
            self.close()
            raise

    def replies(self, prompts: Iterable[Prompt]) -> Iterator[Reply]:
        """Replies as they come, of whichever copy. Raises what ended a copy, unless its process was lost."""
        source = iter(prompts)
        while True:
            for copy in self._copies:
                self._fill(copy, source)
            if not any(copy.asked for copy in self._copies) and not self._again:
                nothing_left = next(source, None)
                if nothing_left is None:
                    return
                self._again.append(nothing_left)  # copies are loading still
            yield from self._step(_PATIENCE_S)

    def describe(self) -> Mapping[str, str]:
        """As one copy describes itself; where copies differ (another GPU), all that they say."""
        merged: dict[str, str] = {}
        for key in {key: None for found in self._descriptions.values() for key in found}:
            merged[key] = " | ".join(sorted({found.get(key, "-") for found in self._descriptions.values()}))
        nodes = len({copy.node for copy in self._copies if copy.node})
        return merged | {
            "ray": str(self._cluster.ray.__version__),
            "replicas": str(self._wanted),
            "nodes": str(nodes),
        }

    def close(self) -> None:
        """End the copies; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        ray = self._cluster.ray
        if any(copy.answered for copy in self._copies):
            counts = ", ".join(f"{copy.number}: {copy.answered}" for copy in self._copies)
            _LOG.info("%s: answered by replica %s", self._name, counts)
        try:
            endings = [copy.actor.close.remote() for copy in self._copies if copy.window]
            ray.wait(endings, num_returns=len(endings), timeout=10) if endings else None
            for copy in self._copies:
                ray.kill(copy.actor)
        finally:
            self._cluster.close()

    def _gpus_each(self) -> int:
        runtime = self._entry.runtime
        needs = int(runtime.get("tensor_parallel_size", 1)) * int(runtime.get("data_parallel_size", 1))
        without = self._entry.adapter == "fake" or runtime.get("device") == "cpu" or not self._cluster.gpus
        return 0 if without else needs

    def _default_number(self) -> int:
        return max(1, self._cluster.gpus // self._gpus) if self._gpus else max(1, self._cluster.nodes)

    def _start(self, number: int) -> None:
        ray = self._cluster.ray
        options = {
            "num_cpus": 1,
            "num_gpus": self._gpus,
            "scheduling_strategy": "SPREAD",
            "max_concurrency": 4,
        }
        actor = ray.remote(**options)(_Worker).remote()
        self._copies.append(_Copy(number, actor, actor.node.remote(), self._placed))

    def _await_the_first(self) -> None:
        ray = self._cluster.ray
        ready, _ = ray.wait([copy.call for copy in self._copies], timeout=_PLACING_S)
        if not ready:
            raise self._no_room()
        while not any(copy.window for copy in self._copies):
            for _ in self._step(_PATIENCE_S):
                raise AssertionError("a reply before any prompt")

    def _step(self, patience_s: float) -> Iterator[Reply]:
        """Wait for any copy, and go on with all that have something to say."""
        ray = self._cluster.ray
        calls = {copy.call: copy for copy in self._copies}
        ready, _ = ray.wait(list(calls), timeout=patience_s)
        if ready:
            ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        self._look_for_room()
        for call in ready:
            copy = calls[call]
            try:
                value = ray.get(call)
            except ray.exceptions.RayTaskError as error:
                if not isinstance(error.cause, EngineStopped):
                    raise self._ended(copy, error) from None
                yield from self._lost(copy, error.cause)
            except ray.exceptions.RayError as error:
                yield from self._lost(copy, error)
            else:
                yield from copy.stage(copy, value)

    def _look_for_room(self) -> None:
        """Say that copies wait for a node; raise AdapterError where none is at work and they wait in vain."""
        waiting = [copy for copy in self._copies if copy.node is None]
        longest = max((time.monotonic() - copy.since for copy in waiting), default=0.0)
        if longest > _ROOM_S and not self._told_of_room:
            self._told_of_room = True
            _LOG.warning("%s: %d replicas wait for a node that has room for them", self._name, len(waiting))
        if longest > _PLACING_S and len(waiting) == len(self._copies):
            raise self._no_room()

    def _no_room(self) -> AdapterError:
        return AdapterError(
            f"{self._name}: no node of the cluster has room for a replica ({self._gpus} GPUs, 1 CPU) for "
            f"{_PLACING_S:.0f} s: see `ray status`, or lower tensor_parallel_size. The same command goes on from here."
        )

    def _placed(self, copy: _Copy, node: str) -> Iterator[Reply]:
        copy.node = node
        copy.call, copy.stage = copy.actor.load.remote(self._entry), self._loaded
        return iter(())

    def _loaded(self, copy: _Copy, loaded: Loaded) -> Iterator[Reply]:
        copy.window = loaded.window
        first = next(iter(self._descriptions.values()), loaded.description)
        self._descriptions[copy.number] = loaded.description
        if other := sorted(
            key for key in first.keys() | loaded.description if first.get(key) != loaded.description.get(key)
        ):
            _LOG.warning(
                "%s: replica %d differs from the first in %s", self._name, copy.number, ", ".join(other)
            )
        _LOG.info("%s: replica %d of %d is loaded", self._name, copy.number, self._wanted)
        self._listen(copy)
        return iter(())

    def _listen(self, copy: _Copy) -> None:
        copy.call, copy.stage = copy.actor.take.remote(_PATIENCE_S), self._answered

    def _answered(self, copy: _Copy, replies: list[Reply]) -> Iterator[Reply]:
        self._listen(copy)  # it works on while these are stored
        for reply in replies:
            copy.asked.pop(reply.sample_id, None)
            copy.answered += 1
            self._idle_deaths = self._failed = 0
            yield reply

    def _fill(self, copy: _Copy, source: Iterator[Prompt]) -> None:
        """Give a copy prompts up to its window, those of lost copies first; half a window is not worth a call."""
        if not copy.window or len(copy.asked) > copy.window // 2:
            return
        given: list[Prompt] = []
        while len(copy.asked) + len(given) < copy.window:
            prompt = self._again.popleft() if self._again else next(source, None)
            if prompt is None:
                break
            if self._deaths[prompt.sample_id] >= _ALONE_AFTER:  # it may be what kills them
                if copy.asked or given:
                    self._again.append(prompt)
                    break
                given.append(prompt)
                break
            if any(self._deaths[sample_id] >= _ALONE_AFTER for sample_id in copy.asked):
                self._again.appendleft(prompt)
                break
            given.append(prompt)
        if given:
            copy.asked |= {prompt.sample_id: prompt for prompt in given}
            copy.actor.give.remote([self._packed(copy, prompt) for prompt in given])

    def _packed(self, copy: _Copy, prompt: Prompt) -> Parcel:
        """With the image's bytes where the copy runs on another machine."""
        prompt = replace(prompt, image_path=Path(prompt.image_path).absolute())
        if self._here is not None and copy.node == self._here:
            return Parcel(prompt)
        try:
            return Parcel(prompt, prompt.image_path.read_bytes())
        except OSError:
            return Parcel(prompt)  # the copy says what is wrong with it, as it would on this machine

    def _ended(self, copy: _Copy, error: Any) -> BaseException:
        """The model's own error, as if it ran here; a bug keeps the traceback that Ray brings."""
        cause = error.cause
        if not isinstance(cause, EvalkitError):
            assert isinstance(error, BaseException)
            return error
        where = f" (replica {copy.number})" if self._wanted > 1 else ""
        return type(cause)(f"{cause}{where}")

    def _lost(self, copy: _Copy, error: Exception) -> Iterator[Reply]:
        """Start another copy; what this one was asked goes to whoever has room. Raises AdapterError."""
        reason = _gist(error)
        self._copies.remove(copy)
        self._cluster.ray.kill(copy.actor)  # where it only is out of reach
        self._idle_deaths += not copy.asked
        if self._idle_deaths > _MOST_DEATHS * self._wanted or self._failed >= _MOST_FAILED:
            what = f"{self._failed} samples" if self._failed >= _MOST_FAILED else "nothing asked of them"
            raise AdapterError(f"{self._name}: replicas die one after the other, with {what} ({reason}).")
        _LOG.warning(
            "%s: replica %d is lost (%s); %d samples are asked again",
            self._name,
            copy.number,
            reason,
            len(copy.asked),
        )
        self._start(copy.number)
        for prompt in copy.asked.values():
            self._deaths[prompt.sample_id] += 1
            if self._deaths[prompt.sample_id] < _MOST_DEATHS:
                self._again.append(prompt)
                continue
            self._failed += 1
            died = f"{self._name}: {_MOST_DEATHS} replicas died while they were asked this ({reason})"
            yield Reply(prompt.sample_id, None, "error", 0.0, attempts=_MOST_DEATHS, error=died)


class _Worker(Replica):
    """A replica that knows where it runs."""

    def node(self) -> str:
        from importlib import import_module

        return str(import_module("ray").get_runtime_context().get_node_id())


def _with_absolute_paths(entry: ModelEntry) -> ModelEntry:
    """A worker's working folder may be another."""
    files = {name: str(Path(entry.options[name]).absolute()) for name in ("script",) if name in entry.options}
    logs = {name: str(Path(entry.runtime[name]).absolute()) for name in ("log",) if name in entry.runtime}
    entry = entry.model_copy(update={"options": entry.options | files, "runtime": entry.runtime | logs})
    if entry.checkpoint is None or entry.checkpoint.startswith("tiny:"):
        return entry
    place = local_checkpoint(entry.checkpoint)
    return (
        entry.model_copy(update={"checkpoint": str(place.absolute())}) if isinstance(place, Path) else entry
    )


def _gist(error: Exception) -> str:
    """Ray's errors have many lines; the kind and the first that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
