"""InstructBLIP (Vicuna) through transformers, decoded as LAVIS decodes it: beams, and a penalty blind to the prompt.

Where the settings come from (salesforce/LAVIS, blip2_vicuna_instruct.py and projects/instructblip/qa_*_vicuna7b*.yaml):
`predict_answers`, which its question answering calls, asks "Question: {} Short Answer:", searches 5 beams with
length_penalty -1 (a sum of log probabilities *times* the length: short answers win) and takes repetition_penalty 1.5
from `generate`. All five tasks are questions with short answers, so these are the defaults; `generate` by itself,
for captions and descriptions, has length_penalty 1 and no format ("{}"). The length limit is the task's.

What LAVIS does by the way and transformers does not:
- Its language model is given embeddings alone, so the penalty sees generated tokens only. transformers passes the
  prompt's ids along, would punish each word of the question, Yes and No among them, and returns prompt + answer.
- An <unk> in an answer (token 0) is dropped; it is no special token there, as LAVIS renamed that to `</s>`.
- The Q-Former reads the last 128 tokens of the prompt; the language model reads all of it.
Questions are asked as they are: LAVIS's own text processor would lowercase them and strip their brackets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import AdapterError, ConfigError
from evalkit.records import Prompt
from model_adapters.batching import BatchedModel
from model_adapters.checkpoint_inputs import located
from model_adapters.families import expand_placeholder
from model_adapters.local_inputs import loading, open_rgb
from model_adapters.local_weights import DTYPES, device_of, load_model, packages

MODEL_TYPE = "instructblip"
VQA_FORMAT = "Question: {} Short Answer:"
_QFORMER_LENGTH = 128  # LAVIS: max_txt_len, with the text's beginning cut off


@dataclass(frozen=True, slots=True)
class Encoded:
    """A tokenized prompt whose image is still on disk."""

    prompt: Prompt
    input_ids: list[int]  # of the language model: visual tokens, BOS, text
    qformer_ids: list[int]

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt, ready to be collated. pixel_values: (3, S, S) float32, normalised."""

    prompt: Prompt
    input_ids: list[int]
    qformer_ids: list[int]
    pixel_values: NDArray[np.float32]


class InstructBlip(BatchedModel):
    """Replies of an InstructBLIP checkpoint with a decoder-only language model.

    checkpoint: a folder or a Hub id; revision: a commit of the Hub.
    dtype:      auto (as stored, which is float32 on the Hub) | float32 | bfloat16 | float16 (LAVIS's).
    device:     auto (CUDA where there is one, else the CPU) or a torch device.
    num_beams, repetition_penalty, length_penalty, prompt_format: see above; they change answers.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        batch_size: int = 8,
        num_beams: int = 5,
        repetition_penalty: float = 1.5,
        length_penalty: float = -1.0,
        prompt_format: str = VQA_FORMAT,
    ) -> None:
        source, name = located(checkpoint)
        _check_settings(name, dtype, num_beams, repetition_penalty, prompt_format)
        torch, transformers = packages()
        on = device_of(torch, device)
        with loading(name, "config"):
            config = transformers.AutoConfig.from_pretrained(source, revision=revision)
        _check_config(name, config)
        maker = InputMaker(transformers, source, config, revision, prompt_format)
        model_class = transformers.InstructBlipForConditionalGeneration
        model = load_model(model_class, source, name, {"dtype": dtype, "revision": revision})
        eos_id = int(maker.tokenizer.eos_token_id)
        super().__init__(
            torch,
            model.to(on),
            maker,
            name=name,
            revision=revision,
            batch_size=batch_size,
            eos_ids=frozenset([eos_id]),
        )
        self._prompt_format, self._penalty = prompt_format, float(repetition_penalty)
        self._penalty_class = transformers.RepetitionPenaltyLogitsProcessor
        self._num_beams, self._length_penalty = num_beams, float(length_penalty)
        # `generate` hands over to the language model, whose own settings would fill what is not given
        model.language_model.generation_config = transformers.GenerationConfig(
            do_sample=False,
            num_beams=num_beams,
            **({"length_penalty": self._length_penalty} if num_beams > 1 else {}),
            bos_token_id=maker.tokenizer.bos_token_id,
            eos_token_id=eos_id,
            pad_token_id=maker.pad_token_id,
        )

    def _generate(self, items: Sequence[Item]) -> list[list[int]]:
        batch = {name: tensor.to(self.device) for name, tensor in self.maker.collate(items).items()}
        batch["pixel_values"] = batch["pixel_values"].to(self.model.dtype)
        length = batch["input_ids"].shape[1]
        penalty = self._penalty_class(penalty=self._penalty, prompt_ignore_length=length)
        with self._torch.inference_mode():
            out = self.model.generate(
                **batch, max_new_tokens=items[0].prompt.max_new_tokens, logits_processor=[penalty]
            )
        new: list[list[int]] = out[:, length:].tolist()
        return new

    def _text(self, answer: Sequence[int]) -> str:
        unknown = self.maker.tokenizer.convert_tokens_to_ids("<unk>")
        return super()._text([token for token in answer if token != unknown]).strip()

    def _settings(self) -> Mapping[str, str]:
        return {
            "num_beams": str(self._num_beams),
            "repetition_penalty": str(self._penalty),
            "length_penalty": str(self._length_penalty),
            "prompt_format": self._prompt_format,
        }


class InputMaker:
    """Two tokenizers and the image processor of a checkpoint.

    Its combined processor expands the image in the same way, but needs torchvision and pads between the
    visual tokens and the text.
    """

    def __init__(
        self, transformers: Any, source: str, config: Any, revision: str | None, prompt_format: str
    ) -> None:
        hub = {"revision": revision}
        with loading(source, "tokenizer"):
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(source, **hub)
        with loading(source, "Q-Former tokenizer"):
            self._qformer = transformers.AutoTokenizer.from_pretrained(
                source, subfolder="qformer_tokenizer", **hub
            )
        self._qformer.truncation_side = "left"
        with loading(source, "image processor"):
            # the PIL backend everywhere: the same pixels with and without torchvision
            self._images = transformers.AutoImageProcessor.from_pretrained(source, backend="pil", **hub)
        size, side = self._images.size, config.vision_config.image_size
        if (size["height"], size["width"]) != (side, side):
            raise AdapterError(
                f"{source}: images are made {size['width']} x {size['height']} px, the vision tower takes "
                f"{side} x {side}."
            )
        self._prompt_format = prompt_format
        self._image_token_id = int(config.image_token_index)
        self._n_visual = int(config.num_query_tokens)

    @property
    def pad_token_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)

    def encode(self, prompt: Prompt) -> Encoded:
        """num_query_tokens visual tokens, BOS, then the text. Raises AdapterError.

        BOS is `</s>`, as in training: LAVIS renamed it, and the checkpoint's tokenizer carries that.
        """
        text = self._prompt_format.replace("{}", prompt.text)
        bos = self.tokenizer.bos_token_id
        ids = [*([] if bos is None else [bos]), *self.tokenizer(text, add_special_tokens=False).input_ids]
        expanded = expand_placeholder([self._image_token_id, *ids], self._image_token_id, self._n_visual)
        cut = self._qformer(text, truncation=True, max_length=_QFORMER_LENGTH)
        return Encoded(prompt, expanded, list(cut.input_ids))

    def load(self, encoded: Encoded) -> Item:
        """Open the image and squash it to the tower's square. Raises AdapterError."""
        prompt = encoded.prompt
        image = open_rgb(prompt.image_path, prompt.image_size_wh)
        pixels = self._images(images=[image], return_tensors="np")["pixel_values"][0]
        return Item(prompt, encoded.input_ids, encoded.qformer_ids, np.asarray(pixels, np.float32))

    def collate(self, items: Sequence[Item]) -> dict[str, Any]:
        """CPU tensors of a batch: input_ids (B, S) padded on the left, qformer_input_ids (B, Q) on the right.

        The Q-Former numbers positions from the first column, the language model by its mask.
        """
        import torch

        length = max(len(item.input_ids) for item in items)
        reach = max(len(item.qformer_ids) for item in items)
        pad, qformer_pad = self.pad_token_id, int(self._qformer.pad_token_id)
        rows = [[pad] * (length - len(i.input_ids)) + i.input_ids for i in items]
        mask = [[0] * (length - len(i.input_ids)) + [1] * len(i.input_ids) for i in items]
        read = [i.qformer_ids + [qformer_pad] * (reach - len(i.qformer_ids)) for i in items]
        read_mask = [[1] * len(i.qformer_ids) + [0] * (reach - len(i.qformer_ids)) for i in items]
        return {
            "input_ids": torch.tensor(rows),
            "attention_mask": torch.tensor(mask),
            "qformer_input_ids": torch.tensor(read),
            "qformer_attention_mask": torch.tensor(read_mask),
            "pixel_values": torch.from_numpy(np.stack([i.pixel_values for i in items])),
        }


def _check_settings(name: str, dtype: str, num_beams: int, penalty: float, prompt_format: str) -> None:
    if dtype not in DTYPES:
        raise ConfigError(f"{name}: no dtype {dtype!r}. Allowed: {', '.join(DTYPES)}.")
    if num_beams < 1:
        raise ConfigError(f"{name}: num_beams is {num_beams}; it must be 1 or more.")
    if not penalty > 0:
        raise ConfigError(f"{name}: repetition_penalty is {penalty}; it must be above 0, and 1 is none.")
    if prompt_format.count("{}") != 1:
        raise ConfigError(f"{name}: prompt_format must hold {{}} once, for the question: {prompt_format!r}.")


def _check_config(name: str, config: Any) -> None:
    if config.model_type != MODEL_TYPE:
        raise AdapterError(f"{name}: config.json says {config.model_type!r}, asked for as {MODEL_TYPE!r}.")
    if config.text_config.is_encoder_decoder:
        raise AdapterError(
            f"{name}: its language model is {config.text_config.model_type!r}; only decoder-only ones (Vicuna) "
            "are supported."
        )
    if config.image_token_index is None:
        raise AdapterError(
            f"{name}: config.json names no image_token_index; take a revision of the checkpoint that does."
        )
