"""Files of a data set on the Hub, by way of huggingface_hub and its cache."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from evalkit.errors import Unavailable
from evalkit.extras import require


def snapshot(repo: str, patterns: Sequence[str], otherwise: str) -> tuple[Path, str]:
    """The folder with the files of a data set that fit the patterns, and the commit they are of.

    otherwise: what the user can do without the Hub, for the error. Raises Unavailable.
    """
    require(f"The Hub's {repo}", "data", "huggingface_hub")
    hub = import_module("huggingface_hub")
    if not sys.stderr.isatty():
        import_module("huggingface_hub.utils").disable_progress_bars()
    try:
        folder = Path(hub.snapshot_download(repo, repo_type="dataset", allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:  # the Hub's and the network's errors among them
        reason = " ".join(str(error).split("\n", 1)[0].split())[:200].rstrip(".:")
        raise Unavailable(
            f"{repo}: cannot be fetched from the Hub ({type(error).__name__}: {reason}). {otherwise}"
        ) from None
    return folder, folder.name
