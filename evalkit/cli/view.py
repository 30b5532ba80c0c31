"""evalkit view: the pages of a results folder in a browser."""

import signal
from pathlib import Path
from typing import Any

import click

from evalkit.cli.common import Folder, note

START = "leaderboard/leaderboard.html"


@click.command("view")
@click.argument("results_dir", metavar="[RESULTS]", default="results", type=Folder())
@click.option("--port", type=click.IntRange(1, 65_535), help="[default: any that is free]")
@click.option("--no-browser", is_flag=True, help="Only say the address.")
@click.option("--verbose", is_flag=True, help="A line a request, on standard error.")
def view_command(results_dir: Path, port: int | None, no_browser: bool, verbose: bool) -> None:
    """Look at the leaderboard, tables and runs of RESULTS in a browser.

    Serves the folder on this machine alone, read-only, until Ctrl-C. Of a URL (s3://BUCKET/PATH) it serves what
    is there at the start.
    """
    import webbrowser

    from evalkit.errors import StoreError
    from evalkit.remote.folders import address, fetched
    from evalkit.report.pages import plain
    from evalkit.serving import Server

    if not (fetched(results_dir) / START).is_file():
        where = address(results_dir)
        raise StoreError(f"{where}/{START}: not there yet. Make it: evalkit leaderboard --results {where}")
    with Server(results_dir, port or 0, (lambda line: note(plain(line))) if verbose else None) as server:
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs begin with Ctrl-C ignored
            signal.signal(number, _interrupt)
        click.echo(f"{server.url}{START}")
        note("Ctrl-C ends it.")
        if not no_browser:
            webbrowser.open(f"{server.url}{START}")
        try:
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            note("")


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
