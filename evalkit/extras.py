"""Packages beyond the core: named with the extra that brings them, before anything is begun."""

from importlib.util import find_spec

from evalkit.errors import Unavailable


def require(what: str, extra: str, *packages: str) -> None:
    """Raise Unavailable, which says what to install, unless all packages can be imported. Imports none."""
    if absent := [name for name in packages if find_spec(name) is None]:
        raise Unavailable(f"{what} needs {' and '.join(absent)}: pip install 'evalkit-vlm[{extra}]'")
