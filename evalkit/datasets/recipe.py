"""What a builder of a synthetic data set hands over: pictures with their questions, and how to split them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.datasets.png import palette_png
from evalkit.datasets.stream import Stream
from evalkit.records import Answer

SPLITS = ("train", "test")
# The 80/20 split takes one image of every block of five for the test.
BLOCK = 5


@dataclass(frozen=True, slots=True)
class Question:
    """One question on a picture. `geometry` and a spatial gold are in pixels of the picture."""

    gold: Answer
    stratum: str
    variables: Mapping[str, Any]
    geometry: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Picture:
    """index: (H, W) uint8 into palette_rgb: (n, 3) uint8, n <= 256."""

    index: NDArray[np.uint8]
    palette_rgb: NDArray[np.uint8]
    questions: tuple[Question, ...]

    @property
    def pixels_rgb(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8, as the file decodes."""
        pixels: NDArray[np.uint8] = self.palette_rgb[self.index]
        return pixels

    @property
    def png(self) -> bytes:
        return palette_png(self.index, self.palette_rgb)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A synthetic data set as functions of (seed, index)."""

    name: str
    version: int  # raised whenever the same (seed, index) gives other pixels, questions or splits
    paper_images: int  # how many images the set has by default
    draw: Callable[[int, int], Picture]
    # index -> (class, rank within the class); a function of the index, so that a smaller set is a
    # prefix of a larger one
    place: Callable[[int], tuple[str, int]]
    describe: Callable[[Mapping[str, int]], str]  # images per class -> words for the summary line
    source: str

    def split(self, seed: int, index: int) -> str:
        """train or test: within each class one image of every block of five, chosen by the seed, is test."""
        label, rank = self.place(index)
        test = Stream(seed, self.name, "split", label, rank // BLOCK).below(BLOCK)
        return "test" if rank % BLOCK == test else "train"
