"""URLs of shared storage: which text is one, and its parts. One that could hold a secret is refused."""

import re
from dataclasses import dataclass

from evalkit.errors import StoreError
from evalkit.remote.names import is_plain

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://", re.ASCII)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_HOST = re.compile(r"([A-Za-z0-9._-]+@)?[A-Za-z0-9._-]+(:[0-9]+)?", re.ASCII)
_SAME = {"s3a": "s3", "gcs": "gs"}
_OF_BUCKETS = ("s3", "gs")


@dataclass(frozen=True, slots=True)
class Address:
    """protocol://bucket/path; path without slashes at its ends, empty for the whole bucket."""

    protocol: str
    bucket: str
    path: str

    @property
    def root(self) -> str:
        return f"{self.protocol}://{self.bucket}"

    def __str__(self) -> str:
        return f"{self.root}/{self.path}" if self.path else self.root


def is_url(text: str) -> bool:
    return _URL.match(text) is not None


def parse(text: str) -> Address:
    """The parts of a URL. Raises StoreError, which repeats nothing of one that may hold a secret."""
    match = _URL.match(text)
    if match is None:
        raise StoreError(f"{text!r} is no URL: expected PROTOCOL://BUCKET/PATH.")
    protocol = match[1].lower()
    protocol = _SAME.get(protocol, protocol)
    bucket, _, path = text[match.end() :].partition("/")
    if not (_BUCKET if protocol in _OF_BUCKETS else _HOST).fullmatch(bucket) or {"?", "#"} & set(path):
        raise StoreError(
            f"{protocol}://…: expected {protocol}://BUCKET/PATH, without user:password@, ? or #. "
            "Keys come from the environment or a profile, never from a URL."
        )
    path = path.strip("/")
    if path and not is_plain(path):
        raise StoreError(
            f"{text!r}: every part of its path must be a plain name, which does not begin with a dot."
        )
    return Address(protocol, bucket, path)
