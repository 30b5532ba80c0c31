"""evalkit parse: replies -> one JSON line each."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click

from evalkit.errors import DataError


@click.command("parse")
@click.option("--parser", required=True, help="integer, yes_no, point or box.")
@click.option("--field", help="FILE is JSONL and the reply stands in this field.")
@click.argument(
    "file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True)
)
def parse_command(parser: str, field: str | None, file: Path | None) -> None:
    """Read replies from FILE (default: standard input), print an answer for each.

    One reply a line; with --field, one JSON object a line. Prints a JSON line
    {"reply", "answer", "status", "reason"} for each, in order.
    """
    from evalkit.parsers import PARSERS, parse

    if parser not in PARSERS:
        raise click.BadParameter(
            f"no parser named {parser!r}; known: {', '.join(PARSERS)}.", param_hint="--parser"
        )
    with _open(file) as lines:
        for reply in _replies(lines, field, str(file or "standard input")):
            parsed = parse(parser, reply)
            row = {"reply": reply, "answer": parsed.answer, "status": parsed.status, "reason": parsed.reason}
            click.echo(json.dumps(row, ensure_ascii=True))


def _open(file: Path | None) -> TextIO:
    if file is None or str(file) == "-":
        return open(sys.stdin.fileno(), encoding="utf-8", errors="replace", newline="\n", closefd=False)
    return file.open(encoding="utf-8", errors="replace", newline="\n")


def _replies(lines: TextIO, field: str | None, where: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        if field is None:
            yield text
            continue
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except ValueError:
            raise DataError(f"{where}:{number}: not a JSON object.") from None
        if not isinstance(value, dict) or field not in value:
            known = ", ".join(value) if isinstance(value, dict) else type(value).__name__
            raise DataError(f"{where}:{number}: no field {field!r}; there is: {known}.")
        found = value[field]
        yield "" if found is None else found if isinstance(found, str) else json.dumps(found)
