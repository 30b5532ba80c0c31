"""refs(unc).p without running anything: a pickle of plain containers and scalars, and nothing else.

The unpickler is the standard library's one in Python with a table of its own: an opcode that is not in it is
refused by name, so that no class, function or extension is ever looked up. (That in C would also fill memory
for a memo index of four billion.)
"""

import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evalkit.errors import DataError

MAX_BYTES = 256 << 20  # the published file has 40 MB
_PLAIN = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET", "MEMOIZE"),
)


class _Refused(Exception):
    """An opcode that plain data has no need of."""


class _Opcodes(dict[int, Any]):
    def __missing__(self, code: int) -> Any:
        known = pickletools.code2op.get(chr(code))  # type: ignore[attr-defined]  # a table of the library
        raise _Refused(known.name if known else f"byte {code:#04x}")


class _PlainUnpickler(pickle._Unpickler):  # the same class, in Python
    dispatch = _Opcodes(
        (ord(getattr(pickle, name)), pickle._Unpickler.dispatch[ord(getattr(pickle, name))])
        for name in _PLAIN
    )

    def find_class(self, module: str, name: str) -> Any:
        raise _Refused(f"{module}.{name}")


def _checked(load: Callable[[Any], None], keys: Callable[[list[Any]], list[Any]]) -> Callable[[Any], None]:
    """Tuples are no keys: a few that hold each other twice take the time of the universe to hash."""

    def loading(unpickler: Any) -> None:
        if any(isinstance(key, tuple) for key in keys(unpickler.stack)):
            raise _Refused("a tuple as a key")
        load(unpickler)

    return loading


for _name, _keys in {
    "SETITEM": lambda stack: stack[-2:-1],
    "SETITEMS": lambda stack: stack[::2],  # above the mark
    "DICT": lambda stack: stack[::2],
}.items():
    _code = ord(getattr(pickle, _name))
    _PlainUnpickler.dispatch[_code] = _checked(_PlainUnpickler.dispatch[_code], _keys)


def load_plain(path: Path) -> Any:
    """The value of a pickle of lists, dicts, tuples, texts and numbers. Raises DataError; nothing of it is run.

    Byte strings of Python 2 are read as latin-1, which has a letter for every byte.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: more than {MAX_BYTES:,} bytes, which refs(unc).p never has.")
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin-1").load()
    except _Refused as refused:
        raise DataError(
            f"{path}: refused: it is no plain data, its pickle uses {refused}. Nothing of it was run."
        ) from None
    # what the opcodes raise on torn or hostile streams
    except (
        pickle.UnpicklingError, OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
        OverflowError, MemoryError, RecursionError, AssertionError,
    ) as error:  # fmt: skip
        raise DataError(
            f"{path}: not a pickle that can be read ({type(error).__name__}: {str(error)[:120]})."
        ) from None
