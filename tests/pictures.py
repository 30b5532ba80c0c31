"""Small pictures with a question each, for the tests of models that run here."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from evalkit.records import Prompt

TEXTS = (
    "Where is it?",
    "How many times do the blue and red lines touch each other?",
    "Is node A connected to node C?",
    "Where is the red square? " * 9,
)
SIZES_WH = ((120, 120), (640, 480), (90, 400), (900, 60), (28, 28), (333, 500))


def picture(path: Path, size_wh: tuple[int, int], seed: int) -> None:
    """A rectangle on a plain ground; colours and place by the seed."""
    image = Image.new("RGB", size_wh, ("white", "navy", "khaki")[seed % 3])
    width, height = size_wh
    box = (seed % 5 * width // 8, height // 4, width // 2 + seed, height - 2)
    ImageDraw.Draw(image).rectangle(box, fill=("red", "green", "black", "orange")[seed % 4])
    image.save(path)


def make_prompts(
    folder: Path,
    n: int = 24,
    *,
    texts: Sequence[str] = TEXTS,
    sizes_wh: Sequence[tuple[int, int]] = SIZES_WH,
    max_new_tokens: int = 24,
) -> list[Prompt]:
    """n prompts whose texts and sizes come round at different paces, so that many pairs occur."""
    made = []
    for i in range(n):
        size_wh, path = sizes_wh[i % len(sizes_wh)], folder / f"{i}.png"
        picture(path, size_wh, i)
        text = texts[i % len(texts) if i < n // 2 else i * len(texts) // n]
        made.append(Prompt(f"s{i}", text, path, size_wh, max_new_tokens, "0"))
    return made
