"""A checkpoint on this machine through transformers: greedy, in batches of about equal length.

A batch answers what its prompts would alone: padding stands on the left, is masked, and never moves
a position. That is exact to the token in float32; in half precision rounding may tip a near tie.
Latencies are a batch's time divided by its size.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.errors import AdapterError, ConfigError
from model_adapters.batching import BatchedModel
from model_adapters.checkpoint_inputs import located
from model_adapters.families import Llava, family_class, spoken
from model_adapters.local_inputs import InputMaker, ModelInput, loading
from model_adapters.local_weights import DTYPES, device_of, load_model, packages
from model_adapters.lora import base_of, is_adapter, with_adapter


class HfLocal(BatchedModel):
    """Replies of a local model. `replies` yields batch by batch, the longest prompts first.

    checkpoint: a folder or a Hub id; revision: a commit of the Hub.
    dtype:      auto (as stored) | float32 | bfloat16 | float16.
    device:     auto (CUDA where there is one, else the CPU) or a torch device.
    min_pixels, max_pixels: limits of Qwen2.5-VL's resize that replace the checkpoint's; the model's
                declared frame must state the same.
    layout:     how LLaVA makes an image square: pad, as in its training (the default), or crop; GLaMM crops.

    model, maker, device: the loaded model, its inputs' maker and where it stands, for probes.
    """

    maker: InputMaker

    def __init__(
        self,
        checkpoint: str | Path,
        family: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        batch_size: int = 8,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        layout: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        source, name = located(checkpoint)
        family_type = family_class(family)
        if dtype not in DTYPES:
            raise ConfigError(f"{name}: no dtype {dtype!r}. Allowed: {', '.join(DTYPES)}.")
        torch, transformers = packages()
        on = device_of(torch, device)
        hub = {"revision": revision, "trust_remote_code": trust_remote_code}
        adapter = source if is_adapter(source) else None
        source = base_of(source) if adapter else source
        with loading(name, "config"):
            config = transformers.AutoConfig.from_pretrained(source, **hub)
        if config.model_type != family_type.model_type:
            raise AdapterError(f"{name}: config.json says {config.model_type!r}, asked for as {family!r}.")
        limits = {k: v for k, v in (("min_pixels", min_pixels), ("max_pixels", max_pixels)) if v is not None}
        maker = InputMaker(source, family_type, config, limits, hub, layout)
        model_class = getattr(transformers, family_type.architecture)
        model = load_model(model_class, source, name, {"dtype": dtype, **hub})
        model = with_adapter(model, adapter) if adapter else model
        super().__init__(
            torch,
            model.to(on),
            maker,
            name=name,
            revision=revision,
            batch_size=batch_size,
            eos_ids=_decode_greedily(transformers, model, maker),
        )

    def _settings(self) -> Mapping[str, str]:
        family = self.maker.family
        limits = {k: str(getattr(family, k)) for k in ("min_pixels", "max_pixels") if hasattr(family, k)}
        return limits | ({"layout": family.layout} if isinstance(family, Llava) else {})

    def _text(self, answer: Sequence[int]) -> str:
        return spoken(self.maker.family, super()._text(answer))

    def _generate(self, items: Sequence[ModelInput]) -> list[list[int]]:
        """New tokens of each item, up to max_new_tokens; after an EOS they are padding."""
        batch = {name: tensor.to(self.device) for name, tensor in self.maker.collate(items).items()}
        batch["pixel_values"] = batch["pixel_values"].to(self.model.dtype)
        with self._torch.inference_mode():
            out = self.model.generate(**batch, max_new_tokens=items[0].prompt.max_new_tokens)
        new: list[list[int]] = out[:, batch["input_ids"].shape[1] :].tolist()
        return new


def _decode_greedily(transformers: Any, model: Any, maker: InputMaker) -> frozenset[int]:
    """Replace the checkpoint's decoding settings, of which the Hub's differ; returns its EOS ids."""
    stored = model.generation_config
    eos = stored.eos_token_id if stored.eos_token_id is not None else maker.tokenizer.eos_token_id
    ids = [eos] if isinstance(eos, int) else list(eos)
    model.generation_config = transformers.GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        bos_token_id=stored.bos_token_id,
        eos_token_id=ids,
        pad_token_id=maker.pad_token_id,
    )
    return frozenset(ids)
