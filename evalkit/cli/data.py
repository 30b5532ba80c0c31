"""evalkit data: build, import, verify, list and show data sets."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.common import (
    EXIT_USER_ERROR,
    address_option,
    data_option,
    json_option,
    note,
    print_json,
)
from evalkit.cli.export import export_command
from evalkit.cli.prepare import prepare_group
from evalkit.records import Sample

if TYPE_CHECKING:
    from evalkit.datasets.build import Spread


@click.group("data")
def data_group() -> None:
    """Build, prepare, import, check and look at data sets."""


data_group.add_command(export_command)
data_group.add_command(prepare_group)


engine_option = click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Who draws: --workers processes of this machine, or the workers of a Ray cluster.",
)


@data_group.command("build")
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@click.option("--n", type=int, help="How many images.  [default: the paper's number]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the pictures and of the split.")
@click.option("--workers", type=int, default=1, show_default=True, help="Processes; the pixels are the same.")
@engine_option
@address_option
@click.option("--force", is_flag=True, help="Replace another set that is in the way.")
@click.option("--sheet", is_flag=True, help="Also draw a contact sheet, DATA/TASK/sheet.png.")
@data_option
@json_option
def build_command(
    tasks: tuple[str, ...],
    n: int | None,
    seed: int,
    workers: int,
    engine: str,
    address: str | None,
    force: bool,
    sheet: bool,
    data_dir: Path,
    as_json: bool,
) -> None:
    """Build synthetic data sets: line_intersection, line_tracing, grid_patch.

    Each picture depends on (seed, task, index) alone: any --n, --workers and --engine give the same pixels. A set
    that stands there already is verified and kept. With --json the document is a list.
    """
    from dataclasses import asdict

    from evalkit.datasets.build import build
    from evalkit.datasets.rows import recipe_of
    from evalkit.remote.folders import fetched, sent

    for task in tasks:
        recipe_of(task)  # all names are right before the first is built
    fetched(data_dir, *tasks)
    documents: list[dict[str, Any]] = []
    if address and engine != "ray":
        raise click.UsageError("--address goes with --engine ray.")
    with _spread(engine, address, workers) as spread:
        for task in tasks:
            built = build(task, data_dir, n=n, seed=seed, workers=workers, force=force, spread=spread)
            if not as_json:
                click.echo(built.summary + ("" if built.fresh else "; there already, verified"))
            document = asdict(built) | {"folder": str(built.folder)}
            if sheet:
                from evalkit.datasets.sheet import write_sheet

                path = write_sheet(data_dir, task, _asker(task))
                document["sheet"] = str(path)
                if not as_json:
                    click.echo(f"  {path}")
            sent(data_dir, task)
            documents.append(document)
    if as_json:
        print_json(documents)


@contextmanager
def _spread(engine: str, address: str | None, workers: int) -> "Iterator[Spread | None]":
    """What draws on a Ray cluster; None where processes of this machine do."""
    if engine == "local":
        yield None
        return
    from evalkit.cluster import connect

    cluster = connect(address, workers)
    try:
        yield cluster.in_order
    finally:
        cluster.close()


def _asker(task_name: str) -> Callable[[Sample], str]:
    """What a sample of a task's data set is asked, in the wording for any model."""
    from evalkit.prompts import make_prompt
    from evalkit.task import load_task

    task = load_task(task_name)
    return lambda sample: make_prompt(task, task.default_variant, sample).text


@data_group.command("import")
@click.argument("task", type=click.Choice(["line_intersection"]))
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--name", default="imported", show_default=True, help="Name of the split that it becomes.")
@click.option("--force", is_flag=True, help="Replace other images of that name.")
@data_option
@json_option
def import_command(task: str, folder: Path, name: str, force: bool, data_dir: Path, as_json: bool) -> None:
    """Make a split of images with labels made elsewhere.

    FOLDER holds labels.csv with the columns image and intersections (0-5) and, optionally, image_id: images
    of one id show the same curves and are one cluster. Evaluate it with --split NAME.
    """
    from evalkit.datasets.blindtest import import_folder
    from evalkit.remote.folders import fetched, sent

    entry = import_folder(folder, fetched(data_dir, task), name, force=force)
    sent(data_dir, task)
    if as_json:
        print_json({"dataset": task, **entry})
        return
    there = "" if entry["fresh"] else "; there already"
    click.echo(f"{task}/{name}: {entry['samples']} images; fingerprint {entry['fingerprint'][:16]}{there}")


@data_group.command("verify")
@click.argument("tasks", nargs=-1, metavar="[TASK...]")
@data_option
@json_option
def verify_command(tasks: tuple[str, ...], data_dir: Path, as_json: bool) -> None:
    """Decode every image and compare pixels and rows with the recorded fingerprints; exit 1 on damage."""
    from evalkit.datasets.verify import verify
    from evalkit.remote.folders import fetched

    entries = verify(fetched(data_dir, *tasks), tasks)
    for entry in [] if as_json else entries:
        for fault in entry["faults"]:
            click.echo(fault)
        click.echo(_state(entry))
    damaged = any(entry["faults"] for entry in entries)
    if as_json:
        print_json({"ok": not damaged, "splits": entries})
    elif not entries:
        note(f"No data in {data_dir}.")
    if damaged:
        click.get_current_context().exit(EXIT_USER_ERROR)


def _state(entry: dict[str, Any]) -> str:
    name, n = f"{entry['dataset']}/{entry['split']}", len(entry["faults"])
    if entry["fingerprint"] is not None:
        name += (
            f": {entry['images']} images, {entry['samples']} samples, fingerprint {entry['fingerprint'][:16]}"
        )
    return f"{name}: {n} fault{'s' * (n != 1)}" if n else f"{name}: verified"


@data_group.command("list")
@data_option
@json_option
def list_command(data_dir: Path, as_json: bool) -> None:
    """List what is there: splits, sizes, fingerprints, licences, sources."""
    from evalkit.datasets.disk import DATASET_FILE, METADATA, list_datasets
    from evalkit.remote.folders import fetched, sizes
    from evalkit.report.pages import plain

    entries = list_datasets(fetched(data_dir, only=(DATASET_FILE, METADATA)))
    if (there := sizes(data_dir)) is not None:  # the pictures are not fetched for this
        for entry in entries:
            start = f"{entry['dataset']}/{entry['split']}/"
            entry["bytes"] = sum(size for name, size in there.items() if name.startswith(start))
    if as_json:
        print_json(entries)
        return
    for entry in entries:
        click.echo(
            f"{entry['dataset'] + '/' + entry['split']:<30} {entry['images']:>6} images {entry['samples']:>6} samples  "
            f"{entry['bytes'] / 1e6:>8.1f} MB  {entry['fingerprint'][:16]}  {plain(entry['source'] or '', 400)}"
        )
        if entry["licence"]:
            click.echo(f"{'':<30} licence: {plain(entry['licence'], 400)}")
    if not entries:
        note(f"No data in {data_dir}.")


@data_group.command("sheet")
@click.argument("task")
@click.option("--targets", is_flag=True, help="Draw the target maps of KLAL (Eq. 5) over the samples.")
@click.option(
    "--family", default="qwen2_5_vl", show_default=True, help="Whose visual tokens: qwen2_5_vl or llava."
)
@click.option(
    "--layout", type=click.Choice(["pad", "crop"]), default="pad", show_default=True, help="Of llava."
)
@click.option(
    "--max-pixels", type=click.IntRange(min=1), help="Of qwen2_5_vl's resize.  [default: the model's]"
)
@click.option(
    "--sigma", type=click.FloatRange(min=0), default=0.7, show_default=True, help="In visual tokens."
)
@click.option("--floor", type=click.FloatRange(min=0, max=1, max_open=True), default=0.0, show_default=True)
@data_option
def sheet_command(
    task: str,
    targets: bool,
    family: str,
    layout: str,
    max_pixels: int | None,
    sigma: float,
    floor: float,
    data_dir: Path,
) -> None:
    """Draw a contact sheet of a data set, DATA/TASK/sheet.png, or of its target maps."""
    from evalkit.datasets import DATASETS
    from evalkit.datasets.sheet import write_sheet
    from evalkit.errors import DataError
    from evalkit.remote.folders import fetched, sent

    if task not in DATASETS:
        raise DataError(f"No data set named {task!r}. Known: {', '.join(DATASETS)}.")
    fetched(data_dir, task)
    if not targets:
        click.echo(write_sheet(data_dir, task, _asker(task)))
        sent(data_dir, task)
        return
    draw = _target_drawer(task, _token_layout(family, layout, max_pixels), sigma, floor)
    name = f"targets-{family}{'-crop' if layout == 'crop' else ''}.png"
    click.echo(write_sheet(data_dir, task, _asker(task), draw, name))
    sent(data_dir, task)


def _token_layout(family: str, layout: str, max_pixels: int | None) -> Any:
    from evalkit.errors import ConfigError
    from model_adapters.families import Glamm, Llava, Qwen25VL, family_class

    kind = family_class(family)
    if kind is Glamm:
        return Glamm()
    if kind is Llava:
        if max_pixels is not None:
            raise ConfigError("--max-pixels is of qwen2_5_vl alone.")
        return Llava(layout=layout)  # type: ignore[arg-type]  # checked by click
    if layout != "pad":
        raise ConfigError("--layout is of llava alone.")
    return Qwen25VL(max_pixels=max_pixels) if max_pixels else Qwen25VL()


def _target_drawer(task: str, tokens: Any, sigma: float, floor: float) -> Callable[[Sample], Any]:
    from evalkit.datasets.sheet import Target, draw_target
    from evalkit.targets import marks, target_map, target_patches

    def draw(sample: Sample) -> Any:
        grid = tokens.grid(sample.image_size_wh)
        patches = target_patches(marks(task, sample), grid, sample.sample_id)
        return draw_target(sample, Target(patches, target_map(patches, sigma, floor), grid.extent_xyxy))

    return draw


@data_group.command("show")
@click.argument("task")
@click.argument("sample_id")
@click.option("--split", help="The split that the sample is of.  [default: whichever has it, test first]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="[default: TASK-SAMPLE_ID.png]")
@click.option(
    "--family", default="qwen2_5_vl", show_default=True, help="Whose visual tokens the target map is over."
)
@data_option
def show_command(
    task: str, sample_id: str, split: str | None, out: Path | None, family: str, data_dir: Path
) -> None:
    """Draw one sample with its geometry and beside it the target map of KLAL (Eq. 5); print question and gold."""
    from evalkit.datasets import DATASETS
    from evalkit.datasets.disk import read_split, splits_of
    from evalkit.datasets.sheet import beside, draw_sample
    from evalkit.errors import DataError, TargetError
    from evalkit.remote.folders import fetched
    from evalkit.report.pages import plain

    if task not in DATASETS:
        raise DataError(f"No data set named {task!r}. Known: {', '.join(DATASETS)}.")
    fetched(data_dir, task)
    splits = [split] if split else sorted(splits_of(data_dir, task), key=lambda name: name != "test")
    samples = [s for name in splits or ["test"] for s in read_split(data_dir, task, name).samples]
    sample = next((s for s in samples if s.sample_id == sample_id), None)
    if sample is None:
        where = f"{data_dir / task} ({', '.join(splits)})"
        raise DataError(f"No sample {sample_id!r} in {where}; the first is {samples[0].sample_id!r}.")
    read_split(data_dir, task, sample.split).require_images()
    out = out or Path(f"{task}-{re.sub(r'[^A-Za-z0-9_.-]', '-', sample_id)}.png")
    picture = draw_sample(sample)
    try:
        picture = beside(picture, _target_drawer(task, _token_layout(family, "pad", None), 0.7, 0.0)(sample))
    except TargetError as error:
        note(f"No target map: {error}")
    try:
        picture.save(out, format="PNG")
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}).") from None
    about = f"gold {sample.gold}" + "".join(f", {key} {value}" for key, value in sample.variables.items())
    click.echo(plain(f"{task}/{sample.split} {sample.sample_id}: {_asker(task)(sample)}", 2_000))
    click.echo(plain(about, 2_000))
    click.echo(out)
