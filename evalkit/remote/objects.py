"""The calls on a bucket. Objects are written whole: a reader sees the old one or the new one."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from evalkit.errors import StoreError
from evalkit.remote.faults import Absent, Changed, Unreachable, described, raised, translated

T = TypeVar("T")

_EXTRAS = {"s3": "evalkit-vlm[s3]", "gs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
_READ_BY_LIBRARIES = ("AWS_", "FSSPEC_", "GOOGLE_", "AZURE_")
_FIRST_WAIT_S = 0.5
_UPLOAD_S = 60.0
_SLOWEST_UPLOAD = 50_000.0  # bytes a second
# Short enough to notice a storage that is down; whoever calls says how often it is tried again.
_S3_CALLS = {"connect_timeout": 5, "read_timeout": 20, "retries": {"total_max_attempts": 1}}


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an object: its size in bytes, and a tag that changes with its content."""

    size: int
    tag: str


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of one bucket, by their keys; tries: how often a call is made before Unreachable is raised."""

    root: str
    fs: Any  # an fsspec filesystem
    base: str  # the bucket, as the filesystem names it
    tries: int = 4

    def list(self, below: str) -> dict[str, Known]:
        """Every object below a key, by key. Keys are as they come: any text."""
        try:
            found = self._call(below, lambda: self.fs.find(self._path(below), detail=True))
        except Absent:
            return {}
        start = len(self.base.rstrip("/")) + 1
        return {
            name[start:]: Known(int(info.get("size") or 0), _tag(info))
            for name, info in found.items()
            if info.get("type") == "file" and not name.endswith("/")
        }

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Content and tag, or None. The tag is never newer than the content: `replace` may trust it."""
        try:
            tag = self.tag(key)
            return self._call(key, lambda: self.fs.cat_file(self._path(key))), tag
        except Absent:
            return None

    def tag(self, key: str) -> str:
        """Raises Absent."""
        return _tag(self._call(key, lambda: self.fs.info(self._path(key))))

    def fetch(self, key: str, path: Path) -> None:
        self._call(key, lambda: self.fs.get_file(self._path(key), str(path)))

    def send(self, key: str, path: Path) -> None:
        limit = self._limit(path.stat().st_size)
        self._call(key, lambda: self.fs.put_file(str(path), self._path(key), **limit))

    def put(self, key: str, data: bytes) -> str:
        """The tag of the object that is there now."""
        limit = self._limit(len(data))
        return self._tag_of_put(
            key, self._call(key, lambda: self.fs.pipe_file(self._path(key), data, **limit))
        )

    def create(self, key: str, data: bytes) -> str:
        """Put a new object. Raises Changed if there is one; data must be the caller's own, like no other's."""
        limit = self._limit(len(data))
        return self._own(key, data, lambda: self.fs.pipe_file(self._path(key), data, mode="create", **limit))

    def replace(self, key: str, data: bytes, tag: str) -> str:
        """Put an object in the place of the one with this tag. Raises Changed if it is there no longer.

        One step on S3 (If-Match). Elsewhere it is looked at first: two that replace within milliseconds of each
        other may both believe that they did.
        """
        if self.root.startswith("s3://"):
            limit = self._limit(len(data))
            return self._own(
                key, data, lambda: self.fs.pipe_file(self._path(key), data, IfMatch=tag, **limit)
            )
        if self.tag(key) != tag:
            raise Changed(f"{self.root}/{key}: changed by another process meanwhile.")
        return self.put(key, data)

    def remove(self, key: str) -> None:
        """Without a word where there is none."""
        try:
            self._call(key, lambda: self.fs.rm_file(self._path(key)))
        except Absent:
            return

    def _own(self, key: str, data: bytes, put: Callable[[], Any]) -> str:
        """A put on a condition. Where an answer was lost, the next try finds our own object in the way."""
        try:
            return self._tag_of_put(key, self._call(key, put))
        except (Changed, Absent) as refusal:
            found = self.read(key)
            if found is not None and found[0] == data:
                return found[1]
            raise Changed(str(refusal)) from None

    def _tag_of_put(self, key: str, answer: Any) -> str:
        return str(answer["ETag"]) if isinstance(answer, dict) and "ETag" in answer else self.tag(key)

    def _limit(self, size: int) -> dict[str, float]:
        """What an upload may take: a server that stops reading would keep it for ever, and has no other limit."""
        return (
            {"timeout": _UPLOAD_S + size / _SLOWEST_UPLOAD} if getattr(self.fs, "async_impl", False) else {}
        )

    def _path(self, key: str) -> str:
        return f"{self.base.rstrip('/')}/{key}"

    def _call(self, key: str, call: Callable[[], T]) -> T:
        for attempt in range(self.tries):
            try:
                return call()
            except raised() as error:
                fault = translated(error, f"{self.root}/{key}")
                if not isinstance(fault, Unreachable) or attempt + 1 == self.tries:
                    raise fault from None
                time.sleep(_FIRST_WAIT_S * 2**attempt)
        raise AssertionError("tries is at least 1")


def _tag(info: Any) -> str:
    """What changes with an object: the storage's own tag, else all that it says of size and time."""
    for name in ("ETag", "etag", "md5Hash", "content_md5"):
        if info.get(name):
            return str(info[name])
    times = ("size", "LastModified", "last_modified", "updated", "mtime", "modified", "created")
    return "|".join(str(info[name]) for name in times if name in info)


def open_objects(root: str) -> Objects:
    """The objects of protocol://bucket. Raises StoreError: no such protocol, or its package is missing."""
    return _opened(
        root, frozenset(item for item in os.environ.items() if item[0].startswith(_READ_BY_LIBRARIES))
    )


@lru_cache(maxsize=8)
def _opened(root: str, environment: frozenset[tuple[str, str]]) -> Objects:
    """One client for all that a command does; another where the environment names other keys or servers."""
    protocol = root.partition("://")[0]
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import get_filesystem_class, known_implementations
    except ImportError:
        raise StoreError(f"{root} needs fsspec: pip install '{_EXTRAS.get(protocol, 'fsspec')}'") from None
    try:
        get_filesystem_class(protocol)
    except ValueError:
        raise StoreError(
            f"{root}: no storage is called {protocol!r}; s3, gs, abfs and others are known."
        ) from None
    except ImportError:
        hint = str(known_implementations.get(protocol, {}).get("err", ""))
        package = _EXTRAS.get(protocol)
        how = f"pip install '{package}'" if package else hint
        raise StoreError(f"{root} needs a package that is not installed: {how}") from None
    options = {"config_kwargs": _S3_CALLS} if protocol == "s3" else {}
    try:
        fs, base = url_to_fs(root, skip_instance_cache=True, use_listings_cache=False, **options)
    except raised() as error:
        raise translated(error, root) from None
    except TypeError as error:  # options of the environment that it does not take
        raise StoreError(f"{root}: cannot be used ({described(error)}).") from None
    if protocol == "s3":
        fs.retries = 1
    return Objects(root, fs, base)
