"""evalkit results: export, import and diff of stored runs."""

from pathlib import Path
from typing import Any

import click

from evalkit.cli.common import Folder, Group, json_option, note, percent, print_json, results_option


@click.group("results", cls=Group)
def results_group() -> None:
    """Share results: archives with checksums, other projects' formats, what changed."""


@results_group.command("export")
@click.argument("runs", nargs=-1, metavar="[RUN ...]", type=Folder())
@click.option("--all", "every", is_flag=True, help="Every run below RESULTS/runs.")
@click.option(
    "--out", "out", required=True, type=click.Path(path_type=Path),
    help="The archive (.zip); of --format another, the folder.",
)  # fmt: skip
@click.option(
    "--format", "kind", default="archive", show_default=True,
    type=click.Choice(["archive", "every-eval-ever", "hub", "model-index", "inspect"]),
    help="archive is what `results import` reads; the others are for other projects.",
)  # fmt: skip
@click.option(
    "--dataset", "datasets", multiple=True, metavar="TASK=OWNER/NAME",
    help="The data set of a task on the Hub, for hub, model-index and every-eval-ever.",
)  # fmt: skip
@results_option
@json_option
def export_command(
    runs: tuple[Path, ...],
    every: bool,
    out: Path,
    kind: str,
    datasets: tuple[str, ...],
    results_dir: Path,
    as_json: bool,
) -> None:
    """Write runs to one archive, or in a form that others read.

    RUN is a run's folder or URL. Keys are never written: an export in which one is found is refused. Local paths
    and addresses of servers are left out.
    """
    from evalkit.errors import StoreError
    from evalkit.remote.folders import fetched
    from evalkit.store import find_runs

    if every == bool(runs):
        raise click.UsageError("Name run folders, or --all.")
    folders = _finished(find_runs(fetched(results_dir, "runs"))) if every else [fetched(run) for run in runs]
    if not folders:
        raise StoreError(f"No runs below {results_dir / 'runs'}.")
    if kind != "archive":
        from evalkit.sharing.formats import write_format

        paths = write_format(kind, folders, out, _pairs(datasets))
        if as_json:
            print_json({"format": kind, "files": [str(path) for path in paths]})
        else:
            for path in paths:
                click.echo(path)
        return
    from evalkit.sharing.archive import fingerprint, write_archive

    manifest = write_archive(out, folders, results_dir)
    rows = sum(len(entry.row_sha256) for entry in manifest.runs)
    if as_json:
        names = [entry.run for entry in manifest.runs]
        about = {"file": str(out), "bytes": out.stat().st_size, "sha256_of_manifest": fingerprint(manifest)}
        print_json(about | {"runs": names, "rows": rows})
    else:
        n = len(manifest.runs)
        click.echo(f"{out}: {n} run{'s' * (n != 1)}, {rows:,} rows, {out.stat().st_size:,} bytes")
        note(f"sha256 of its manifest, which covers every row: {fingerprint(manifest)}")


def _finished(folders: list[Path]) -> list[Path]:
    """Without the runs that are at work, which are named."""
    from evalkit.store import read_meta

    running = [folder for folder in folders if read_meta(folder)["status"] == "running"]
    for folder in running:
        note(f"Left out, it is being run or was killed in it: {folder}")
    return [folder for folder in folders if folder not in running]


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    for one in given:
        task, equals, name = one.partition("=")
        if not (task and equals and name.count("/") == 1):
            raise click.BadParameter(f"{one!r}: expected TASK=OWNER/NAME.", param_hint="--dataset")
    return dict(one.split("=", 1) for one in given)


@results_group.command("import")
@click.argument("archive", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Check everything, write nothing.")
@click.option(
    "--replace", is_flag=True, help="Put a run in the place of one that is there with other content."
)
@click.option("--strict", is_flag=True, help="Refuse verdicts that this evalkit would not give.")
@results_option
@json_option
def import_command(
    archive: Path, dry_run: bool, replace: bool, strict: bool, results_dir: Path, as_json: bool
) -> None:
    """Merge an archive's runs into RESULTS: all of it is checked first, and every fault is named."""
    from evalkit.remote.folders import fetched
    from evalkit.remote.run import replace_run
    from evalkit.sharing.merging import merge

    done = merge(archive, fetched(results_dir, "runs"), replace=replace, strict=strict, dry_run=dry_run)
    for run in () if dry_run else (*done["imported"], *done["replaced"], *done["present"]):
        replace_run(results_dir / run)
    if as_json:
        print_json(done | {"dry_run": dry_run})
        return
    note(f"sha256 of its manifest: {done['sha256_of_manifest']}")
    for warning in done["warnings"]:
        note(f"Note: {warning}")
    words = {"imported": "imported", "replaced": "replaced", "present": "there already"}
    for key, word in words.items():
        for run in done[key]:
            click.echo(f"{run}: {word if not dry_run or key == 'present' else f'would be {word}'}")


@results_group.command("diff")
@click.argument("a", type=Folder())
@click.argument("b", type=Folder())
@json_option
def diff_command(a: Path, b: Path, as_json: bool) -> None:
    """Which cells changed from A to B, and why. A and B are results folders, their URLs, or archives."""
    from evalkit.remote.folders import fetched
    from evalkit.sharing.changes import changes, results_of

    with results_of(fetched(a, "runs")) as before, results_of(fetched(b, "runs")) as after:
        document = changes(before, after)
    if as_json:
        print_json(document)
        return
    for cell in document["changed"]:
        _show_changed(cell)
    for key, word in (("appeared", "only in B"), ("vanished", "only in A")):
        for cell in document[key]:
            click.echo(f"{_name(cell)}: {word}, {percent(cell['accuracy'])} ({cell['correct']}/{cell['n']})")
    click.echo(f"{document['same']} cell{'s' * (document['same'] != 1)} the same.")


def _name(cell: dict[str, Any]) -> str:
    from evalkit.report.pages import plain

    tail = f" trained on {cell['trained_on']}" if cell["trained_on"] else ""
    seed = f", seed {cell['seed']}" if cell["seed"] else ""
    return plain(f"{cell['model']} on {cell['task']}/{cell['split']}{tail}{seed}", 300)


def _show_changed(cell: dict[str, Any]) -> None:
    from evalkit.report.pages import plain

    old, new = cell["before"], cell["after"]
    click.echo(
        f"{_name(cell)}: {percent(old['accuracy'])} ({old['correct']}/{old['n']}) -> "
        f"{percent(new['accuracy'])} ({new['correct']}/{new['n']}), {100 * cell['difference']:+.1f} points"
    )
    click.echo(
        f"  of {cell['shared']} shared samples {cell['other_replies']} other replies, {cell['other_verdicts']} other "
        f"verdicts; won {cell['won']}, lost {cell['lost']}, McNemar's exact p = {cell['mcnemar_p']:.3g}"
    )
    for cause in cell["causes"]:
        click.echo(f"  {cause['cause']}")
        for key in cause["keys"]:
            click.echo(f"    {plain(key['key'])}: {plain(key['before'], 200)} -> {plain(key['after'], 200)}")
