"""What commands call: URLs -> folders of the mirror, brought up to date before work and sent after it.

On an ordinary folder all of this does nothing, and no package for shared storage is imported.
"""

from collections.abc import Callable
from pathlib import Path

from evalkit.errors import StoreError, Unsent
from evalkit.remote.address import is_url, parse
from evalkit.remote.faults import Unreachable
from evalkit.remote.mirror import mirror_at, mirror_of
from evalkit.remote.pulling import everything, pull
from evalkit.remote.pushing import push

# protocols of fsspec that cannot be written to, or that end with their process
_NOT_SHARED = frozenset({"memory", "http", "https", "data", "zip", "tar", "github", "reference", "cached"})


def local_folder(text: str) -> Path:
    """The folder to work in: the path itself, or of a URL its place in the mirror. Asks no storage yet.

    Raises StoreError for a URL that is none, or of a protocol that shares nothing.
    """
    if text.startswith("file://"):
        return Path("/" + text.removeprefix("file://").lstrip("/"))
    if not is_url(text):
        return Path(text)
    address = parse(text)
    if address.protocol in _NOT_SHARED:
        raise StoreError(
            f"{text}: {address.protocol} keeps nothing that another process could read. Shared storage is s3, gs, abfs "
            "and others that are written to and stay."
        )
    return mirror_at(address).path(address.path)


def address(folder: Path) -> str:
    """What to name to another process: the URL of a mirrored folder, else the path."""
    mirror = mirror_of(folder)
    return str(folder) if mirror is None else mirror.url(mirror.key(folder)).rstrip("/")


def fetched(folder: Path, *below: str, only: tuple[str, ...] = ()) -> Path:
    """The folder, up to date below the names given (all of it without any), or but for files of these names alone."""
    if (mirror := mirror_of(folder)) is not None:
        wanted: Callable[[str], bool] = (lambda key: key.rpartition("/")[2] in only) if only else everything
        for name in below or ("",):
            pull(mirror, mirror.key(folder / name), wanted)
    return folder


def sent(folder: Path, *below: str) -> None:
    """Send what changed below these names (all of it without any). Raises Unsent where the storage is down."""
    if (mirror := mirror_of(folder)) is None:
        return
    for name in below or ("",):
        try:
            push(mirror, mirror.key(folder / name))
        except Unreachable as error:
            kept = f"What was written is kept in {folder / name}; the same command sends it."
            raise Unsent(f"{error} {kept}") from None


def sizes(folder: Path) -> dict[str, int] | None:
    """Bytes of what the bucket has below a mirrored folder, by path relative to it; None of an ordinary folder."""
    if (mirror := mirror_of(folder)) is None:
        return None
    below = mirror.key(folder)
    start = len(below) + 1 if below else 0
    return {key[start:]: one.size for key, one in mirror.objects.list(below).items()}


def is_shared(folder: Path) -> bool:
    return mirror_of(folder) is not None
