"""evalkit convert: checkpoints of other code bases into folders that transformers and vLLM load."""

from pathlib import Path

import click

from evalkit.cli.common import json_option, note, print_json


@click.group("convert")
def convert_group() -> None:
    """Turn a checkpoint of another code base into one that can be run here."""


@convert_group.command("glamm")
@click.argument("checkpoint")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--vision-tower",
    metavar="DIR_OR_HUB",
    help="CLIP, which GLaMM's own files lack.  [default: openai/clip-vit-large-patch14-336]",
)
@click.option("--revision", metavar="COMMIT", help="Of CHECKPOINT on the Hub.  [default: its newest]")
@json_option
def glamm_command(
    checkpoint: str, out: Path, vision_tower: str | None, revision: str | None, as_json: bool
) -> None:
    """Make the folder OUT of GLaMM's CHECKPOINT, a folder or a Hub id.

    The text path alone, as a LLaVA: what segments and reads regions is left out. OUT needs about 14 GB
    for the released 7B models; memory stays low. Nothing but tensors is read from pickled files.

    \b
      evalkit convert glamm MBZUAI/GLaMM-FullScope checkpoints/glamm-fs-7b
      evalkit run --model glamm-fs-7b --task line_tracing
    """
    from model_adapters.glamm import VISION_TOWER, convert

    made = convert(checkpoint, out, vision_tower or VISION_TOWER, revision=revision, tell=note)
    if as_json:
        print_json(
            {
                "out": str(made.out),
                "kept": made.kept,
                "dropped": made.dropped,
                "bytes": made.size,
                "dtype": made.dtype,
            }
        )
        return
    click.echo(
        f"{made.out}: {made.kept} weights, {made.size / 1e9:.2f} GB in {made.dtype}; {made.dropped} left out."
    )
