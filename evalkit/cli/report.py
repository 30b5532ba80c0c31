"""evalkit compare, tables, leaderboard: what stored runs say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from evalkit.cli.common import Folder, data_option, json_option, note, percent, print_json, results_option


@click.command("compare")
@click.argument("models", nargs=-1, required=True, metavar="MODEL_A MODEL_B [...]")
@click.option("--task", required=True, help="The task on which to compare.")
@click.option("--split", help="Split of the data set.  [default: the task's first]")
@click.option(
    "--trained-on",
    metavar="TASK",
    help="Of fine-tuned models, the checkpoints trained on this task.  [default: the same task]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the bootstrap.")
@click.option(
    "--show",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Samples to show that they differ on.",
)
@results_option
@json_option
def compare_command(
    models: tuple[str, ...],
    task: str,
    split: str | None,
    trained_on: str | None,
    seed: int,
    show: int,
    results_dir: Path,
    as_json: bool,
) -> None:
    """Paired comparison of stored runs on the samples they share.

    A MODEL is a model's name, or the folder or URL of one run.
    """
    from evalkit.compare import compare, find_run
    from evalkit.remote.address import is_url
    from evalkit.remote.folders import fetched, local_folder
    from evalkit.task import load_task

    if len(models) < 2:
        raise click.UsageError("Name at least two models.")
    split = split or load_task(task).splits[0]
    fetched(results_dir, "runs")
    models = tuple(str(fetched(local_folder(model))) if is_url(model) else model for model in models)
    document = compare([find_run(model, task, split, results_dir, trained_on) for model in models], seed)
    if as_json:
        print_json(document)
        return
    _show_comparison(document, show)


def _show_comparison(document: dict[str, Any], show: int) -> None:
    from evalkit.report.pages import plain

    click.echo(
        f"{document['task']}/{document['split']}: {document['n']} samples on {document['n_images']} images, "
        "answered by all"
    )
    # names come from run.json, which may come from elsewhere: nothing in them steers the terminal
    names = {model["model"]: plain(model["model"]) for model in document["models"]}
    width = max(len(name) for name in names.values())
    for model in document["models"]:
        _show_model(f"{names[model['model']]:<{width}}", model, document["n"])
    for pair in document["pairs"]:
        _show_pair(names[pair["first"]], names[pair["second"]], pair, len(document["pairs"]))
    _show_strata(document, names)
    _show_differences(document, names, show)


def _show_model(name: str, model: dict[str, Any], n: int) -> None:
    low, high = model["ci95"]
    mark = "" if model["status"] == "complete" else f"  [{model['status']}]"
    facts = [f"{model['correct']}/{n}, 95 % CI {100 * low:.1f}–{100 * high:.1f} %"]
    click.echo(f"  {name}  {percent(model['accuracy']):>7}  ({facts[0]}){mark}")
    shown = [f"{verdict} {count}" for verdict, count in model["verdicts"].items()]
    if model["latency_p50_s"] is not None:
        shown.append(f"latency p50 {model['latency_p50_s']:.3f} s, p95 {model['latency_p95_s']:.3f} s")
    if model["cost_usd_per_1000"] is not None:
        shown.append(f"${model['cost_usd']:.4f} spent, ${model['cost_usd_per_1000']:.3f} for 1,000")
    click.echo(f"  {'':<{len(name)}}  {' · '.join(shown)}")
    if model["only_here"]:
        click.echo(
            f"  {'':<{len(name)}}  {model['only_here']} further samples that not all answered are left out"
        )


def _show_strata(document: dict[str, Any], names: dict[str, str]) -> None:
    """Accuracy by class, a column a model, where there is more than one class."""
    from evalkit.report.pages import plain

    if len(document["strata"]) < 2:
        return
    widths = {name: max(len(shown), 8) for name, shown in names.items()}
    classes = {row["stratum"]: plain(str(row["stratum"])) for row in document["strata"]}
    first = max(len("class"), *(len(shown) for shown in classes.values()))
    head = "  ".join(f"{names[name]:>{width}}" for name, width in widths.items())
    click.echo(f"\n{'class':<{first}}      n  {head}")
    for row in document["strata"]:
        cells = "  ".join(
            f"{percent(row['correct'][name] / row['n']):>{width}}" for name, width in widths.items()
        )
        click.echo(f"{classes[row['stratum']]:<{first}}  {row['n']:>5}  {cells}")


def _show_differences(document: dict[str, Any], names: dict[str, str], show: int) -> None:
    from evalkit.report.pages import plain

    if not document["differ"]:
        click.echo("\nThey are correct on the same samples.")
        return
    shown = document["differ"][:show]
    more = f", the first {len(shown)} of them" if 0 < len(shown) < len(document["differ"]) else ""
    click.echo(
        f"\nThey differ on {len(document['differ'])} of {document['n']} samples{more}"
        f"{'; all in --json' if len(shown) < len(document['differ']) else ''}"
    )
    for row in shown:
        said = " · ".join(
            f"{names[name]} {_said(row['answers'][name], row['verdicts'][name])}" for name in names
        )
        click.echo(f"  {plain(row['sample_id'])}  gold {plain(str(row['gold']))}  {said}")


def _said(answer: Any, verdict: str) -> str:
    from evalkit.report.pages import plain

    return verdict if answer is None else f"{plain(str(answer))} ({verdict})"


def _show_pair(first: str, second: str, pair: dict[str, Any], n_pairs: int) -> None:
    low, high = pair["difference_ci95"]
    holm = f" (Holm, {n_pairs} pairs: {pair['mcnemar_p_holm']:.3g})" if n_pairs > 1 else ""
    note = (
        f"; it takes questions on one image as independent. By image: p = {pair['p_by_image']:.3g}"
        if pair["clustered"]
        else ""
    )
    click.echo(
        f"\n{first} against {second}\n"
        f"  both correct {pair['both_correct']} · only {first} {pair['only_first']} · "
        f"only {second} {pair['only_second']} · neither {pair['both_not']} · same answer {pair['same_answer']}\n"
        f"  difference {100 * pair['difference']:+.1f} points "
        f"(95 % CI {100 * low:+.1f} to {100 * high:+.1f}, bootstrap clustered by image)\n"
        f"  McNemar, exact: p = {pair['mcnemar_p']:.3g}{holm}{note}"
    )


@click.command("tables")
@click.option("--out", "out_dir", type=Folder(file_okay=False), help="[default: RESULTS/tables]")
@click.option(
    "--scale",
    "scale_name",
    help="Ours alone, at this scale of `evalkit replicate`, with seeds and paired tests.",
)
@results_option
@json_option
def tables_command(out_dir: Path | None, scale_name: str | None, results_dir: Path, as_json: bool) -> None:
    """Tables 1-5 of the paper, ours beside the printed numbers (Markdown, HTML, LaTeX, CSV)."""
    from evalkit.leaderboard import load_runs
    from evalkit.remote.folders import fetched, sent
    from evalkit.report.figures import described
    from evalkit.report.paper import load_paper
    from evalkit.report.tables import build_tables
    from evalkit.report.writing import write_tables
    from evalkit.scores import ScoreBook

    out_dir = fetched(out_dir or results_dir / "tables")
    book = ScoreBook(fetched(results_dir, "runs", "probes", "figures", "leaderboard/runs"))
    scale = None if scale_name is None else _scale_facts(scale_name)
    document = build_tables(load_paper(), load_runs(results_dir, book), book, scale)
    figures = described(results_dir / "figures") if scale_name is not None else []
    paths = write_tables(document | {"figures": figures}, out_dir, results_dir, scale_name)
    sent(out_dir)
    if as_json:
        print_json(document | {"files": [str(path) for path in paths]})
        return
    for path in paths:
        click.echo(path)


def _scale_facts(name: str) -> dict[str, str]:
    from trainers.scale import load_scale

    scale = load_scale(name)
    return {"name": name, "prefix": scale.prefix, "title": scale.title, "about": scale.about}


@click.command("figures")
@click.option(
    "--scale", "scale_name", default="paper", show_default=True, help="Whose models: tiny, small, paper."
)
@click.option("--out", "out_dir", type=Folder(file_okay=False), help="[default: RESULTS/figures]")
@data_option
@results_option
def figures_command(scale_name: str, out_dir: Path | None, data_dir: Path, results_dir: Path) -> None:
    """Figures 3-5 of the paper from stored probes (PNG and SVG)."""
    from evalkit.probes import paper_probes
    from evalkit.remote.folders import fetched, is_shared, sent
    from evalkit.report.figures import Drawn, draw_figures
    from evalkit.report.paper import load_paper
    from evalkit.report.trios import trios

    facts = _scale_facts(scale_name)
    footnote = f"{facts['title']}: not the paper's models." if facts["prefix"] else ""
    drawn = Drawn(fetched(out_dir or results_dir / "figures"), footnote)
    fetched(results_dir, "runs", "probes")
    if is_shared(data_dir):
        _fetch_data_of([probe.meta for probe in paper_probes(results_dir)], data_dir)
    paths = draw_figures(results_dir, data_dir, trios(load_paper(), facts["prefix"]), drawn)
    if not paths:
        note(f"No probes of these models in {results_dir}: evalkit probe makes them.")
    sent(drawn.out_dir)
    for path in paths:
        click.echo(path)


@click.command("leaderboard")
@click.option("--out", "out_dir", type=Folder(file_okay=False), help="[default: RESULTS/leaderboard]")
@click.option(
    "--pages/--no-pages", default=True, help="A page for each run, with its samples.  [default: yes]"
)
@click.option(
    "--pictures/--no-pictures", default=True, help="Pictures of the data beside the pages.  [default: yes]"
)
@data_option
@results_option
@json_option
def leaderboard_command(
    out_dir: Path | None, pages: bool, pictures: bool, data_dir: Path, results_dir: Path, as_json: bool
) -> None:
    """The leaderboard of all stored runs: leaderboard.md, .html and .json, charts.html, and a page for each run.

    Pictures come from --data where it holds the very data of a run; they are linked into the folder.
    """
    from evalkit.leaderboard import load_runs
    from evalkit.remote.folders import fetched, is_shared, sent
    from evalkit.report.board import build_board
    from evalkit.report.boardfiles import write_board
    from evalkit.scores import ScoreBook

    out_dir = fetched(out_dir or results_dir / "leaderboard")
    book = ScoreBook(fetched(results_dir, "runs", "probes"))
    document = build_board(load_runs(results_dir, book), book)
    if pictures and is_shared(data_dir):
        _fetch_data_of([book.of(run["run"]).meta for run in document["runs"]], data_dir)
    paths = write_board(document, out_dir, results_dir, data_dir=data_dir if pictures else None, pages=pages)
    sent(out_dir)
    if as_json:
        print_json(document | {"files": [str(path) for path in paths]})
        return
    shown = [path for path in paths if path.parent == paths[0].parent]
    for path in shown:
        click.echo(path)
    if len(paths) > len(shown):
        note(f"and {len(paths) - len(shown)} pages of runs below {paths[0].parent / 'runs'}")


def _fetch_data_of(metas: Sequence[Mapping[str, Any]], data_dir: Path) -> None:
    """The data sets that runs or probes are of, from shared storage; names that are none are left out."""
    from evalkit.datasets import DATASETS
    from evalkit.remote.folders import fetched

    for name in sorted({str(meta["dataset"]["name"]) for meta in metas} & DATASETS.keys()):
        fetched(data_dir, name)
