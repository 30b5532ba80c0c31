"""evalkit data prepare pixmo_points."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.common import EXIT_UNFINISHED, data_option, json_option, note, print_json

if TYPE_CHECKING:
    from evalkit.datasets.pixmo_manifest import Entry
    from evalkit.datasets.pixmo_points import Prepared

_NAMED = 20  # how many lost pictures are named on a terminal


@click.command("pixmo_points")
@click.option(
    "--source", default="hub", show_default=True, metavar="DIR|hub", help="Parquet of allenai/pixmo-points."
)
@click.option(
    "--holdout",
    default="auto",
    metavar="DIR|FILE.json|hub|none",
    help="Pictures that must not be used, allenai/pixmo-points-eval.  [default: the Hub, or beside --source]",
)
@click.option("--n", type=click.IntRange(min=1), default=1500, show_default=True, help="How many pictures.")
@click.option(
    "--categories", type=click.IntRange(min=1), default=150, show_default=True, help="Of how many labels."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which pictures of a label.")
@click.option("--jobs", type=click.IntRange(1, 256), default=16, show_default=True, help="Downloads at once.")
@click.option(
    "--per-host", type=click.IntRange(1, 64), default=2, show_default=True, help="Of these from one host."
)
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=60.0, show_default=True, help="Seconds a download."
)
@click.option(
    "--max-mb",
    type=click.FloatRange(min=0.01),
    default=64.0,
    show_default=True,
    help="The largest file, in MiB.",
)
@click.option("--retry", is_flag=True, help="Try again what failed, where a label has too few pictures.")
@click.option(
    "--manifest",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Make the set that this manifest.jsonl records, instead of choosing one.",
)
@click.option("--partial", is_flag=True, help="With --manifest: put in place what is still to be had.")
@click.option(
    "--allow-private",
    is_flag=False,
    flag_value="any",
    metavar="[HOST:PORT]",
    help="Also download from private and loopback addresses (for tests), or from this one.",
)
@click.option("--force", is_flag=True, help="Replace another set that is in the way.")
@data_option
@json_option
def pixmo_points_command(
    source: str,
    holdout: str,
    n: int,
    categories: int,
    seed: int,
    jobs: int,
    per_host: int,
    timeout: float,
    max_mb: float,
    retry: bool,
    manifest: Path | None,
    partial: bool,
    allow_private: str | None,
    force: bool,
    data_dir: Path,
    as_json: bool,
) -> None:
    """Photographs with one named point each: choose, download, verify, split 80/20 by picture.

    The labels with the most pictures are the categories; a seeded rank orders the pictures of each, and a dead
    link is replaced by the next. DATA/pixmo_points/manifest.jsonl records what became of every URL. The same
    command goes on after an interruption and downloads nothing twice. Exit status 3: pictures are missing.
    """
    from evalkit.datasets.fetching import FetchLimits
    from evalkit.datasets.pixmo_points import Web, prepare, prepare_from
    from evalkit.remote.folders import fetched, sent

    web = Web(
        FetchLimits(jobs=jobs, per_host=per_host, timeout_s=timeout, max_bytes=round(max_mb * 2**20)),
        allow_private == "any" or frozenset((allow_private,) if allow_private else ()),
        retry,
    )
    fetched(data_dir, "pixmo_points")
    if manifest is None:
        if partial:
            raise click.UsageError("--partial goes with --manifest.")
        prepared = prepare(
            data_dir, source=source, holdout=holdout, n=n, categories=categories, seed=seed, web=web, force=force
        )  # fmt: skip
    else:
        prepared = prepare_from(data_dir, manifest, web=web, partial=partial, force=force)
    sent(data_dir, "pixmo_points")
    if as_json:
        print_json(_document(prepared))
    else:
        _show(prepared)
    if prepared.missing:
        _show_missing(prepared)
        click.get_current_context().exit(EXIT_UNFINISHED)


def _document(prepared: "Prepared") -> dict[str, Any]:
    lost = [
        {"url": entry.row.url, "label": entry.row.label, "outcome": entry.outcome, "detail": entry.detail}
        for entry in prepared.lost
    ]
    return {
        **prepared.info,
        "missing": dict(prepared.missing),
        "lost": lost,
        "in_place": prepared.in_place,
        "fresh": prepared.fresh,
    }


def _show(prepared: "Prepared") -> None:
    if not prepared.in_place:
        return
    info = prepared.info
    sizes = {name: entry["samples"] for name, entry in info["splits"].items()}
    tried = ", ".join(f"{outcome} {n:,}" for outcome, n in info["tried"].items())
    click.echo(
        f"pixmo_points: {sum(sizes.values()):,} pictures; "
        + ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        + f"; fingerprint {info['fingerprint'][:16]}"
        + ("" if prepared.fresh else "; there already, verified")
    )
    click.echo(f"  tried {sum(info['tried'].values()):,}: {tried}")


def _show_missing(prepared: "Prepared") -> None:
    short = sum(prepared.missing.values())
    labels = ", ".join(f"{label} {n}" for label, n in list(prepared.missing.items())[:_NAMED])
    more = ", …" if len(prepared.missing) > _NAMED else ""
    note(f"{short} pictures are missing, by label: {labels}{more}. --retry tries again what failed.")
    _name(prepared.lost)
    if not prepared.in_place:
        note("Nothing was put in place; --partial takes the others.")


def _name(lost: "Sequence[Entry]") -> None:
    for entry in lost[:_NAMED]:
        note(f"  {entry.row.label}: {entry.row.url}: {entry.detail or entry.outcome}")
    if len(lost) > _NAMED:
        note(f"  and {len(lost) - _NAMED} more; --json names all.")
