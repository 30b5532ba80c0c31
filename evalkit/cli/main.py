"""The top of the command line: the group and its commands."""

import click

from evalkit import __version__
from evalkit.cli.common import Group
from evalkit.cli.convert import convert_group
from evalkit.cli.data import data_group
from evalkit.cli.listing import models_command, tasks_command, validate_command
from evalkit.cli.parse import parse_command
from evalkit.cli.probe import probe_command
from evalkit.cli.replicate import replicate_command
from evalkit.cli.report import compare_command, figures_command, leaderboard_command, tables_command
from evalkit.cli.results import results_group
from evalkit.cli.run import run_command
from evalkit.cli.score import import_command, score_command
from evalkit.cli.suite import suite_command
from evalkit.cli.train import train_command
from evalkit.cli.view import view_command


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="evalkit")
def main() -> None:
    """Does a vision-language model look where it should, and does it answer better for it?

    \b
    A first evaluation:
      evalkit data build grid_patch
      evalkit run --model tiny-qwen --task grid_patch --limit 20
      evalkit leaderboard
    """


for _command in (
    tasks_command,
    models_command,
    validate_command,
    data_group,
    convert_group,
    train_command,
    run_command,
    suite_command,
    probe_command,
    parse_command,
    score_command,
    import_command,
    compare_command,
    tables_command,
    figures_command,
    leaderboard_command,
    view_command,
    results_group,
    replicate_command,
):
    main.add_command(_command)
