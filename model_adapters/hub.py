"""A folder or a Hub id -> the folder with its files, fetched first where need be."""

import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from evalkit.errors import Unavailable

_WANTED = ("*.json", "*.model", "*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True, slots=True)
class Source:
    """name: the Hub id or the folder's own name; commit: of the Hub, None for a folder."""

    folder: Path
    name: str
    commit: str | None = None


def located_files(source: str | Path, revision: str | None = None) -> Source:
    """Config, tokenizer and weights of a checkpoint. Raises Unavailable where they cannot be had."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return Source(folder, folder.resolve().name)
    text = str(source)
    if isinstance(source, Path) or text.count("/") != 1 or text[0] in "./~":
        raise Unavailable(f"No folder {text}. Expected a folder, or a Hub id owner/name.")
    try:
        hub = import_module("huggingface_hub")
    except ImportError as error:
        raise Unavailable(f"The Hub needs {error.name}: pip install 'evalkit-vlm[local]'.") from None
    if not sys.stderr.isatty():
        import_module("huggingface_hub.utils").disable_progress_bars()
    try:
        found = Path(hub.snapshot_download(text, revision=revision, allow_patterns=list(_WANTED)))
    except (OSError, ValueError) as error:  # the Hub's and the network's errors among them
        reason = " ".join(str(error).split("\n", 1)[0].split())[:200].rstrip(".:")
        raise Unavailable(
            f"{text}: cannot be fetched from the Hub ({type(error).__name__}: {reason}). "
            "Check the id and the network, or name a folder."
        ) from None
    return Source(found, text, found.name)
