"""The processes that torchrun or accelerate launch has started, where they share work that needs no gradient."""

import os
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")
_PATIENCE = timedelta(hours=2)  # the others wait while one loads its model


def leave() -> None:
    """The end of a process of several that has done its part: exit status 0, and not by the interpreter's own end.

    A thread of gloo that lets go of a tensor while Python is being taken down aborts the process, now and then.
    """
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class Ranks:
    """This process among those that work together; alone, all of it is this one's."""

    def __init__(self) -> None:
        self.n, self.own = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        if self.n > 1 and torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        if self.n > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo", timeout=_PATIENCE)

    @property
    def first(self) -> bool:
        return self.own == 0

    def of_first(self, value: T) -> T:
        """The first process's value, at all of them."""
        if self.n == 1:
            return value
        found = [value]
        torch.distributed.broadcast_object_list(found, src=0)
        first: T = found[0]
        return first

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of what all have alike."""
        return items[self.own :: self.n]

    def collected(self, found: Iterator[R], items: Sequence[Any], at_once: int) -> Iterator[R]:
        """What all find, one for each of `items`, at the first process, as it comes; nothing at the others.

        found: this process's, one for each of its share. at_once: how many of each are sent together.
        """
        if self.n == 1:
            yield from found
            return
        most = -(-len(items) // self.n)  # of any share
        for _ in range(-(-most // at_once)):
            own = list(islice(found, at_once))
            of_all: list[Any] = [None] * self.n
            torch.distributed.gather_object(own, of_all if self.first else None, dst=0)
            for part in of_all if self.first else ():
                yield from part
