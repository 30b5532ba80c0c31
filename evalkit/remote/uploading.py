"""Rows to the bucket while a run goes on: small segments in order, put together to rows.jsonl at the end.

A segment is an object of its own and is never changed, so that a torn upload harms nothing that is there. While
the storage does not answer the run goes on: rows wait in the mirror, where they are durable already.
"""

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.errors import StoreError
from evalkit.remote.lease import Lease
from evalkit.remote.mirror import Mirror, Stamp, stamp
from evalkit.remote.names import is_content, is_plain
from evalkit.remote.parts import SEGMENTS, Parts, is_part, rows_tag
from evalkit.remote.rows import whole_lines
from evalkit.store import ROWS_FILE

_LOG = logging.getLogger(__name__)
EVERY_S = 2.0  # how long a row waits for others to go with it
LONGEST_WAIT_S = 15.0  # between two tries while the storage is down
PATIENCE_S = 60.0  # at the end of a run, for a storage that is down
QUIET_S = 5.0  # a fault that lasts no longer is not worth a word
_LARGEST_SEGMENT = 2_000  # rows
_MOST_SEGMENTS = 200  # then they are put together in the middle of a run


@dataclass(frozen=True, slots=True)
class _File:
    """A small file of the run as it is now: run.json, a journal of batches."""

    key: str
    content: bytes
    stamp: Stamp


class Uploader:
    """Sends the rows of one run and the files beside them, from a thread of its own."""

    def __init__(self, mirror: Mirror, run: str, parts: Parts, lease: Lease) -> None:
        self._mirror, self._run, self._lease = mirror, run, lease
        self._objects = replace(mirror.objects, tries=1)
        self._folder = mirror.path(run)
        self._base = parts.base
        self._segments = list(parts.segments)
        self._number = max((_number(key) for key in parts.segments), default=0)
        self._waiting = list(parts.unsent)
        self._guard = threading.Lock()  # of _waiting
        self._next: list[
            bytes
        ] = []  # the first of _waiting, in a segment whose name may be taken by itself already
        self._ending, self._given_up = threading.Event(), threading.Event()
        self._fault: str | None = None
        self._down_since: float | None = None
        self._told = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._work: Future[None] = self._pool.submit(self._send_until_end)

    def add(self, line: bytes) -> None:
        """A row that is durable in the mirror."""
        with self._guard:
            self._waiting.append(line)

    def finish(self) -> str | None:
        """Send all that is left. Returns None, or why something stays in the mirror alone."""
        self._ending.set()
        try:
            self._work.result()
        finally:  # Ctrl-C does not wait for a storage that is down
            self._given_up.set()
            self._pool.shutdown()
        if self._fault is None:
            return None
        n = len(self._waiting)
        what = f"{n} row{'s' * (n != 1)}" if n else "the end of the run"
        return (
            f"{what} could not be sent ({self._fault}): only in the local mirror, at {self._folder}. "
            "The same command sends what is missing and asks nothing again."
        )

    def _send_until_end(self) -> None:
        wait = EVERY_S
        while not self._ending.wait(wait):
            wait = EVERY_S if self._attempt(last=False) else min(2 * wait, LONGEST_WAIT_S)
        deadline, wait = time.monotonic() + PATIENCE_S, EVERY_S / 2
        while not self._attempt(last=True) and not self._lease.lost:
            if time.monotonic() + wait > deadline or self._given_up.wait(wait):
                return
            wait = min(2 * wait, LONGEST_WAIT_S)

    def _attempt(self, last: bool) -> bool:
        try:
            self._send(last)
        except (StoreError, OSError) as error:  # OSError: of the mirror's own disk
            self._fault = str(error).rstrip(".")
            now = time.monotonic()
            self._down_since = self._down_since or now
            if not self._told and now - self._down_since >= QUIET_S:
                self._told = True
                _LOG.warning(
                    "%s. The run goes on; its rows are kept in %s and sent later.", self._fault, self._folder
                )
            return False
        if self._told and not self._lease.lost:
            _LOG.warning("%s: the storage answers again; all rows are sent.", self._mirror.url(self._run))
        self._fault, self._down_since, self._told = None, None, False
        return True

    def _send(self, last: bool) -> None:
        files = self._changed_files()  # before the rows: a run.json that is there has the rows that it counts
        if not self._lease.lost:  # else nothing of it is ours to write any more
            self._send_segments()
        if self._lease.lost:
            return
        together = self._put_together() if last or len(self._segments) > _MOST_SEGMENTS else []
        for file in files:
            tag = self._objects.put(file.key, file.content)
            self._mirror.note({file.key: {"tag": tag, "stamp": file.stamp}})
        for key in together:
            self._objects.remove(key)
            self._segments.remove(key)

    def _send_segments(self) -> None:
        while lines := self._next or self._waiting[:_LARGEST_SEGMENT]:
            self._next = lines
            name = f"{self._number + 1:06d}-{self._lease.owner[:12]}.jsonl"
            key = f"{self._run}/{SEGMENTS}/{name}"
            self._objects.create(key, b"".join(lines))
            self._number += 1
            self._segments.append(key)
            with self._guard:
                del self._waiting[: len(lines)]
            self._next = []

    def _put_together(self) -> list[str]:
        """rows.jsonl as the mirror has it, in the place of the one we know; returns the segments it took in."""
        key, path = f"{self._run}/{ROWS_FILE}", self._folder / ROWS_FILE
        now = stamp(path)
        if now is None:
            return []
        segments = list(self._segments)
        entry = self._mirror.known().get(key)
        if self._base and not segments and entry is not None and entry["stamp"] == now:
            return []
        content = whole_lines(path.read_bytes())
        if self._base is None:
            self._base = self._objects.create(key, content)
        else:
            self._base = self._objects.replace(key, content, self._base)
        self._mirror.note({key: {"tag": rows_tag({key: self._base}), "stamp": now}})
        return segments

    def _changed_files(self) -> list[_File]:
        known, found = self._mirror.known(), []
        for path in sorted(self._folder.iterdir()):
            key = path.relative_to(self._mirror.files).as_posix()
            if (
                is_part(key)
                or not is_plain(key)
                or not is_content(key)
                or path.is_symlink()
                or not path.is_file()
            ):
                continue
            now = stamp(path)
            if now is not None and (key not in known or known[key]["stamp"] != now):
                found.append(_File(key, _read(path), now))
        return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}).") from None


def _number(key: str) -> int:
    digits = key.rpartition("/")[2].partition("-")[0]
    return int(digits) if digits.isdecimal() and len(digits) < 10 else 0
