"""Stored runs in the forms that other projects read."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evalkit.errors import ConfigError

FORMATS = ("every-eval-ever", "hub", "model-index", "inspect")


def write_format(
    name: str, folders: Sequence[Path], out_dir: Path, datasets: Mapping[str, str] | None = None
) -> list[Path]:
    """Write runs below out_dir; returns the files. The same runs give the same bytes (but for inspect's archives).

    datasets: task -> its data set's id on the Hub, for `hub` and `model-index`. Raises StoreError of an unfinished
    run and of one that holds a key, ConfigError where a data set's id is needed, Unavailable where a package is.
    """
    return _writer(name)([*folders], out_dir, dict(datasets or {}))


def _writer(name: str) -> Callable[[list[Path], Path, dict[str, str]], list[Path]]:
    match name:
        case "every-eval-ever":
            from evalkit.sharing.formats.every_eval_ever import write
        case "hub":
            from evalkit.sharing.formats.hub import write_eval_results as write
        case "model-index":
            from evalkit.sharing.formats.hub import write_model_index as write
        case "inspect":
            from evalkit.sharing.formats.inspect_log import write
        case _:
            raise ConfigError(f"No format named {name!r}; known: {', '.join(FORMATS)}.")
    return write
