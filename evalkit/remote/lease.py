"""One writer of a run over all machines: an object that is created exclusively, renewed, and taken over once
it has run out.

Whoever holds it renews it every third of its time. A machine that is killed leaves it: another may take it after
it has run out by the clocks of both, which must agree within SKEW_S; on the same machine, in the same mirror and
under the run's lock there, it may be taken at once. Taking over and renewing replace the very object that was
seen (If-Match), so that of two only one succeeds. Where a storage has no such step, two that begin within
milliseconds of each other are told apart by looking again.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from evalkit.errors import InUse, StoreError, Unsent
from evalkit.remote.faults import Changed
from evalkit.remote.mirror import Mirror
from evalkit.remote.names import LEASE_FILE

_LOG = logging.getLogger(__name__)
TERM_S = 60.0
SKEW_S = 5.0
_LOOK_AGAIN_S = 0.5


class Lease:
    """The right to write what lies below a key of a bucket. `taken` before use, `released` after."""

    def __init__(self, mirror: Mirror, below: str) -> None:
        self.owner = uuid.uuid4().hex
        self._mirror, self._below = mirror, below
        self._key = f"{below}/{LEASE_FILE}"
        self._since = time.time()
        self._tag = ""
        self._lost: str | None = None
        self._over = threading.Event()
        self._beat: tuple[ThreadPoolExecutor, Future[None]] | None = None

    def take(self) -> None:
        """Raises StoreError, which says who holds it. Only for who holds the folder's lock on this machine."""
        found = self._mirror.objects.read(
            self._key
        )  # before a put, which not every server does on a condition
        if found is None:
            try:
                self._tag = self._mirror.objects.create(self._key, self._body())
            except Changed:
                found = self._mirror.objects.read(self._key)
                if found is None:
                    raise InUse(self._just_now()) from None
        if found is not None:
            self._take_over(*found)
        if not self._mirror.conditional:
            time.sleep(_LOOK_AGAIN_S)
            self._look_again()
        pool = ThreadPoolExecutor(1, thread_name_prefix="lease")
        self._beat = pool, pool.submit(self._renew_until_over)

    def check(self) -> None:
        """Raises Unsent once another process has taken it over."""
        if self._lost is not None:
            raise Unsent(self._lost)

    @property
    def lost(self) -> bool:
        return self._lost is not None

    def release(self) -> None:
        """Give it back; where the storage does not answer it runs out by itself."""
        if self._beat is None:
            return
        self._over.set()
        pool, beat = self._beat
        pool.shutdown()
        beat.result()
        if self.lost:
            return
        quick = replace(self._mirror.objects, tries=1)
        try:
            self._tag = quick.replace(
                self._key, self._body(), self._tag
            )  # it is ours, and stays so while we remove it
            quick.remove(self._key)
        except StoreError as error:
            _LOG.info("%s: not given back: %s", self._key, error)

    def _take_over(self, content: bytes, tag: str) -> None:
        holder = _holder(content)
        same_place = (holder["mirror"], holder["host"]) == (self._mirror.id, socket.gethostname())
        left = holder["expires"] + SKEW_S - time.time()
        if not same_place and left > 0:
            raise InUse(self._refusal(holder, left))
        try:
            self._tag = self._mirror.objects.replace(self._key, self._body(), tag)
        except Changed:
            raise InUse(self._just_now()) from None

    def _refusal(self, holder: dict[str, Any], left: float) -> str:
        since = datetime.fromtimestamp(holder["since"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return (
            f"{self._mirror.url(self._below)}: another process (pid {holder['pid']} on {holder['host']}, "
            f"since {since}) is writing this run. Wait for it, or stop it and start again: nothing finished is lost. "
            f"If it was killed, its lease ends in {max(left, 1):.0f} s."
        )

    def _look_again(self) -> None:
        found = self._mirror.objects.read(self._key)
        if found is None or _holder(found[0])["owner"] != self.owner:
            raise InUse(self._just_now())

    def _just_now(self) -> str:
        return f"{self._mirror.url(self._below)}: another process began to write this run just now."

    def _renew_until_over(self) -> None:
        quick = replace(self._mirror.objects, tries=1)
        wait = TERM_S / 3
        while not self._over.wait(wait):
            try:
                if not self._is_own(quick.read(self._key)):
                    return
                self._tag = quick.replace(self._key, self._body(), self._tag)
                wait = TERM_S / 3
            except StoreError as error:  # taken this moment, or the storage is down: the next look will tell
                _LOG.info("%s: not renewed: %s", self._key, error)
                wait = TERM_S / 12

    def _is_own(self, found: tuple[bytes, str] | None) -> bool:
        """Whether the object is still ours, maybe of a renewal whose answer was lost; sets `lost` if not."""
        holder = _holder(found[0]) if found else None
        if found is not None and holder is not None and holder["owner"] == self.owner:
            self._tag = found[1]
            return True
        who = (
            f"another process (pid {holder['pid']} on {holder['host']}) took it"
            if holder
            else "it was given back"
        )
        self._lost = (
            f"{self._mirror.url(self._below)}: the lease ran out while the storage did not answer, and {who}. "
            f"What this one has is kept in {self._mirror.path(self._below)}; the same command unites both."
        )
        return False

    def _body(self) -> bytes:
        """Like no other's, and like none of our own before: a storage's tag is made of the content alone."""
        now = time.time()
        document = {
            "owner": self.owner,
            "mirror": self._mirror.id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": self._since,
            "renewed": now,
            "expires": now + TERM_S,
        }
        return (json.dumps(document, indent=2) + "\n").encode()


def _holder(content: bytes) -> dict[str, Any]:
    """What a lease says; one that cannot be read has run out long ago."""
    try:
        found = json.loads(content)
        return {
            "owner": str(found["owner"]),
            "mirror": str(found["mirror"]),
            "host": _plain(found["host"]),
            "pid": int(found["pid"]),
            "since": float(found["since"]),
            "expires": min(float(found["expires"]), time.time() + 10 * TERM_S),
        }
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return {"owner": "", "mirror": "", "host": "?", "pid": 0, "since": 0.0, "expires": 0.0}


def _plain(text: Any) -> str:
    return "".join(c for c in str(text)[:80] if c.isprintable())
