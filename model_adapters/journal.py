"""What was submitted to a provider's batch service, noted durably before and after: batches.jsonl of a run.

planned     a tag and its items; from here on the provider may know the batch
submitted   the provider's name of it
dropped     it was never submitted, or failed as a whole: its items are free again
collected   every item of it has its reply
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import StoreError


@dataclass(slots=True)
class Part:
    """One batch: a tag of ours, the items in it, and the provider's name once it has one."""

    tag: str
    items: tuple[str, ...]
    batch: str | None = None
    done: bool = False


class Journal:
    """Append-only; every note is on disk before the next step. A line torn by a kill is dropped."""

    def __init__(self, path: Path) -> None:
        """Reads what is there. Raises StoreError for a file that is not a journal."""
        self.path = path
        self.parts: dict[str, Part] = {}
        self.tries: Counter[str] = Counter()  # submissions an item was part of
        if path.exists():
            self._read(path.read_bytes())

    def planned(self, tag: str, items: Sequence[str]) -> Part:
        self._note({"event": "planned", "tag": tag, "items": list(items)})
        return self.parts[tag]

    def submitted(self, part: Part, batch: str) -> None:
        self._note({"event": "submitted", "tag": part.tag, "batch": batch})

    def dropped(self, part: Part) -> None:
        self._note({"event": "dropped", "tag": part.tag})

    def collected(self, part: Part) -> None:
        self._note({"event": "collected", "tag": part.tag})

    def open_parts(self) -> list[Part]:
        return [part for part in self.parts.values() if not part.done]

    def _read(self, content: bytes) -> None:
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                self._apply(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise StoreError(
                    f"{self.path}:{number}: not a line of a batch journal: the file was changed or damaged."
                ) from None
        if whole != len(content):
            with self.path.open("rb+") as file:
                file.truncate(whole)
                os.fsync(file.fileno())

    def _note(self, event: dict[str, Any]) -> None:
        line = (json.dumps(event) + "\n").encode("ascii")
        try:
            with self.path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written ({error.strerror}).") from None
        self._apply(event)

    def _apply(self, event: dict[str, Any]) -> None:
        tag = str(event["tag"])
        match event["event"]:
            case "planned":
                items = tuple(str(item) for item in event["items"])
                self.parts[tag] = Part(tag, items)
                self.tries.update(items)
            case "submitted":
                self.parts[tag].batch = str(event["batch"])
            case "dropped":
                self.parts[tag].done = True
                self.tries.subtract(self.parts[tag].items)
            case "collected":
                self.parts[tag].done = True
            case other:
                raise ValueError(other)
