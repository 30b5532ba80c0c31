"""Long sequences whose items are made when they are asked for, so that memory does not grow with them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")
KEPT = 10_000  # items up to which a sequence is simply held


class Lazy(Sequence[T]):
    """n items; item i is item(i), made anew each time."""

    def __init__(self, n: int, item: Callable[[int], T]) -> None:
        self._n, self._item = n, item

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        if isinstance(index, slice):
            return tuple(self._item(i) for i in range(*index.indices(self._n)))
        if not -self._n <= index < self._n:
            raise IndexError(index)
        return self._item(index % self._n)


def held(n: int, item: Callable[[int], T]) -> Sequence[T]:
    """The items: as a tuple where they are few, else each made when it is asked for."""
    lazy = Lazy(n, item)
    return tuple(lazy) if n <= KEPT else lazy


class Left(Generic[T]):
    """What is left of a stream, to be taken from its left like a deque."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._first = next(items, None)

    def __bool__(self) -> bool:
        return self._first is not None

    def __getitem__(self, index: int) -> T:
        """The first, for index 0."""
        if index or self._first is None:
            raise IndexError(index)
        return self._first

    def popleft(self) -> T:
        first = self[0]
        self._first = next(self._items, None)
        return first
