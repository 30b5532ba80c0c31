"""The stand-in's processor: ` User: {text} Assistant:` behind the image's tokens, an EOS before both."""

import numpy as np
import torch
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, TextKwargs

from .image_preprocessing_molmo import MolmoImageProcessor, MolmoImagesKwargs

EXTRA_TOKENS = ("<im_start>", "<im_end>", "<im_patch>")


class MolmoTextKwargs(TextKwargs, total=False):
    message_format: str | None


class MolmoProcessorKwargs(ProcessingKwargs, total=False):
    text_kwargs: MolmoTextKwargs
    images_kwargs: MolmoImagesKwargs
    _defaults = {  # noqa: RUF012 - as transformers reads it
        "images_kwargs": {"image_patch_size": 14, "crop_size": 28},
        "text_kwargs": {"message_format": "role", "padding": False},
    }


class MolmoProcessor(ProcessorMixin):
    attributes = ("image_processor", "tokenizer")
    image_processor_class = "AutoImageProcessor"
    tokenizer_class = ("Qwen2Tokenizer", "Qwen2TokenizerFast")

    def __init__(self, image_processor: MolmoImageProcessor = None, tokenizer=None, **kwargs):
        super().__init__(image_processor, tokenizer)

    def process(self, text=None, images=None, **kwargs):
        merged = self._merge_kwargs(
            MolmoProcessorKwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs
        )
        if merged["text_kwargs"]["message_format"] == "role":
            text = f" User: {text} Assistant:"
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        start, end, patch = self.tokenizer.convert_tokens_to_ids(list(EXTRA_TOKENS))
        out = self.image_processor.multimodal_preprocess(
            images=[np.array(image).astype(np.uint8) for image in images],
            tokens=np.asarray(tokens).astype(np.int32),
            image_patch_token_id=patch,
            image_start_token_id=start,
            image_end_token_id=end,
            **merged["images_kwargs"],
        )
        out["input_ids"] = np.pad(out["input_ids"], [[1, 0]], constant_values=self.tokenizer.eos_token_id)
        places = out["image_input_idx"]
        out["image_input_idx"] = np.where(places < 0, places, places + 1)
        return {name: torch.from_numpy(value) for name, value in out.items()}


MolmoProcessor.register_for_auto_class()
