"""What leaves this machine: no path of it, no host, no key."""

import os
import re
from collections.abc import Mapping
from typing import Any

# an absolute path of two parts or more, POSIX or Windows; a slash inside of a word or an address is none
_PATH = re.compile(r"(?<![\w/.:~-])(?:file://)?(?:~|[A-Za-z]:)?[/\\](?:[\w.@+ -]*[\w.@+-][/\\])+([\w.@+-]*)")
_HOME = re.compile(r"(?<![\w/])~[/\\]?([\w.@+-]+[/\\])*([\w.@+-]*)")
_HOST = re.compile(r"\b(https?|wss?|grpc)://[^\s/'\"<>]+")
_CREDENTIALS = re.compile(r"(://)[^\s/@'\"]+@")
# keys of the providers and hubs whose form is known
_KEY = re.compile(
    r"\bsk-[A-Za-z0-9_-]{16,}|\bAIza[A-Za-z0-9_-]{30,}|\bhf_[A-Za-z0-9]{30,}|\bgh[pousr]_[A-Za-z0-9]{30,}|\bAKIA[A-Z0-9]{16}\b"
)
_KEY_NAMES = re.compile(r"(API_?KEY|TOKEN|SECRET)$")
_SHORTEST_KEY = 12
# parts of run.json that are our own public files, or what was asked: they stand as they are
_AS_IT_IS = {"task", "prices"}
_ADDRESSES = {"base_url", "url", "server", "endpoint"}


def scrub_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """run.json without local paths and hosts."""
    return {key: value if key in _AS_IT_IS else _scrubbed(value, key) for key, value in meta.items()}


def _scrubbed(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        # a server may call its model by its path: `answered_by` has names as keys
        return {scrub_text(str(k)): v if k in _AS_IT_IS else _scrubbed(v, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_scrubbed(item, key) for item in value]
    if not isinstance(value, str):
        return value
    return scrub_hosts(scrub_text(value)) if key in _ADDRESSES else scrub_text(value)


def scrub_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without local paths and hosts in what we wrote of it; a reply is evidence and stands as it is."""
    keys = ("error", "reason", "answered_by")
    ours = {key: scrub_hosts(scrub_text(row[key])) for key in keys if isinstance(row.get(key), str)}
    return {**row, **ours} if ours else dict(row)


def scrub_text(text: str) -> str:
    """Absolute paths become their last part, credentials in addresses go."""
    text = _CREDENTIALS.sub(r"\1", text)
    text = _PATH.sub(lambda m: f"…/{m[1]}", text)
    return _HOME.sub(lambda m: f"…/{m[2]}", text)


def scrub_hosts(text: str) -> str:
    return _HOST.sub(lambda m: f"{m[1]}://…", text)


def known_keys() -> list[str]:
    """The values of this environment's keys."""
    return [
        value for name, value in os.environ.items() if _KEY_NAMES.search(name) and len(value) >= _SHORTEST_KEY
    ]


def holds_key(text: str, keys: list[str]) -> bool:
    """Whether a text has one of `keys`, or what looks like a key."""
    return any(key in text for key in keys) or _KEY.search(text) is not None
