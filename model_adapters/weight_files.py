"""Weights on disk, one tensor in memory at a time: shards of .bin or .safetensors in, .safetensors out."""

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from evalkit.errors import AdapterError, Unavailable

# In the order they are looked for; of each, an index of several files or one file.
_NAMES = ("model.safetensors", "pytorch_model.bin")
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # torch -> safetensors
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor lies. dtype: torch's name without `torch.`."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def weight_files(folder: Path) -> list[Path]:
    """The files of a checkpoint's weights. Raises Unavailable where there are none, AdapterError."""
    for name in _NAMES:
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _of_index(index)
        if (folder / name).is_file():
            return [folder / name]
    raise Unavailable(f"{folder} holds no weights: neither {' nor '.join(_NAMES)}, nor an index of them.")


def _of_index(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AdapterError(f"{index}: not an index of weights ({error!r}).") from None
    if outside or not names:
        raise AdapterError(f"{index}: expected file names beside it, found {outside[:1] or 'none'}.")
    for name in names:
        if not (index.parent / name).is_file():
            raise Unavailable(f"{index.parent} lacks {name}, which {index.name} names: fetch it again.")
    return [index.parent / name for name in names]


def survey(files: Sequence[Path]) -> dict[str, Stored]:
    """key -> where and how it is stored, without reading any tensor's data. Raises AdapterError."""
    found: dict[str, Stored] = {}
    for file in files:
        with opened(file) as tensors:
            for key, (shape, dtype) in tensors.listing().items():
                if key in found:
                    raise AdapterError(f"{file}: {key} stands in {found[key].file.name} already.")
                found[key] = Stored(file, shape, dtype)
    return found


class _Bin:
    """A file of torch.save, mapped into memory; only tensors are unpickled, never other objects.

    torch before 1.6 wrote no zip, which cannot be mapped: such a file is read whole.
    """

    def __init__(self, file: Path) -> None:
        import torch

        self._tensors = torch.load(file, map_location="cpu", mmap=is_zipfile(file), weights_only=True)
        if not isinstance(self._tensors, Mapping):
            raise TypeError(f"a {type(self._tensors).__name__}, not a mapping of names to tensors")
        if odd := [k for k, v in self._tensors.items() if not isinstance(v, torch.Tensor)]:
            raise TypeError(f"{odd[0]!r} is no tensor")

    def listing(self) -> dict[str, tuple[tuple[int, ...], str]]:
        return {k: (tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in self._tensors.items()}

    def get(self, key: str) -> Any:
        return self._tensors[key]


class _Safe:
    """A .safetensors file."""

    _NAMES: Mapping[str, str] = {theirs: ours for ours, theirs in _DTYPES.items()}

    def __init__(self, file: Path) -> None:
        self._file = import_module("safetensors").safe_open(file, framework="pt")

    def listing(self) -> dict[str, tuple[tuple[int, ...], str]]:
        slices = {key: self._file.get_slice(key) for key in self._file.keys()}  # noqa: SIM118  # not a dict
        return {
            key: (tuple(part.get_shape()), self._NAMES.get(part.get_dtype(), part.get_dtype()))
            for key, part in slices.items()
        }

    def get(self, key: str) -> Any:
        return self._file.get_tensor(key)


@contextmanager
def opened(file: Path) -> Iterator[_Bin | _Safe]:
    """The tensors of a file by name; nothing else that a pickle may hold is run. Raises AdapterError."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    try:
        tensors = _Safe(file) if file.suffix == ".safetensors" else _Bin(file)
    except UnpicklingError as error:
        # torch's message goes on to advise loading it all the same: only what was found is passed on
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"holds more than tensors ({named[1]})" if named else "is no file of weights"
        raise AdapterError(
            f"{file}: {what} and is not loaded: unpickling it could run its code. "
            "Fetch it again from where it was released."
        ) from None
    except (OSError, RuntimeError, TypeError, ValueError, KeyError, EOFError, SafetensorError) as error:
        raise AdapterError(f"{file}: cannot be read as weights ({_first_line(error)}).") from None
    yield tensors


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {' '.join(text.split())[:200].rstrip('.:')}"


def write_safetensors(
    file: Path, entries: Sequence[tuple[str, tuple[int, ...]]], dtype: str, tensors: Iterable[Any]
) -> None:
    """One .safetensors file, durably, of (name, shape) entries and their tensors in the same order.

    Each tensor is cast to `dtype`, written and let go before the next is drawn.
    """
    import torch

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in entries:
        start, end = end, end + size_of(shape, dtype)
        header[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(head)) + head)
        for (name, shape), tensor in zip(entries, tensors, strict=True):
            assert tuple(tensor.shape) == shape, f"{name}: planned {shape}, came {tuple(tensor.shape)}"
            cast = tensor.to(getattr(torch, dtype))
            out.write(memoryview(cast.reshape(-1).view(torch.uint8).numpy()))
        out.flush()
        os.fsync(out.fileno())


def size_of(shape: Sequence[int], dtype: str) -> int:
    """Bytes of a tensor on disk."""
    count = ITEM_BYTES[dtype]
    for side in shape:
        count *= side
    return count


def sha256(file: Path) -> str:
    """Of a file's bytes, read in pieces."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
