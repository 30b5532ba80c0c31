"""evalkit data prepare: real sets from their public sources."""

import click

from evalkit.cli.prepare_pixmo_points import pixmo_points_command
from evalkit.cli.prepare_refcoco import refcoco_command


@click.group("prepare")
def prepare_group() -> None:
    """Prepare real data sets from their public sources, resumably and with every sample's fate on record."""


prepare_group.add_command(pixmo_points_command)
prepare_group.add_command(refcoco_command)
