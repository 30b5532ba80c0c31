"""All of a local checkpoint but its weights: where it is, its config, its inputs, what ends its replies.

For engines that load the weights themselves. What they are given is made here, so that they see the same
token ids and the same pixels as transformers does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evalkit.errors import AdapterError, Unavailable
from evalkit.records import Prompt, Reply
from model_adapters.families import Qwen25VL, family_class, spoken
from model_adapters.local_inputs import InputMaker, loading
from model_adapters.lora import ADAPTER_FILE, base_of, is_adapter


class SizedInputs(InputMaker):
    """An InputMaker whose images are of the size the vision tower takes.

    Engines resize by torchvision, transformers' PIL backend by PIL; they differ by a grey level in places.
    An image that has its size already is left as it is by both.
    """

    def sized_image(self, prompt: Prompt) -> Image.Image:
        """The picture after the image processor's resize and crop, RGB uint8. Raises AdapterError."""
        image = self.image(prompt)
        if isinstance(self.family, Qwen25VL):
            grid, factor = self.family.grid(prompt.image_size_wh), self.family.factor
            size_wh = grid.cols * factor, grid.rows * factor
            again = self.family.grid(size_wh)
            if (again.rows, again.cols) != (grid.rows, grid.cols):
                return image  # so narrow that the limits are missed: it would be resized once more
            return image.resize(size_wh, Image.Resampling.BICUBIC)
        made = self._images(images=[image], do_rescale=False, do_normalize=False, return_tensors="np")
        return Image.fromarray(np.asarray(made["pixel_values"][0], np.uint8).transpose(1, 2, 0))


@dataclass(frozen=True, slots=True)
class OpenCheckpoint:
    """name: what replies carry; source: folder or Hub id of the whole model, with adapter the base's.

    adapter: the folder of a LoRA adapter on that base, or None.
    eos_ids: the tokens that end a reply, as the checkpoint's generation config lists them.
    """

    name: str
    source: str
    adapter: str | None
    revision: str | None
    config: Any
    maker: SizedInputs
    eos_ids: frozenset[int]

    @property
    def limits(self) -> dict[str, int]:
        """min_pixels and max_pixels of Qwen2.5-VL's resize; nothing for other families."""
        family = self.maker.family
        return {name: getattr(family, name) for name in ("min_pixels", "max_pixels") if hasattr(family, name)}

    def described(self) -> dict[str, str]:
        """The part of an adapter's describe() that every engine shares."""
        family = self.maker.family
        layout = {"layout": str(family.layout)} if hasattr(family, "layout") else {}
        limits = {name: str(value) for name, value in self.limits.items()}
        name = f"{self.name}@{self.revision}" if self.revision else self.name
        return {"checkpoint": name, **limits, **layout}

    def reply(self, prompt: Prompt, n_input: int, new: Sequence[int], latency_s: float) -> Reply:
        """The reply in `new` tokens, of which an EOS is the last; output_tokens counts it, as servers do."""
        end = next((i for i, token in enumerate(new) if token in self.eos_ids), None)
        text = self.maker.tokenizer.decode(
            list(new[:end]), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Reply(
            sample_id=prompt.sample_id,
            text=spoken(self.maker.family, text),
            finish_reason="length" if end is None else "stop",
            latency_s=latency_s,
            usage={"input_tokens": n_input, "output_tokens": len(new) if end is None else end + 1},
            answered_by=self.name,
        )

    def failed(self, prompt: Prompt, error: str) -> Reply:
        return Reply(prompt.sample_id, None, "error", 0.0, answered_by=self.name, error=error)


def open_checkpoint(
    checkpoint: str | Path,
    family: str,
    *,
    revision: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    layout: str | None = None,
    trust_remote_code: bool = False,
) -> OpenCheckpoint:
    """Read everything but the weights. Raises Unavailable for what is not there, AdapterError, ConfigError.

    checkpoint: a folder (whole model or LoRA adapter) or a Hub id.
    min_pixels, max_pixels, layout: as of HfLocal.
    """
    source, name = located(checkpoint)
    family_type = family_class(family)
    transformers = import_module("transformers")
    hub = {"revision": revision, "trust_remote_code": trust_remote_code}
    adapter = source if is_adapter(source) else None
    source = base_of(source) if adapter else source
    with loading(name, "config"):
        config = transformers.AutoConfig.from_pretrained(source, **hub)
    if config.model_type not in (family, getattr(family_type, "model_type", family)):
        raise AdapterError(f"{name}: config.json says {config.model_type!r}, asked for as {family!r}.")
    limits = {k: v for k, v in (("min_pixels", min_pixels), ("max_pixels", max_pixels)) if v is not None}
    maker = SizedInputs(source, family_type, config, limits, hub, layout)
    eos_ids = _eos_ids(transformers, source, config, hub) or frozenset({maker.eos_token_id})
    return OpenCheckpoint(name, source, adapter, revision, config, maker, eos_ids)


def located(checkpoint: str | Path) -> tuple[str, str]:
    """What transformers loads, and the name that replies carry. Raises Unavailable for a missing folder."""
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("config.json", ADAPTER_FILE)):
            raise Unavailable(f"{folder} holds no config.json: not a checkpoint that can be loaded.")
        return str(folder), folder.name
    text = str(checkpoint)
    if isinstance(checkpoint, Path) or text.count("/") != 1 or text[0] in "./~":
        raise Unavailable(
            f"No checkpoint folder {text}. Expected a folder with config.json, or a Hub id owner/name."
        )
    return text, text


def _eos_ids(transformers: Any, source: str, config: Any, hub: Mapping[str, Any]) -> frozenset[int]:
    """Of generation_config.json; of the model's config where there is none, as transformers does."""
    try:
        stored = transformers.GenerationConfig.from_pretrained(source, **hub)
    except OSError:
        stored = transformers.GenerationConfig.from_model_config(config)
    eos = stored.eos_token_id
    return frozenset() if eos is None else frozenset([eos] if isinstance(eos, int) else eos)
