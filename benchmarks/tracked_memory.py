"""What tensors hold in a training step: a dispatch mode that knows every storage that is alive, and its size now.

Scratch space inside one kernel is not seen, nor what an allocator rounds up or keeps for later.
"""

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TrackedMemory(TorchDispatchMode):
    """peaks: phase -> most bytes at once while `phase` was the name of what ran."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = "before"
        self.peaks: dict[str, int] = {}
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.see(tree_leaves(out))
        self.peaks[self.phase] = max(self.peaks.get(self.phase, 0), self.held())
        return out

    def see(self, tensors: Iterable[Any]) -> None:
        """Count what these hold from now on. A sharded tensor is its shard."""
        for tensor in tensors:
            local = getattr(tensor, "_local_tensor", tensor)
            if isinstance(local, torch.Tensor) and local.device.type != "meta":
                storage = local.untyped_storage()
                key = storage._cdata
                known = self._alive.get(key)
                if known is None or known() is not storage:
                    self._alive[key] = weakref.ref(storage, partial(self._freed, key))

    def held(self) -> int:
        """Bytes now; FSDP lets a storage shrink to nothing and grow again."""
        storages = (reference() for reference in list(self._alive.values()))
        return sum(storage.nbytes() for storage in storages if storage is not None)

    def _freed(self, key: int, reference: Any) -> None:
        if self._alive.get(key) is reference:
            del self._alive[key]
