"""The tiny InstructBLIP: its recipe, and the Q-Former's tokenizer that the other families do not have."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from string import ascii_lowercase, digits, punctuation
from typing import Any

N_VISUAL = 8  # query tokens; 32 in the released checkpoints
SIDE = 56  # px
_QFORMER_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")


def qformer_vocabulary(sentences: tuple[str, ...]) -> dict[str, int]:
    """WordPiece tokens -> ids: special ones, characters as wholes and as continuations, then whole words."""
    characters = ascii_lowercase + digits + punctuation
    words = sorted({word for line in sentences for word in line.lower().split() if word.isalpha()})
    whole = [word for word in words if len(word) > 1]
    tokens = [*_QFORMER_SPECIAL, *characters, *(f"##{c}" for c in characters), *whole]
    return {token: i for i, token in enumerate(tokens)}


def save_qformer_tokenizer(sentences: tuple[str, ...], folder: Path) -> None:
    """A lowercasing BERT tokenizer, where the released checkpoints have theirs."""
    vocabulary = qformer_vocabulary(sentences)
    tokenizer = import_module("transformers").BertTokenizer(vocab=vocabulary, do_lower_case=True)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.save_pretrained(folder / "qformer_tokenizer")


def config(text_config: Mapping[str, Any], n_qformer_tokens: int) -> dict[str, Any]:
    """Of InstructBlipConfig; token ids as "id:<token>"."""
    return {
        "text_config": {
            **text_config,
            "model_type": "llama",
            "bos_token_id": "id:</s>",  # as the tokenizer's: see model_adapters.instructblip
            "eos_token_id": "id:</s>",
            "pad_token_id": "id:[PAD]",
        },
        "vision_config": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": 14,
        },
        "qformer_config": {
            "vocab_size": n_qformer_tokens,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 128,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        "num_query_tokens": N_VISUAL,
        "image_token_index": "id:<image>",
    }


def files(norm: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The JSON files beside the weights. norm: image_mean and image_std."""
    return {
        "preprocessor_config.json": {
            "image_processor_type": "BlipImageProcessor",
            "processor_class": "InstructBlipProcessor",
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "size": {"height": SIDE, "width": SIDE},
            "resample": 3,
            "rescale_factor": 1 / 255,
            **norm,
        },
        "processor_config.json": {
            "processor_class": "InstructBlipProcessor",
            "num_query_tokens": N_VISUAL,
        },
    }
