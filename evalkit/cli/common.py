"""What all commands share: folders, --json, one-line errors."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from evalkit.errors import EvalkitError, Unsent

Function = TypeVar("Function", bound=Callable[..., Any])

EXIT_USER_ERROR = 1
EXIT_UNFINISHED = 3


class Folder(click.Path):
    """A folder, or a URL of shared storage (s3://bucket/path), of which it is the folder of the local mirror."""

    def __init__(self, *, file_okay: bool = True) -> None:
        super().__init__(path_type=Path, file_okay=file_okay)

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        if isinstance(value, str) and "://" in value:
            from evalkit.remote.folders import local_folder

            return local_folder(value)
        return super().convert(value, parameter, context)


data_option = click.option(
    "--data",
    "data_dir",
    type=Folder(file_okay=False),
    default=Path("data"),
    show_default=True,
    help="Folder of the data sets, or a URL as s3://BUCKET/PATH.",
)
results_option = click.option(
    "--results",
    "results_dir",
    type=Folder(file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Folder of runs, tables and leaderboard, or a URL as s3://BUCKET/PATH.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else on standard output."
)
address_option = click.option(
    "--address",
    metavar="HOST:PORT",
    help="Of --engine ray, the cluster, or `auto`.  [default: RAY_ADDRESS, else this machine]",
)
tasks_option = click.option(
    "--tasks",
    "tasks_dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of task files, instead of those that come with evalkit.",
)
models_option = click.option(
    "--models",
    "models_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A registry file of your own; its entries are added to those that come with evalkit.",
)


class Group(click.Group):
    """Prints a user's error as one line with exit status 1; bugs keep their traceback.

    --data and --results are accepted by every command, also where there is nothing to do with them,
    so that scripts can pass them throughout.
    """

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except Unsent as error:
            click.echo(f"Unfinished: {error}", err=True)
            context.exit(EXIT_UNFINISHED)
        except EvalkitError as error:
            click.echo(f"Error: {error}", err=True)
            context.exit(EXIT_USER_ERROR)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            context.exit(EXIT_UNFINISHED)

    def add_command(self, command: click.Command, name: str | None = None) -> None:
        _accept_folders(command)
        super().add_command(command, name)


def _accept_folders(command: click.Command) -> None:
    if isinstance(command, click.Group):
        for child in command.commands.values():
            _accept_folders(child)
        return
    known = {option for parameter in command.params for option in parameter.opts}
    for flag in ("--data", "--results"):
        if flag not in known:
            command.params.append(click.Option([flag], hidden=True, expose_value=False))


def print_json(value: Any) -> None:
    """One JSON document on standard output; a number that is none (NaN) would be a bug."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False))


def note(text: str) -> None:
    """A line for the person at the terminal, on standard error."""
    click.echo(text, err=True)


@contextmanager
def first_of_ranks() -> Iterator[bool]:
    """Whether this process is the first of those that torchrun has started, or alone: the one that speaks.

    One of several ends here: what it has to say, it says inside.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    yield ranks == 1 or int(os.environ.get("RANK", "0")) == 0
    if ranks > 1 and (torch := sys.modules.get("torch")) and torch.distributed.is_initialized():
        from trainers.ranks import leave

        leave()


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def parse_settings(settings: tuple[str, ...], *, structured: bool = False) -> dict[str, Any]:
    """KEY=VALUE pairs; values are YAML scalars (0.02, true, cuda:0) or {key: number} mappings.

    structured: lists and null are read too, as in a training YAML; else they are text.
    """
    parsed = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{setting!r}: expected KEY=VALUE.", param_hint="--set")
        parsed[key] = _scalar_or_text(value, structured)
    return parsed


def _scalar_or_text(value: str, structured: bool) -> Any:
    import yaml

    try:
        loaded = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    if isinstance(loaded, dict):
        return loaded if all(isinstance(v, int | float) for v in loaded.values()) else value
    if structured and (loaded is None or isinstance(loaded, list)):
        return loaded
    return loaded if isinstance(loaded, bool | int | float) else value
