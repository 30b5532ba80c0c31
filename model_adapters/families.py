"""How each family lays out a prompt and an image: chat messages, visual tokens, pixel <-> token maps.

The class variables that all families have:
    model_type, architecture  of its config.json and in transformers; several families may share them
    image_token               the placeholder of one image in a prompt
    system                    the line before the chat, None where the chat template has its own
    before_answer             what stands between the prompt's end and an answer
    layouts                   how an image can be made square; the first is the family's own
    marks                     tokens of a reply that are no words, see `spoken`

Qwen2.5-VL resizes an image to multiples of 28 px and makes one visual token of every 28 x 28 px.
LLaVA-1.5 pads it to a square (or crops the middle), resizes that to 336 x 336 and makes one token of every
14 x 14 px. Both read the tokens row by row. Points are continuous pixels of the original image, as elsewhere.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.errors import AdapterError, ConfigError
from evalkit.frames import QWEN_FACTOR, QWEN_MAX_PIXELS, QWEN_MIN_PIXELS, smart_resize

Message = dict[str, Any]  # {"role": ..., "content": [{"type": "image"} | {"type": "text", "text": ...}]}


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """The visual tokens of one image, row-major, and where they lie in the original image.

    Token units of a point: u = x * scale_xy[0] + offset_xy[0], v likewise for y; token (row, col)
    covers u in [col, col + 1), v in [row, row + 1).
    """

    rows: int
    cols: int
    scale_xy: tuple[float, float]  # tokens per pixel
    offset_xy: tuple[float, float] = (0.0, 0.0)  # tokens left of and above the image; negative: cropped away

    def __len__(self) -> int:
        return self.rows * self.cols

    def token_units(self, points_xy_px: ArrayLike) -> NDArray[np.float64]:
        """(..., 2) pixels (x, y) -> (..., 2) float64 token units (u, v), not clamped."""
        points = np.asarray(points_xy_px, np.float64)
        return np.asarray(points * self.scale_xy + np.asarray(self.offset_xy), np.float64)

    @property
    def extent_xyxy(self) -> tuple[float, float, float, float]:
        """What the tokens cover, in pixels: beyond the image where it is padded, less where it is cropped."""
        (sx, sy), (ox, oy) = self.scale_xy, self.offset_xy
        return (0 - ox) / sx, (0 - oy) / sy, (self.cols - ox) / sx, (self.rows - oy) / sy

    def token_of(self, points_xy_px: ArrayLike) -> NDArray[np.int64]:
        """(..., 2) pixels -> (...) int64 token index; points on or beyond the border go to the nearest."""
        units = np.floor(self.token_units(points_xy_px)).astype(np.int64)
        cols = np.clip(units[..., 0], 0, self.cols - 1)
        rows = np.clip(units[..., 1], 0, self.rows - 1)
        return np.asarray(rows * self.cols + cols, np.int64)

    def centre_of(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """(...) token index -> (..., 2) centre in pixels; outside the image for a token of padding."""
        row, col = np.divmod(np.asarray(tokens, np.int64), self.cols)
        centre_uv = np.stack([col, row], axis=-1) + 0.5
        return np.asarray((centre_uv - np.asarray(self.offset_xy)) / self.scale_xy, np.float64)


@dataclass(frozen=True, slots=True)
class Qwen25VL:
    """Qwen2.5-VL. The limits are those of the checkpoint's image processor, areas in pixels."""

    name: ClassVar[str] = "qwen2_5_vl"
    model_type: ClassVar[str] = "qwen2_5_vl"
    architecture: ClassVar[str] = "Qwen2_5_VLForConditionalGeneration"
    image_token: ClassVar[str] = "<|image_pad|>"
    system: ClassVar[str | None] = None  # its chat template has the default line
    before_answer: ClassVar[str] = ""
    layouts: ClassVar[tuple[str, ...]] = ("pad",)  # nothing to choose: it is not made square
    marks: ClassVar[tuple[str, ...]] = ()
    min_pixels: int = QWEN_MIN_PIXELS
    max_pixels: int = QWEN_MAX_PIXELS
    factor: int = QWEN_FACTOR  # patch 14 px, merged 2 x 2

    def grid(self, image_size_wh: tuple[int, int]) -> TokenGrid:
        w, h = smart_resize(image_size_wh, self.factor, self.min_pixels, self.max_pixels)
        rows, cols = h // self.factor, w // self.factor
        return TokenGrid(rows, cols, (cols / image_size_wh[0], rows / image_size_wh[1]))


@dataclass(frozen=True, slots=True)
class Llava:
    """LLaVA-1.5: `pad`, the square of its training, or `crop`, the center crop of the Hub's processor.

    pad:  the smaller half first, (side - width) // 2 px on the left, likewise on top.
    crop: the shorter side is resized to image_size, and the middle of the longer one is kept; points
          beyond it get token units outside of [0, tokens).
    """

    name: ClassVar[str] = "llava"
    model_type: ClassVar[str] = "llava"
    architecture: ClassVar[str] = "LlavaForConditionalGeneration"
    image_token: ClassVar[str] = "<image>"
    # The line it was trained with (LLaVA's `vicuna_v1` conversation); the Hub's chat template leaves it out.
    system: ClassVar[str | None] = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )
    before_answer: ClassVar[str] = " "  # its prompt ends in "ASSISTANT:"
    layouts: ClassVar[tuple[str, ...]] = ("pad", "crop")
    marks: ClassVar[tuple[str, ...]] = ()
    image_size: int = 336
    patch_size: int = 14
    layout: Literal["pad", "crop"] = "pad"

    def grid(self, image_size_wh: tuple[int, int]) -> TokenGrid:
        width, height = image_size_wh
        tokens = self.image_size // self.patch_size
        if self.layout == "crop":
            return self._cropped(width, height, tokens)
        side = max(width, height)
        scale = tokens / side
        offset_xy = ((side - width) // 2 * scale, (side - height) // 2 * scale)
        return TokenGrid(tokens, tokens, (scale, scale), offset_xy)

    def _cropped(self, width: int, height: int, tokens: int) -> TokenGrid:
        """The processor's own rounding: the longer side is cut to whole pixels, so is the margin."""
        short = min(width, height)
        resized_wh = [int(self.image_size * side / short) for side in (width, height)]
        margin_xy = [(side - self.image_size) // 2 for side in resized_wh]
        return TokenGrid(
            tokens,
            tokens,
            (resized_wh[0] / width / self.patch_size, resized_wh[1] / height / self.patch_size),
            (-margin_xy[0] / self.patch_size, -margin_xy[1] / self.patch_size),
        )


@dataclass(frozen=True, slots=True)
class Glamm(Llava):
    """GLaMM's text path, a LLaVA-1.5 once it is converted (see glamm.py): center crop, own prompt.

    It was trained to wrap phrases in <p> ... </p> and to write [SEG] where a mask belongs.
    """

    name: ClassVar[str] = "glamm"
    # Its `llava_v1` conversation: that of LLaVA-1.5, but of a human.
    system: ClassVar[str | None] = (
        "A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions."
    )
    layouts: ClassVar[tuple[str, ...]] = ("crop",)
    marks: ClassVar[tuple[str, ...]] = ("<p>", "</p>", "[SEG]")
    layout: Literal["pad", "crop"] = "crop"


Family = Qwen25VL | Llava | Glamm
FAMILIES: Mapping[str, type[Family]] = {kind.name: kind for kind in (Qwen25VL, Llava, Glamm)}


def family_class(name: str) -> type[Family]:
    """The layout of a family. Raises ConfigError with the known names."""
    if name not in FAMILIES:
        raise ConfigError(f"No local family named {name!r}. Known families: {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def messages(family: Family | type[Family], text: str) -> list[Message]:
    """One image and one question as chat messages, in the form the checkpoints' chat templates read."""
    system = (
        [{"role": "system", "content": [{"type": "text", "text": family.system}]}] if family.system else []
    )
    return [*system, {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]


def spoken(family: Family | type[Family], text: str) -> str:
    """A decoded reply in words alone: the family's marks give way to one space. Without marks it stays as it is."""
    if not any(mark in text for mark in family.marks):
        return text
    marks = "|".join(re.escape(mark) for mark in family.marks)
    return re.sub(rf"(?: *(?:{marks}))+ *", " ", text).strip()


def expand_placeholder(input_ids: Sequence[int], image_token_id: int, n_visual: int) -> list[int]:
    """Replace the one image placeholder of a tokenized prompt by n_visual of them.

    Raises AdapterError on any other count: a question that spells the placeholder out would
    otherwise shift every visual token.
    """
    found = list(input_ids).count(image_token_id)
    if found != 1:
        raise AdapterError(
            f"The prompt holds {found} image placeholders (token {image_token_id}) where 1 is needed: "
            "the question must not spell the model's image token, and the chat template must place it."
        )
    at = list(input_ids).index(image_token_id)
    return [*input_ids[:at], *[image_token_id] * n_visual, *input_ids[at + 1 :]]


def visual_positions(input_ids: ArrayLike, image_token_id: int) -> NDArray[np.int64]:
    """(S,) token ids of one prompt -> (V,) int64 positions of its visual tokens, in grid order."""
    return np.flatnonzero(np.asarray(input_ids) == image_token_id)
