"""Files of the mirror -> objects: those that changed, several at a time, what readers look for last.

Rows of runs are not sent here: they go by way of `uploading`, under a lease.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from evalkit.remote.mirror import Mirror, Stamp, stamp
from evalkit.remote.names import is_content, is_plain
from evalkit.remote.parts import Entries, run_of

_AT_ONCE = 16
_WORTH_A_BAR = 50  # files
# A reader that finds one of these finds what it is about: in this order, after all others.
_LAST = ("metadata.jsonl", "dataset.json", "probe.json", "leaderboard.html")


def push(mirror: Mirror, below: str) -> int:
    """Send what changed below a key, and remove what is here no longer; returns how many files were sent.

    Files of runs are left alone. Nothing that this mirror never knew is removed.
    """
    known = mirror.known()
    here = {key: stamp(mirror.path(key)) for key in _files(mirror, mirror.path(below)) if run_of(key) is None}
    changed = [key for key, now in here.items() if key not in known or known[key]["stamp"] != now]
    start = f"{below}/" if below else ""
    gone = [key for key in known if key.startswith(start) and key not in here and run_of(key) is None]
    if not changed and not gone:
        return 0
    bar = tqdm(
        total=len(changed), desc=f"sending to {mirror.root}", unit="file", leave=False,
        disable=None if len(changed) >= _WORTH_A_BAR else True,
    )  # fmt: skip
    with bar, ThreadPoolExecutor(_AT_ONCE) as pool:
        for keys in _in_order(changed):
            for _ in pool.map(lambda key: mirror.objects.send(key, mirror.path(key)), keys):
                bar.update(1)
        list(pool.map(mirror.objects.remove, gone))
    mirror.note(_noted(mirror, below, {key: here[key] for key in changed}) | dict.fromkeys(gone))
    return len(changed)


def _files(mirror: Mirror, folder: Path) -> Iterator[str]:
    """Keys of the files below a folder; nothing hidden, half written or linked."""
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(base) / name
            key = path.relative_to(mirror.files).as_posix()
            if is_plain(key) and is_content(key) and path.is_file() and not path.is_symlink():
                yield key


def _in_order(keys: list[str]) -> Iterator[list[str]]:
    """Batches, each sent whole before the next begins."""
    ranks = {key: _LAST.index(name) + 1 if (name := key.rpartition("/")[2]) in _LAST else 0 for key in keys}
    for rank in sorted(set(ranks.values())):
        yield [key for key in keys if ranks[key] == rank]


def _noted(mirror: Mirror, below: str, sent: dict[str, Stamp | None]) -> Entries:
    """Index entries of what was sent, by one listing; an object of another size was replaced meanwhile."""
    listing = mirror.objects.list(below)
    return {
        key: {"tag": listing[key].tag, "stamp": before}
        for key, before in sent.items()
        if before is not None and key in listing and listing[key].size == before[0]
    }
