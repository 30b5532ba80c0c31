"""Documents -> pages, by jinja2; all text that is not ours is escaped for the format it goes into."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evalkit.errors import StoreError

# Characters that act instead of showing: controls, bidirectional overrides, zero-width ones.
ACTING = re.compile("[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$])")
_LONGEST = 120


def plain(text: Any, longest: int = _LONGEST) -> str:
    """Text for one line of a page: acting characters shown as a replacement, length bounded."""
    whole = str(text)
    if len(whole) <= longest and whole.isascii() and whole.isprintable():
        return whole
    shown = ACTING.sub("\ufffd", whole[: 2 * longest])
    shown = shown.encode("utf-8", "replace").decode("utf-8")  # lone surrogates
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def markdown(text: Any) -> str:
    """Text for a cell of a Markdown table."""
    return _MARKDOWN.sub(r"\\\1", plain(text))


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def visible(text: Any, longest: int = 4_000) -> str:
    """Text of several lines that only shows itself: acting characters replaced, and cut with a note of its length."""
    whole = str(text)
    if len(whole) <= longest and whole.isascii() and whole.isprintable():
        return whole
    shown = ACTING.sub(lambda m: m[0] if m[0] in "\n\t" else "\ufffd", whole[:longest])
    shown = shown.encode("utf-8", "replace").decode("utf-8")
    return shown if len(whole) <= longest else f"{shown}… [{len(whole):,} characters in all]"


def signed(value: float | None, digits: int) -> str:
    """With its sign, a minus as typesetters have it."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "\u2212")


def printed(value: float | None) -> str:
    """A number as the paper prints it."""
    return "—" if value is None else f"{value:.2f}"


def p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def link(path: str) -> str:
    """A relative path as the target of a link in Markdown or HTML."""
    return quote(path, safe="/-_.~", errors="replace")


def seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def dollars(value: float | None) -> str:
    return "–" if value is None else f"${value:.2f}" if value >= 0.01 or value == 0 else f"${value:.4f}"


@lru_cache(maxsize=1)
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
        "plain": plain, "visible": visible, "md": markdown, "link": link, "json_block": json_block,
        "percent": percent, "seconds": seconds, "dollars": dollars, "signed": signed, "printed": printed,
        "p_value": p_value,
    }  # fmt: skip
    return environment


def render(template: str, document: Mapping[str, Any], scripts: Sequence[str] = ()) -> str:
    """A page of this package's templates. `style` and `scripts` (names of assets, in their order) are inlined, and
    the page's policy allows them by their hashes and nothing else.
    """
    environment = _environment()
    style = environment.loader.get_source(environment, "style.css")[0]  # type: ignore[union-attr]
    code = [asset(name) for name in scripts]
    # Markup: our own files, byte for byte as they were hashed
    return environment.get_template(template).render(
        document,
        style=Markup(style),
        style_hash=_hash(style),
        scripts=[Markup(one) for one in code],
        script_hashes=[_hash(one) for one in code],
    )


@lru_cache(maxsize=16)
def asset(name: str) -> str:
    """A script of this package, without the comment that would make a browser look for its source map."""
    text = resources.files("evalkit.report").joinpath("assets", name).read_text(encoding="utf-8")
    return re.sub(r"^//# sourceMappingURL=.*$", "", text, flags=re.MULTILINE)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def json_block(value: Any) -> Markup:
    """JSON for a <script type="application/json">: nothing in it can end the element."""
    text = orjson.dumps(value).decode()
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


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
