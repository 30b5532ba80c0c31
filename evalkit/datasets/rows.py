"""From a recipe and an index to a picture and its rows of metadata.jsonl."""

from importlib import import_module
from typing import Any

from evalkit.datasets import DATASETS
from evalkit.datasets.disk import pixels_sha256
from evalkit.datasets.recipe import Picture, Recipe
from evalkit.errors import ConfigError


def recipe_of(task: str) -> Recipe:
    """The recipe of a synthetic data set. Raises ConfigError, which says what can be built."""
    if task not in DATASETS or DATASETS[task].origin != "build":
        why = f", but prepared: {DATASETS[task].command}" if task in DATASETS else ""
        known = ", ".join(name for name, info in DATASETS.items() if info.origin == "build")
        raise ConfigError(f"{task!r} cannot be built{why}. Synthetic sets: {known}.")
    recipe: Recipe = import_module(f"evalkit.datasets.{task}").RECIPE
    return recipe


def picture_and_rows(recipe: Recipe, seed: int, index: int) -> tuple[Picture, list[dict[str, Any]]]:
    """Image `index` and its rows, one a question; the questions of one image are numbered from 0."""
    picture = recipe.draw(seed, index)
    image_id = f"{index:06d}"
    pixels_rgb = picture.pixels_rgb
    height, width = pixels_rgb.shape[:2]
    sha256 = pixels_sha256((width, height), pixels_rgb.tobytes())
    many = len(picture.questions) > 1
    rows = [
        {
            "file_name": f"images/{image_id}.png",
            "sample_id": f"{image_id}-{number}" if many else image_id,
            "image_id": image_id,
            "split": recipe.split(seed, index),
            **question.variables,
            "gold": question.gold,
            "stratum": question.stratum,
            "width": width,
            "height": height,
            "pixels_sha256": sha256,
            "geometry": dict(question.geometry),
        }
        for number, question in enumerate(picture.questions)
    ]
    return picture, rows
