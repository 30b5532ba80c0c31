"""Molmo through transformers: its model and its processor are Python files of the checkpoint, run only on request.

They were written for transformers 4. What transformers 5 needs is added here, without touching them: the model is
subclassed (no tied weights to list, a `tie_weights` that takes arguments), and answers are decoded greedily by a
loop of our own over the (key, value) pairs that it returns, since it has no `generate` of version 5. Its processor
needs tensorflow for a resize, which model_adapters.molmo_resize replaces, and einops and torchvision, which must be
installed. The prompt is the processor's: ` User: {question} Assistant:` behind the image.

vLLM has a model of its own (MolmoForCausalLM), which calls the checkpoint's processor in its own processes. evalkit
does not run it there: without the released processor the prompts could not be compared with what transformers is
given.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import AdapterError, ConfigError, Unavailable
from evalkit.records import Prompt
from model_adapters.batching import BatchedModel
from model_adapters.checkpoint_inputs import located
from model_adapters.local_inputs import Encoded, loading, open_rgb
from model_adapters.local_weights import DTYPES, device_of, load_model, packages
from model_adapters.molmo_resize import has_tensorflow, resize_at_hand

MODEL_TYPE = "molmo"
_PAD = -1  # of ids, crops, masks and indices alike, as in its training


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt, ready to be collated: T crops of N patches of D values, P visual tokens a crop.

    images: (T, N, D) float32; masks: (T, N) float32, the share of a patch that is image, or None;
    places: (T, P) int64, where in input_ids a visual token is added, negative for nowhere.
    """

    prompt: Prompt
    input_ids: list[int]
    images: NDArray[np.float32]
    masks: NDArray[np.float32] | None
    places: NDArray[np.int64]


class Molmo(BatchedModel):
    """Replies of a Molmo checkpoint (allenai/Molmo-7B-D-0924 and its kin, not Molmo2).

    checkpoint: a folder or a Hub id; revision: a commit of the Hub, which pins the code too.
    dtype:      auto (as stored, which is float32 on the Hub) | float32 | bfloat16 | float16.
    device:     auto (CUDA where there is one, else the CPU) or a torch device.
    trust_remote_code: let the checkpoint's Python files run; without it the model is Unavailable.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        batch_size: int = 1,
        trust_remote_code: bool = False,
    ) -> None:
        source, name = located(checkpoint)
        if dtype not in DTYPES:
            raise ConfigError(f"{name}: no dtype {dtype!r}. Allowed: {', '.join(DTYPES)}.")
        self._code = _code_of(source, name)
        if not trust_remote_code:
            raise Unavailable(
                f"{name}: loading it runs Python files of {self._code} on this machine; read them, then allow it "
                "with --trust-remote-code."
            )
        torch, transformers = packages()
        on = device_of(torch, device)
        model_class = _model_class(transformers, source, name, revision)
        maker = InputMaker(transformers, source, revision)
        model = load_model(model_class, source, name, {"dtype": dtype, "revision": revision})
        super().__init__(
            torch,
            model.to(on),
            maker,
            name=name,
            revision=revision,
            batch_size=batch_size,
            eos_ids=frozenset([int(maker.tokenizer.eos_token_id)]),
        )

    def _generate(self, items: Sequence[Item]) -> list[list[int]]:
        """Greedy decoding; rows end on their own and are padded with what they would have said."""
        with self._torch.inference_mode():
            batch = {name: tensor.to(self.device) for name, tensor in self.maker.collate(items).items()}
            batch["images"] = batch["images"].to(self.model.dtype)
            return self._decode(batch, items[0].prompt.max_new_tokens)

    def _decode(self, batch: Mapping[str, Any], max_new_tokens: int) -> list[list[int]]:
        torch = self._torch
        mask = batch["input_ids"] != _PAD  # (B, S)
        lengths = mask.sum(dim=1)
        inputs: dict[str, Any] = {
            **batch,
            "position_ids": (mask.cumsum(dim=1) - 1).clamp_min(0),
            "append_last_valid_logits": lengths - 1,  # padding stands on the right
        }
        ends = torch.tensor(sorted(self._eos_ids), device=mask.device)
        ended = torch.zeros_like(lengths, dtype=torch.bool)
        new: list[Any] = []
        for step in range(max_new_tokens):
            out = self.model(
                **inputs, attention_mask=mask, use_cache=True, last_logits_only=True, return_dict=True
            )
            token = out.logits[:, -1].argmax(dim=-1)  # (B,)
            new.append(token)
            ended |= torch.isin(token, ends)
            if ended.all():
                break
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            inputs = {
                "input_ids": token[:, None],
                "position_ids": (lengths + step)[:, None],
                "past_key_values": out.past_key_values,
            }
        rows: list[list[int]] = torch.stack(new, dim=1).tolist()
        return rows

    def _text(self, answer: Sequence[int]) -> str:
        return super()._text(answer).strip()  # it begins with the space behind "Assistant:"

    def _settings(self) -> Mapping[str, str]:
        code = Path(self._code).name if Path(self._code).is_dir() else self._code
        return {"code": code, "resize": "tensorflow" if has_tensorflow() else "torch"}


class InputMaker:
    """The checkpoint's own processor."""

    def __init__(self, transformers: Any, source: str, revision: str | None) -> None:
        with loading(source, "processor"), resize_at_hand():
            self._processor = transformers.AutoProcessor.from_pretrained(
                source, revision=revision, trust_remote_code=True
            )
        self.tokenizer = self._processor.tokenizer

    def encode(self, prompt: Prompt) -> Encoded:
        """The text's tokens; how many the image makes is known once it is open."""
        text = f" User: {prompt.text} Assistant:"
        return Encoded(prompt, list(self.tokenizer.encode(text, add_special_tokens=False)))

    def load(self, encoded: Encoded) -> Item:
        """Open the image and let the processor cut it into crops. Raises AdapterError."""
        prompt = encoded.prompt
        # as an array: from a PIL image it would read the EXIF orientation and turn it
        pixels = np.asarray(open_rgb(prompt.image_path, prompt.image_size_wh))
        with resize_at_hand():
            made = self._processor.process(images=[pixels], text=prompt.text)
        ids = [int(token) for token in made["input_ids"]]
        if ids[-len(encoded) :] != encoded.input_ids:
            raise AdapterError(
                f"{prompt.sample_id}: the checkpoint's processor does not end the prompt in "
                f"' User: {{question}} Assistant:': it is not one of Molmo's that this adapter knows."
            )
        masks = made.get("image_masks")
        return Item(
            prompt,
            ids,
            np.asarray(made["images"], np.float32),
            None if masks is None else np.asarray(masks, np.float32),
            np.asarray(made["image_input_idx"], np.int64),
        )

    def collate(self, items: Sequence[Item]) -> dict[str, Any]:
        """CPU tensors of a batch, padded behind with -1: input_ids (B, S), images (B, T, N, D), ..."""
        import torch

        columns: dict[str, list[NDArray[Any]]] = {
            "input_ids": [np.asarray(item.input_ids, np.int64) for item in items],
            "images": [item.images for item in items],
            "image_input_idx": [item.places for item in items],
        }
        masks = [item.masks for item in items if item.masks is not None]
        if masks:
            columns["image_masks"] = list(masks)
        return {name: torch.from_numpy(_stacked(rows)) for name, rows in columns.items()}


def _stacked(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Arrays that differ in their first axis, padded behind to the longest: (B, longest, ...)."""
    longest = max(len(row) for row in rows)
    made = np.full((len(rows), longest, *rows[0].shape[1:]), _PAD, rows[0].dtype)
    for i, row in enumerate(rows):
        made[i, : len(row)] = row
    return made


def _code_of(source: str, name: str) -> str:
    """Whose Python files a checkpoint runs: its own, or those of the repositories that its config names."""
    path = Path(source) / "config.json"
    if not path.is_file():
        return source  # a Hub id
    with loading(name, "config"):
        files = json.loads(path.read_text(encoding="utf-8")).get("auto_map", {}).values()
    others = {entry.split("--")[0] for entry in files if "--" in entry}
    return ", ".join(sorted(others)) or source


def _model_class(transformers: Any, source: str, name: str, revision: str | None) -> Any:
    """The checkpoint's model class, with what transformers 5 expects of one. Raises AdapterError."""
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    with loading(name, "config"):
        config, _ = transformers.PreTrainedConfig.get_config_dict(source, revision=revision)
    if config.get("model_type") != MODEL_TYPE:
        raise AdapterError(
            f"{name}: config.json says {config.get('model_type')!r}, asked for as {MODEL_TYPE!r}."
        )
    entry = config.get("auto_map", {}).get("AutoModelForCausalLM")
    if entry is None:
        raise AdapterError(f"{name}: config.json names no code for AutoModelForCausalLM in its auto_map.")
    with loading(name, "model code"), resize_at_hand():
        released = get_class_from_dynamic_module(entry, source, revision=revision)

    class Here(released):  # type: ignore[misc,valid-type]  # known when it runs
        all_tied_weights_keys: Mapping[
            str, str
        ] = {}  # transformers 5 asks for them; Molmo ties in its forward

        def tie_weights(self, *args: Any, **settings: Any) -> None:
            """Version 5 passes arguments that the released method does not take."""

    Here.__name__ = released.__name__
    return Here
