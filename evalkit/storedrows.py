"""The rows of a run by sample: the first ones held, the others read from rows.jsonl when they are asked for."""

import json
import os
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import StoreError
from evalkit.lazy import KEPT


class StoredRows(Mapping[str, dict[str, Any]]):
    """In the order of the file, which may grow; where another takes its name, the rows are still of the old one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, int] = {}
        self._starts = array("Q", [0])  # of each line, and where the next one will be
        self._kept: dict[str, dict[str, Any]] = {}
        self._fd: int | None = None

    def note(self, row: Mapping[str, Any], n_bytes: int) -> None:
        """A row that the file ends in, and its length there."""
        sample_id = row["sample_id"]
        self._places[sample_id] = len(self._places)
        self._starts.append(self._starts[-1] + n_bytes)
        if len(self._kept) < KEPT:
            self._kept[sample_id] = dict(row)

    def __getitem__(self, sample_id: str) -> dict[str, Any]:
        place = self._places[sample_id]
        if (kept := self._kept.get(sample_id)) is not None:
            return kept
        if self._fd is None:
            self._fd = os.open(self._path, os.O_RDONLY)
        start = self._starts[place]
        line = os.pread(self._fd, self._starts[place + 1] - start, start)
        try:
            row: dict[str, Any] = json.loads(line)
        except ValueError:
            raise StoreError(f"{self._path}: was changed while it was read.") from None
        return row

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __del__(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
