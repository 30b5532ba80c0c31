"""Where the files that come with evalkit lie: beside the package in a checkout, inside it when installed."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource(name: str) -> Path:
    """The path of `tasks` or `results/paper.yaml`, in a checkout or in an installed wheel."""
    installed = _PACKAGE / "_resources" / name
    return installed if installed.exists() else _PACKAGE.parent / name


def cache_dir() -> Path:
    """Where tiny checkpoints are kept: EVALKIT_CACHE, else evalkit/ in the user's cache folder."""
    if chosen := os.environ.get("EVALKIT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evalkit"
