"""Documents -> pages, by jinja2; all text that is not ours is escaped for the format it goes into."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evalkit.errors import StoreError

# Characters that act instead of showing: controls, bidirectional overrides, zero-width ones.
_ACTING = re.compile("[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$])")
_LONGEST = 120


def plain(text: Any) -> str:
    """Text for one line of a page: acting characters shown as a replacement, length bounded."""
    shown = _ACTING.sub("\ufffd", str(text))
    shown = shown.encode("utf-8", "replace").decode("utf-8")  # lone surrogates
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def markdown(text: Any) -> str:
    """Text for a cell of a Markdown table."""
    return _MARKDOWN.sub(r"\\\1", plain(text))


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def dollars(value: float | None) -> str:
    return "–" if value is None else f"${value:.2f}" if value >= 0.01 or value == 0 else f"${value:.4f}"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("evalkit.report"),
        undefined=StrictUndefined,
        autoescape=lambda name: name is not None and ".html" in name,  # noqa: S701 - Markdown has a filter
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "plain": plain, "md": markdown, "percent": percent, "seconds": seconds, "dollars": dollars,
    }  # fmt: skip
    return environment


def render(template: str, document: dict[str, Any]) -> str:
    """A page of this package's templates. `style` is inlined, and the page's policy allows it by its hash."""
    environment = _environment()
    style = environment.loader.get_source(environment, "style.css")[0]  # type: ignore[union-attr]
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # Markup: our own file, byte for byte as it was hashed
    return environment.get_template(template).render(
        document, style=Markup(style), style_hash=f"sha256-{allowed}"
    )


def write(path: Path, text: str) -> Path:
    """Write a page, replacing the old one at once. Raises StoreError in one line."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}).") from None
    return path
