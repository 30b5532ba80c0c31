"""evalkit data prepare refcoco."""

from pathlib import Path

import click

from evalkit.cli.common import data_option, json_option, print_json


@click.command("refcoco")
@click.option(
    "--annotations",
    required=True,
    metavar="SRC",
    help="refs(unc).p with instances.json beside it; refcoco_<split>.json (MiniGPT-4) or .jsonl (Qwen); parquet of "
    "jxu124/refcoco or lmms-lab/RefCOCO, or these names themselves for the Hub.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True),
    help="COCO's train2014 pictures: a folder, or the zip.",
)
@click.option("--no-images", is_flag=True, help="Without pictures: for `evalkit import` and scoring alone.")
@click.option("--splits", default="val,testA,testB", show_default=True, help="Of train, val, testA, testB.")
@click.option(
    "--sample", type=click.IntRange(min=1), help="Sentences a split.  [default: all; the paper: 2000]"
)
@click.option("--seed", type=int, default=42, show_default=True, help="Of --sample, as of `run --limit`.")
@click.option(
    "--unc-val", metavar="SRC", help="For lmms-lab/RefCOCO: annotations that say which of val are UNC's."
)
@click.option(
    "--partial", is_flag=True, help="Accept annotations that are only a part of the published splits."
)
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Pictures at once.")
@click.option("--force", is_flag=True, help="Replace other data that is in the way.")
@data_option
@json_option
def refcoco_command(
    annotations: str,
    images: Path | None,
    no_images: bool,
    splits: str,
    sample: int | None,
    seed: int,
    unc_val: str | None,
    partial: bool,
    jobs: int,
    force: bool,
    data_dir: Path,
    as_json: bool,
) -> None:
    """RefCOCO (UNC), one sample a sentence: SPLIT/IMG_ID#K, K the sentence's place in its ref.

    The sizes of the splits are checked against the published ones. Qwen's jsonl has no img_id: its ids are made
    of the box, and replies made under one kind of id do not fit the other.
    """
    from evalkit.datasets.refcoco import Wish, prepare
    from evalkit.datasets.refcoco_refs import SPLITS
    from evalkit.remote.folders import fetched, sent

    if no_images == (images is not None):
        raise click.UsageError("Give --images, or --no-images.")
    names = tuple(dict.fromkeys(name.strip() for name in splits.split(",") if name.strip()))
    if not names or (unknown := [name for name in names if name not in SPLITS]):
        raise click.UsageError(
            f"--splits {splits}: {', '.join(unknown) if names else 'none'}; known: {', '.join(SPLITS)}."
        )
    wish = Wish(annotations, names, images, sample, seed, partial, unc_val)
    entries = prepare(fetched(data_dir, "refcoco"), wish, force=force, jobs=jobs)
    sent(data_dir, "refcoco")
    if as_json:
        print_json(entries)
        return
    for entry in entries:
        annotated = entry["annotated"]
        click.echo(
            f"refcoco/{entry['split']}: {entry['samples']:,} sentences about {entry['images']:,} images "
            f"(annotated: {annotated['sentences']:,} sentences, {annotated['refs']:,} refs, "
            f"{annotated['images']:,} images); fingerprint {entry['fingerprint'][:16]}"
            + ("" if entry["fresh"] else "; there already, verified")
        )
