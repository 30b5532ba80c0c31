"""The folder of an export: known by its marker, written aside, moved into place whole, replaced only when asked."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evalkit.datasets.place import put_in_place, sweep
from evalkit.errors import DataError

MARKER = "evalkit-export.json"
_ASIDE = ".exporting-"


def check_place(out: Path, force: bool) -> None:
    """Raises DataError unless `out` is free, or an export of evalkit and nothing more that may be replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out} is no folder.")
    if not any(out.iterdir()):
        return
    marker = _marker(out)
    if marker is None:
        raise DataError(
            f"{out} is not empty and no export of evalkit; it stays as it is. Name another with --out."
        )
    if not force:
        raise DataError(f"{out} holds an export already; --force replaces it.")
    if strange := sorted(files_of(out) - set(marker) - {MARKER}):
        raise DataError(f"{out} holds what evalkit did not write ({strange[0]}); it stays as it is.")


def write_folder(out: Path, write: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Let `write` fill a folder beside `out`, add the marker, put it in place; returns the marker's content.

    Raises DataError where it cannot be written; nothing is left then.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sweep(out.parent, _ASIDE)
        aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=_ASIDE))
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error}).") from None
    try:
        new = aside / out.name
        new.mkdir()
        content = dict(write(new))
        content["files"] = sorted(files_of(new))
        (new / MARKER).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        put_in_place(new, out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error}).") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return content


def files_of(folder: Path) -> set[str]:
    """All files below, and links, as paths with slashes; links are not followed."""
    found = set()
    for base, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(base) / name).is_symlink()]
        found |= {(Path(base) / name).relative_to(folder).as_posix() for name in (*files, *links)}
    return found


def _marker(out: Path) -> list[str] | None:
    """The files that an export wrote, or None where there is no marker, or none of evalkit's."""
    try:
        content = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    files = content.get("files") if isinstance(content, dict) else None
    return files if isinstance(files, list) and all(isinstance(name, str) for name in files) else None
