"""The log of a server: what was asked, when, how it was answered. One JSON line at arrival, one at the end.

    arrived  number, op, item, attempt, fault, model, bytes, in_flight, connections, key_sha256, t
    done     number, op, item, attempt, fault, status, answered, in_flight, t
    batch    number, batch, items                       a batch of these items was made

t is time.time(). `answered`: an answer that the client may take as final went out to its last byte.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

ASK = "ask"


class LogWriter:
    """Appends lines, each flushed, so that a reader in another process sees them at once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, **line: Any) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class RequestLog:
    """Questions put to a log; it is read anew for each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self, event: str | None = None, op: str | None = None) -> list[dict[str, Any]]:
        """Whole lines, all or of one event and one kind of call."""
        if not self.path.exists():
            return []
        found = [json.loads(line) for line in self.path.read_bytes().split(b"\n")[:-1]]
        return [
            line
            for line in found
            if (event is None or line["event"] == event) and (op is None or line.get("op") == op)
        ]

    def items(self) -> list[str]:
        """Items in the order in which they first arrived."""
        return list(dict.fromkeys(line["item"] for line in self.lines("arrived", ASK)))

    def attempts(self, item: str) -> int:
        """How often it was asked, answered or not."""
        return sum(line["item"] == item for line in self.lines("arrived", ASK))

    def answered(self) -> Counter[str]:
        """Item -> how many final answers to it went out whole."""
        return Counter(line["item"] for line in self.lines("done", ASK) if line["answered"])

    def answered_twice(self) -> list[str]:
        return [item for item, times in self.answered().items() if times > 1]

    def count(self, status: int | None = None, fault: str | None = None, op: str = ASK) -> int:
        """Calls that ended with this status, had this fault; all that ended where neither is given."""
        return sum(
            (status is None or line["status"] == status) and (fault is None or line["fault"] == fault)
            for line in self.lines("done", op)
        )

    def most(self, what: str = "in_flight") -> int:
        """The largest number of requests `in_flight`, or of `connections`, at any arrival."""
        return max((line[what] for line in self.lines("arrived")), default=0)

    def seconds(self) -> float:
        """From the first question's arrival to the last one's end."""
        started = [line["t"] for line in self.lines("arrived", ASK)]
        ended = [line["t"] for line in self.lines("done", ASK)]
        return max(ended) - min(started) if ended else 0.0

    def batches(self) -> dict[str, list[str]]:
        """Batch -> the items that it was made of."""
        return {line["batch"]: line["items"] for line in self.lines("batch")}

    def batched_twice(self) -> list[str]:
        """Items that stand in more than one batch: paid twice."""
        times = Counter(item for items in self.batches().values() for item in items)
        return [item for item, n in times.items() if n > 1]
