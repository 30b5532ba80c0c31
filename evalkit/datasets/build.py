"""evalkit data build: recipe -> images and rows on disk, by any number of workers, put in place at once."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evalkit import __version__
from evalkit.datasets.disk import DATASET_FILE, fingerprint, read_info, splits_of, write_json
from evalkit.datasets.place import put_in_place, split_entry, sweep, write_metadata
from evalkit.datasets.recipe import SPLITS, Recipe
from evalkit.datasets.rows import picture_and_rows, recipe_of
from evalkit.datasets.verify import damage
from evalkit.errors import ConfigError, DataError

Drawn = tuple[bytes, list[dict[str, Any]]]  # a picture as PNG, and its rows
# (draw, n) -> draw(0), ..., draw(n - 1), in this order, wherever they are drawn
Spread = Callable[[Callable[[int], Drawn], int], Iterable[Drawn]]


@dataclass(frozen=True, slots=True)
class Built:
    """What stands on disk after a build."""

    task: str
    folder: Path
    images: int
    samples: int
    answers: dict[str, int]
    classes: dict[str, int]
    splits: dict[str, int]
    fingerprint: str
    fresh: bool  # False: the same set was there already and was verified
    summary: str


def build(
    task: str,
    data_dir: Path,
    *,
    n: int | None = None,
    seed: int = 0,
    workers: int = 1,
    force: bool = False,
    spread: Spread | None = None,
) -> Built:
    """Draw `n` images (default: the paper's number) and put train and test in place.

    workers: processes of this machine; spread: draws them elsewhere instead. This process alone writes.
    Raises ConfigError on bad numbers, DataError where another set is in the way.
    """
    recipe = recipe_of(task)
    n = recipe.paper_images if n is None else n
    if n < 1 or workers < 1:
        raise ConfigError(f"--n {n}, --workers {workers}: both must be at least 1.")
    folder = data_dir / task
    made_by = {"n": n, "seed": seed, "recipe_version": recipe.version}
    info = read_info(data_dir, task)
    there = [split for split in splits_of(data_dir, task) if split in SPLITS]
    if there and not force:
        if info.get("made_by") != made_by:
            raise DataError(
                f"{folder} holds another set ({_words(info.get('made_by'))}); --force replaces it by {_words(made_by)}."
            )
        if not any(damage(data_dir, task, split) for split in there):
            return _built(recipe, data_dir, info, fresh=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder, ".building-")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".building-") as temporary:
            draw = partial(_draw_one, recipe.name, seed)
            drawn = spread(draw, n) if spread else _mapped(draw, n, workers)
            rows = _write_images(recipe, Path(temporary), drawn, n)
            info = _write_rows(recipe, Path(temporary), rows, info, made_by)
            for split in SPLITS:
                put_in_place(Path(temporary) / split, folder / split)
            write_json(folder / DATASET_FILE, info)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}).") from None
    return _built(recipe, data_dir, info, fresh=True)


def _words(made_by: dict[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in made_by.items()) if made_by else "of unknown origin"


def _write_images(recipe: Recipe, folder: Path, drawn: Iterable[Drawn], n: int) -> list[dict[str, Any]]:
    for split in SPLITS:
        (folder / split / "images").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    with tqdm(total=n, desc=f"building {recipe.name}", unit="image", disable=None) as bar:
        for png, image_rows in drawn:
            (folder / image_rows[0]["split"] / image_rows[0]["file_name"]).write_bytes(png)
            rows += image_rows
            bar.update(1)
    return rows


def _mapped(draw: Callable[[int], Drawn], n: int, workers: int) -> Iterator[Drawn]:
    """In the order of indices, whatever the workers."""
    if workers == 1:
        yield from map(draw, range(n))
        return
    # Spawned, not forked: a fork of a process with threads can hang, and Python 3.12 warns of it.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(draw, range(n), chunksize=16)


def _draw_one(task: str, seed: int, index: int) -> Drawn:
    picture, rows = picture_and_rows(recipe_of(task), seed, index)
    return picture.png, rows


def _write_rows(
    recipe: Recipe, folder: Path, rows: list[dict[str, Any]], info: dict[str, Any], made_by: dict[str, Any]
) -> dict[str, Any]:
    splits = {
        name: entry for name, entry in info["splits"].items() if name not in SPLITS
    }  # imported ones stay
    for split in SPLITS:
        own = [row for row in rows if row["split"] == split]
        if not own:
            shutil.rmtree(folder / split)
            continue
        write_metadata(folder / split, own)
        splits[split] = split_entry(own, recipe.source, "Apache-2.0")
    classes = Counter(recipe.place(index)[0] for index in range(made_by["n"]))
    return {
        "dataset": recipe.name,
        "evalkit": __version__,
        "made_by": made_by,
        "classes": dict(sorted(classes.items())),
        "answers": dict(sorted(Counter(str(row["gold"]) for row in rows).items()))
        if isinstance(rows[0]["gold"], int | str)
        else {},
        "fingerprint": fingerprint(rows),
        "splits": splits,
    }


def _built(recipe: Recipe, data_dir: Path, info: dict[str, Any], fresh: bool) -> Built:
    own = {split: info["splits"][split] for split in SPLITS if split in info["splits"]}
    images = sum(entry["images"] for entry in own.values())
    samples = sum(entry["samples"] for entry in own.values())
    answers = f" ({', '.join(f'{n:,} {a}' for a, n in info['answers'].items())})" if samples != images else ""
    summary = (
        f"{recipe.name}: {images:,} images, {samples:,} questions{answers}; {recipe.describe(info['classes'])}; "
        + ", ".join(f"{split} {entry['samples']:,}" for split, entry in own.items())
        + f"; fingerprint {info['fingerprint'][:16]}"
    )
    return Built(
        task=recipe.name,
        folder=data_dir / recipe.name,
        images=images,
        samples=samples,
        answers=info["answers"],
        classes=info["classes"],
        splits={split: entry["samples"] for split, entry in own.items()},
        fingerprint=info["fingerprint"],
        fresh=fresh,
        summary=summary,
    )
