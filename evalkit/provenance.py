"""What produced a number: versions, git commit, machine; and the canonical JSON that hashes are taken of."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from evalkit import __version__
from evalkit.errors import ConfigError

_PACKAGES = ("numpy", "pillow", "torch", "transformers", "vllm", "openai", "google-genai")


def digest(value: Any) -> str:
    """sha256 of a JSON value, independent of key order. Raises ConfigError for NaN and infinity."""
    return hashlib.sha256(_canonical(value)).hexdigest()


def _canonical(value: Any) -> bytes:
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except ValueError as error:  # NaN, inf: as YAML may spell them
        raise ConfigError(f"A setting is no finite number: {error}.") from None
    return text.encode()


def digest_of(values: Iterable[Any]) -> str:
    """digest(list(values)), one value after the other."""
    found = hashlib.sha256(b"[")
    for number, value in enumerate(values):
        found.update((b"," if number else b"") + _canonical(value))
    found.update(b"]")
    return found.hexdigest()


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of evalkit, Python and the installed packages that can change a number."""
    found = {"evalkit": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str]:
    """What a run ran on, without anything that names the machine or its owner."""
    return {"system": platform.system(), "machine": platform.machine(), "cpus": str(os.cpu_count())}


def git_commit() -> str | None:
    """The commit of the checkout evalkit runs from, `-dirty` if changed; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("-dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()
