r"""Tables as LaTeX: booktabs rules, siunitx columns; a file a table to \input, and one document of all.

A paper's preamble needs \usepackage{booktabs,siunitx}. Runs are linked by \evalkitrun{path}{text}, which shows the
text alone unless the paper defines it otherwise; tables.tex makes links of it.
"""

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from evalkit.report.pages import link, p_value, plain

_ACTIVE = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "^": r"\textasciicircum{}",
    "_": r"\_", "~": r"\textasciitilde{}", "%": r"\%", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "→": r"$\rightarrow$", "–": "--", "—": "---", "’": "'", "“": "``", "”": "''", "…": r"\dots{}", "×": r"$\times$",
    "≥": r"$\geq$", "≤": r"$\leq$", "−": r"$-$", "Δ": r"$\Delta$",
}  # fmt: skip
_LETTERS = re.compile("[\u00a0-\u017f]")  # what LaTeX's utf8 knows without further packages


def tex(text: Any) -> str:
    """Text for LaTeX: nothing in it is a command; letters that pdfLaTeX has no sign for are question marks."""
    return "".join(
        _ACTIVE.get(c, c if c.isascii() or _LETTERS.match(c) else "?")
        for c in plain(text).replace(">=", "≥").replace("<=", "≤")
    )


def _number(value: float | None, digits: int = 2) -> str:
    """For an S column: a bare number, or a dash in braces."""
    return "{--}" if value is None else f"{value:.{digits}f}"


def _path(path: str) -> str:
    r"""A relative link inside of \evalkitrun: percent-encoded, and the percent signs escaped."""
    return link(path).replace("%", r"\%").replace("_", r"\_").replace("~", r"\string~")


def _scientific(value: float) -> str:
    """A p-value with its power of ten set as such."""
    digits, _, power = p_value(value).partition("e")
    return rf"${digits} \times 10^{{{int(power)}}}$" if power else digits


def render_latex(template: str, document: Mapping[str, Any], **more: Any) -> str:
    """A page of this package's LaTeX templates, whose blocks are <% %> and whose values << >>."""
    environment = Environment(
        loader=PackageLoader("evalkit.report"),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - not HTML; every value that is text goes through `tex`
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"tex": tex, "number": _number, "path": _path, "p_value": _scientific}
    return environment.get_template(template).render(document, **more)
