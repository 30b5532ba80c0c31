"""evalkit data export: data sets for `datasets`, lmms-eval, VLMEvalKit and Qwen's training code."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.common import data_option, json_option, models_option, print_json, tasks_option
from evalkit.exporting import FORMATS, Format

if TYPE_CHECKING:
    from evalkit.frames import Frame

_QWEN = "qwen2_5_vl"


@click.command("export")
@click.argument("task_name", metavar="TASK")
@click.option(
    "--format", "format_name", type=click.Choice(FORMATS), required=True, help="Who reads it; see above."
)
@click.option("--split", "splits", multiple=True, help="A split to export; again for more.  [default: all]")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The folder to make.  [default: exports/TASK-FORMAT]"
)
@click.option("--model", "model_name", help="Word questions and answers for this model of the registry.")
@click.option("--family", help=f"Or for this family.  [default: any model; of qwen-jsonl {_QWEN}]")
@click.option("--force", is_flag=True, help="Replace an export that stands there.")
@data_option
@tasks_option
@models_option
@json_option
def export_command(
    task_name: str,
    format_name: Format,
    splits: tuple[str, ...],
    out: Path | None,
    model_name: str | None,
    family: str | None,
    force: bool,
    data_dir: Path,
    tasks_dir: Path | None,
    models_file: Path | None,
    as_json: bool,
) -> None:
    """Write a data set in a form that others read, with a dataset card.

    \b
      hf          the Hub's ImageFolder: datasets.load_dataset(FOLDER)
      parquet     the Hub's Parquet, images inside, and a task for lmms-eval
      qwen-jsonl  training conversations of qwen-vl-finetune; RefCOCO's REC lines too
      lmms-tsv    VLMEvalKit's TSV, images inside

    Every image is checked first. An existing export is replaced with --force alone, any other folder never.
    To publish: hf upload USER/NAME FOLDER --repo-type dataset.
    """
    from evalkit.exporting.export import export
    from evalkit.remote.folders import fetched
    from evalkit.task import load_task

    if model_name and family:
        raise click.UsageError("Give --model or --family.")
    task = load_task(task_name, tasks_dir)
    if format_name == "qwen-jsonl" and not model_name and not family:
        family = _QWEN
    family, frame = _speaker(model_name, family, models_file)
    out = out or Path("exports") / f"{task.name}-{format_name}"
    content = export(
        task,
        fetched(data_dir, task.dataset),
        out,
        format_name,
        splits=splits,
        family=family,
        model_frame=frame,
        wording=model_name or family or "any model",
        force=force,
    )
    if as_json:
        print_json({"out": str(out), **content, "files": len(content["files"])})
        return
    _show(out, content)


def _speaker(
    model_name: str | None, family: str | None, models_file: Path | None
) -> "tuple[str | None, Frame | None]":
    """The family whose wording is taken, and the frame in which its models state coordinates.

    Of a family it is the frame of its full-size models, or of the first where there is none.
    """
    from evalkit.errors import ConfigError
    from model_adapters import get_entry, load_registry

    if model_name:
        entry = get_entry(model_name, models_file)
        return entry.family, entry.frame.frame() if entry.frame else None
    if not family:
        return None, None
    entries = [entry for entry in load_registry(models_file).values() if entry.family == family]
    if not entries:
        known = sorted({entry.family for entry in load_registry(models_file).values() if entry.family})
        raise ConfigError(f"No model of family {family!r} in the registry. Families: {', '.join(known)}.")
    entry = min(entries, key=lambda entry: (entry.frame is None, entry.scale != "full"))
    return family, entry.frame.frame() if entry.frame else None


def _show(out: Path, content: dict[str, Any]) -> None:
    for name, split in content["splits"].items():
        renamed = "" if split["exported_as"] == name else f" as {split['exported_as']}"
        click.echo(
            f"{content['dataset']}/{name}{renamed}: {split['images']:,} images, {split['samples']:,} questions, "
            f"fingerprint {split['fingerprint'][:16]}"
        )
    if content["straightened"]:
        click.echo(f"{content['straightened']} images lost an orientation tag; the pixels are the same")
    if content["left_out"]:
        click.echo(f"{len(content['left_out'])} questions left out, the first {content['left_out'][0]}")
    click.echo(f"  {out} ({content['format']}, {len(content['files'])} files)")
