"""Prompt -> the tensors of a local checkpoint: its own chat template, tokenizer and image processor.

The combined processors of transformers need torchvision for video, which we never show; so the image
placeholder is expanded here to as many visual tokens as the image has (see families.py).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evalkit.errors import AdapterError, ConfigError, Unavailable
from evalkit.records import Prompt
from model_adapters.families import Family, Glamm, Llava, Qwen25VL, expand_placeholder, messages


@dataclass(frozen=True, slots=True)
class Encoded:
    """A tokenized prompt whose image is still on disk."""

    prompt: Prompt
    input_ids: list[int]  # image placeholder expanded

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One prompt, ready to be collated.

    pixel_values: float32; LLaVA (3, S, S), Qwen2.5-VL (patches, 3 * 2 * 14 * 14).
    grid_thw:     Qwen2.5-VL's (1, rows, cols) in patches before merging; None for LLaVA.
    """

    prompt: Prompt
    input_ids: list[int]
    pixel_values: NDArray[np.float32]
    grid_thw: tuple[int, int, int] | None


@contextmanager
def loading(checkpoint: str, what: str) -> Iterator[None]:
    """Turn the many-line failures of transformers into one: missing, damaged or unreachable files."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split("\n", 1)[0].split()).rstrip(".:")
        kind = Unavailable if isinstance(error, OSError | ImportError) else AdapterError
        raise kind(
            f"{checkpoint}: its {what} cannot be loaded ({type(error).__name__}: {reason}). "
            "Check the folder or Hub id and, for the Hub, the network."
        ) from error


# Of data sets. None of them starts another program, as PostScript does.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def open_rgb(path: Path, image_size_wh: tuple[int, int]) -> Image.Image:
    """The image as RGB, not turned by EXIF: annotations are in stored pixels. Raises AdapterError."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            # a palette with transparency as bytes must pass through RGBA
            rgb = (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise AdapterError(f"{path}: the image cannot be opened ({' '.join(str(error).split())}).") from None
    if rgb.size != tuple(image_size_wh):
        raise AdapterError(
            f"{path}: the image is {rgb.width} x {rgb.height} px, its sample says "
            f"{image_size_wh[0]} x {image_size_wh[1]}; coordinates would be wrong. Build the data set again."
        )
    return rgb


def pad_to_square(image: Image.Image, background_rgb: tuple[int, int, int]) -> Image.Image:
    """LLaVA's training layout: the content centred in a square of the longer side."""
    side = max(image.size)
    if image.size == (side, side):
        return image
    square = Image.new("RGB", (side, side), background_rgb)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


class InputMaker:
    """Tokenizer, image processor and layout of one checkpoint."""

    def __init__(
        self,
        checkpoint: str,
        family: type[Family],
        config: Any,
        limits: Mapping[str, int],
        hub: Mapping[str, Any],
        layout: str | None = None,
    ) -> None:
        """limits: min_pixels, max_pixels that replace the checkpoint's; hub: revision, trust_remote_code.

        layout: one of the family's `layouts`, the first of them unless given.
        """
        transformers = import_module("transformers")  # by name: typed Any, installed or not

        if limits and family is not Qwen25VL:
            raise ConfigError(
                f"{checkpoint}: min_pixels and max_pixels are for {Qwen25VL.name}, not {family.name}."
            )
        _require_converted(checkpoint, family, config)
        with loading(checkpoint, "tokenizer"):
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint, **hub)
            self._chat_template = self.tokenizer.chat_template or _legacy_chat_template(checkpoint, hub)
        if absent := [mark for mark in family.marks if mark not in self.tokenizer.get_vocab()]:
            raise AdapterError(
                f"{checkpoint}: its tokenizer has no {absent[0]}: not a {family.name} checkpoint."
            )
        with loading(checkpoint, "image processor"):
            # the PIL backend everywhere: the same pixels with and without torchvision
            self._images = transformers.AutoImageProcessor.from_pretrained(
                checkpoint, backend="pil", **limits, **hub
            )
        self.family = _layout(checkpoint, family, config, self._images, layout or family.layouts[0])
        self.image_token_id = int(self.tokenizer.convert_tokens_to_ids(self.family.image_token))

    def encode(self, prompt: Prompt) -> Encoded:
        """Tokenize, with the visual tokens that the declared image size makes. Raises EvalkitError."""
        n_visual = len(self.family.grid(prompt.image_size_wh))
        return Encoded(prompt, expand_placeholder(self.bare_ids(prompt), self.image_token_id, n_visual))

    def bare_ids(self, prompt: Prompt) -> list[int]:
        """The chat as token ids with one image placeholder, not expanded yet: what vLLM takes."""
        return self._tokenize(self._chat(prompt))

    def answer_ids(self, prompt: Prompt, answer: str, *, end: bool = True) -> list[int]:
        """The tokens of an answer where it follows its prompt, and the EOS with `end`. Raises AdapterError.

        Tokenized together with the prompt, as the model meets them; a tokenizer that joins the two into
        one token would train what generation never sees.
        """
        chat = self._chat(prompt)
        before = self._tokenize(chat)
        whole = self._tokenize(chat + self.family.before_answer + answer)
        if whole[: len(before)] != before or len(whole) == len(before):
            raise AdapterError(
                f"{prompt.sample_id}: the answer {answer!r} does not follow the prompt as tokens of its own."
            )
        return [*whole[len(before) :], *([self.eos_token_id] if end else [])]

    def _chat(self, prompt: Prompt) -> str:
        text: str = self.tokenizer.apply_chat_template(
            messages(self.family, prompt.text),
            chat_template=self._chat_template,
            tokenize=False,
            add_generation_prompt=True,
        )
        return text

    def _tokenize(self, text: str) -> list[int]:
        # a template may write the BOS itself; LLaVA's leaves it to the tokenizer
        bos = self.tokenizer.bos_token
        ids: list[int] = self.tokenizer(text, add_special_tokens=not (bos and text.startswith(bos))).input_ids
        return ids

    def load(self, encoded: Encoded) -> ModelInput:
        """Open and prepare the image of an encoded prompt. Raises EvalkitError."""
        prompt, image = encoded.prompt, self.image(encoded.prompt)
        made = self._images(images=[image], return_tensors="np")
        if isinstance(self.family, Llava):
            return ModelInput(prompt, encoded.input_ids, made["pixel_values"][0], None)
        t, rows, cols = (int(n) for n in made["image_grid_thw"][0])
        grid = self.family.grid(prompt.image_size_wh)
        merge = self._images.merge_size
        assert (rows // merge, cols // merge) == (grid.rows, grid.cols), (
            "the processor's grid is not the layout's"
        )
        return ModelInput(prompt, encoded.input_ids, made["pixel_values"], (t, rows, cols))

    def image(self, prompt: Prompt) -> Image.Image:
        """The picture that goes to the image processor, RGB; padded to a square where the layout says so."""
        image = open_rgb(prompt.image_path, prompt.image_size_wh)
        if isinstance(self.family, Llava) and self.family.layout == "pad":
            mean = self._images.image_mean
            image = pad_to_square(image, (int(mean[0] * 255), int(mean[1] * 255), int(mean[2] * 255)))
        return image

    def collate(self, items: Sequence[ModelInput]) -> dict[str, Any]:
        """Left-padded CPU tensors of a batch: input_ids, attention_mask (B, S) int64; pixels, grids."""
        import torch

        length = max(len(item.input_ids) for item in items)
        pad = self.pad_token_id
        rows = [[pad] * (length - len(item.input_ids)) + item.input_ids for item in items]
        mask = [[0] * (length - len(item.input_ids)) + [1] * len(item.input_ids) for item in items]
        batch = {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}
        pixels = [torch.from_numpy(np.ascontiguousarray(item.pixel_values)) for item in items]
        if isinstance(self.family, Llava):
            return {**batch, "pixel_values": torch.stack(pixels)}
        # Without the token types the model silently falls back from 2-D to plain positions.
        types = ((batch["input_ids"] == self.image_token_id) & batch["attention_mask"].bool()).long()
        grids = torch.tensor([item.grid_thw for item in items])
        return {
            **batch,
            "pixel_values": torch.cat(pixels),
            "image_grid_thw": grids,
            "mm_token_type_ids": types,
        }

    @property
    def eos_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_token_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)


def _legacy_chat_template(checkpoint: str, hub: Mapping[str, Any]) -> str:
    """The template of chat_template.json, which older repositories have and AutoTokenizer does not read."""
    path = import_module("transformers.utils").cached_file(
        checkpoint,
        "chat_template.json",
        revision=hub.get("revision"),
        _raise_exceptions_for_missing_entries=False,
    )
    if path is None:
        raise ValueError("no chat template: neither in its tokenizer nor as chat_template.json or .jinja")
    return str(json.loads(Path(path).read_text(encoding="utf-8"))["chat_template"])


def _require_converted(checkpoint: str, family: type[Family], config: Any) -> None:
    """Raises AdapterError for GLaMM as released: its config.json says "llava" but is not transformers'."""
    found = config.architectures or [family.architecture]
    if family is Glamm and family.architecture not in found:
        raise AdapterError(
            f"{checkpoint}: is of {found[0]}, in its makers' layout. Make a folder of it that can be run here: "
            f"evalkit convert glamm {checkpoint} OUT."
        )


def _layout(checkpoint: str, family: type[Family], config: Any, images: Any, layout: str) -> Family:
    """The layout with this checkpoint's numbers. Raises AdapterError where its files disagree."""
    if layout not in family.layouts:
        raise ConfigError(
            f"{checkpoint}: no layout {layout!r} of {family.name}. Allowed: {', '.join(family.layouts)}."
        )
    if family is Qwen25VL:
        return Qwen25VL(
            min_pixels=images.size["shortest_edge"],
            max_pixels=images.size["longest_edge"],
            factor=images.patch_size * images.merge_size,
        )
    vision = config.vision_config
    if config.vision_feature_select_strategy != "default":
        raise AdapterError(
            f"{checkpoint}: vision_feature_select_strategy is {config.vision_feature_select_strategy!r}; "
            "only 'default' (no CLS token) is supported."
        )
    side = images.crop_size["height"] if images.do_center_crop else images.size["height"]
    if side != vision.image_size:
        raise AdapterError(
            f"{checkpoint}: images are made {side} px wide, the vision tower takes {vision.image_size} px."
        )
    return family(vision.image_size, vision.patch_size, layout)  # type: ignore[arg-type]  # checked above
