"""A run folder that is shared: RunStore in the mirror, a lease in the bucket, rows sent as they come."""

import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from evalkit.errors import StoreError, Unsent
from evalkit.remote.folders import fetched, sent
from evalkit.remote.lease import Lease
from evalkit.remote.mirror import Mirror, mirror_of
from evalkit.remote.parts import Parts, listed_parts, not_at_work, run_of
from evalkit.remote.pulling import pull_run
from evalkit.remote.uploading import Uploader
from evalkit.store import RUN_FILE, RunStore, dump_row

_LOG = logging.getLogger(__name__)
_READERS_LEAVE_S = 2.0


def replace_run(folder: Path) -> None:
    """Put a run as it is here in the place of the bucket's. Raises StoreError if another machine is writing it."""
    if (mirror := mirror_of(folder)) is not None:
        with SharedRun(folder, mirror, replacing=True):
            pass


def open_run(folder: Path) -> RunStore:
    """The run in this folder, held exclusively: on this machine, and where it is shared, by all machines."""
    mirror = mirror_of(folder)
    return RunStore(folder) if mirror is None else SharedRun(folder, mirror)


@contextmanager
def _unmoved_by_sigterm() -> Iterator[None]:
    """A scheduler's SIGTERM does not end the sending of what is there: it lasts PATIENCE_S at most. Ctrl-C ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A folder of results other than a run, written by one process at a time and sent at the end, also of a failure."""
    mirror = mirror_of(folder)
    if mirror is None:
        yield
        return
    key = mirror.key(folder)
    lease = Lease(mirror, key)
    folder.mkdir(parents=True, exist_ok=True)
    with not_at_work(folder) as idle:
        if not idle:
            raise StoreError(
                f"{folder}: another process is writing there. Wait for it, or stop it and start again."
            )
        lease.take()
        try:
            fetched(folder)
            try:
                yield
            finally:
                sent(folder)
        finally:
            lease.release()


class SharedRun(RunStore):
    """A run that a bucket has, or will have. Raises StoreError if another machine is writing it.

    On leaving, everything is in the bucket as rows.jsonl and run.json, or Unsent says what is not.
    """

    def __init__(self, folder: Path, mirror: Mirror, *, replacing: bool = False) -> None:
        """replacing: the bucket's rows are not united with those here, which take their place."""
        self._mirror, self._run, self._replacing = mirror, mirror.key(folder), replacing
        if run_of(f"{self._run}/{RUN_FILE}") != self._run:
            raise StoreError(
                f"{mirror.url(self._run)}: no run's name: expected RESULTS/runs/MODEL/TASK-SPLIT-HASH."
            )
        self._lease = Lease(mirror, self._run)
        self._parts = Parts()
        try:
            super().__init__(folder)
        except BaseException:
            self._lease.release()
            raise
        self._uploader = Uploader(mirror, self._run, self._parts, self._lease)

    def _take_lock(self) -> None:
        """A reader that brings the mirror up to date holds a run for a moment; a writer holds it for longer."""
        until = time.monotonic() + _READERS_LEAVE_S
        while True:
            try:
                return super()._take_lock()
            except StoreError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.1)

    def _prepare(self) -> None:
        self._lease.take()
        self._parts = (listed_parts if self._replacing else pull_run)(self._mirror, self._run)

    def append(self, row: Mapping[str, Any]) -> None:
        """Durable in the mirror on return, in the bucket soon after."""
        super().append(row)
        self._uploader.add(dump_row(row))
        self._lease.check()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with _unmoved_by_sigterm():
                left = self._uploader.finish()
        finally:
            self._lease.release()
            super().__exit__(kind, error, trace)
        if left is None:
            return
        if error is None:
            raise Unsent(left)
        _LOG.warning("%s", left)
