"""What several test modules share: the command line in-process, and small data sets."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from evalkit.cli import main


def cli(*words: Any) -> Result:
    """`evalkit ...` in this process; an exception that is not a clean exit is raised as it is."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def cli_json(*words: Any, exit_code: int = 0) -> Any:
    """The JSON document on standard output, which must hold nothing else."""
    result = cli(*words, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def read_rows(run: str | Path) -> list[dict[str, Any]]:
    lines = (Path(run) / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
