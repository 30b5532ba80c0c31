"""The files beside the weights of a LLaVA folder that is made of a GLaMM checkpoint.

GLaMM's config.json says model_type "llava", but is that of another class than transformers': it is read
as plain JSON here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import AdapterError, Unavailable
from model_adapters.families import Glamm
from model_adapters.sentencepiece_file import Piece

# Added behind the vocabulary of tokenizer.model, in this order (train.py); none is a special token.
ADDED_TOKENS = ("<im_start>", "<im_end>", "<bbox>", "<point>", "[SEG]", "<p>", "</p>")

_CLIP_NUMBERS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size")
_TEXT_NUMBERS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")

# "The <image> provides an overview of the picture.\n" before the question: app.py and eval/gcg/infer.py
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role != 'system' -%}
{{ message.role | upper + ': ' }}
{%- endif -%}
{%- if message.content is string -%}
{{ message.content + ' ' }}
{%- else -%}
{%- for part in message.content if part.type in ('image', 'image_url') -%}
{{ 'The <im_start><image><im_end> provides an overview of the picture.\\n' }}
{%- endfor -%}
{%- for part in message.content if part.type == 'text' -%}
{{ part.text + ' ' }}
{%- endfor -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ 'ASSISTANT:' }}
{%- endif -%}
"""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises Unavailable where there is no such file, AdapterError."""
    if not path.is_file():
        raise Unavailable(f"{path.parent} holds no {path.name}: not a checkpoint, or not all of it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path}: cannot be read as JSON ({error}).") from None
    if not isinstance(content, dict):
        raise AdapterError(f"{path}: expected a JSON object, found {type(content).__name__}.")
    return content


def text_config(path: Path, n_tokens: int) -> dict[str, Any]:
    """LLaVA's `text_config` of a GLaMM config.json; n_tokens: rows of the embedding in the new folder."""
    found = read_json(path)
    numbers = {name: _count(path, found, name) for name in (*_TEXT_NUMBERS, "max_position_embeddings")}
    for name in ("rope_scaling", "attention_bias", "mlp_bias", "tie_word_embeddings"):
        if found.get(name):
            raise AdapterError(f"{path}: {name} is {found[name]!r}, which no released GLaMM has.")
    return {
        "model_type": "llama",
        **numbers,
        "num_key_value_heads": found.get("num_key_value_heads") or numbers["num_attention_heads"],
        "hidden_act": found.get("hidden_act", "silu"),
        "rms_norm_eps": found.get("rms_norm_eps", 1e-6),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(found.get("rope_theta") or 1e4)},
        "vocab_size": n_tokens,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,  # <unk>, as GLaMM's own scripts set it
        "tie_word_embeddings": False,
    }


def vision_config(path: Path) -> dict[str, Any]:
    """LLaVA's `vision_config` of CLIP's config.json, whole or of its vision tower alone."""
    whole = read_json(path)
    found = whole.get("vision_config", whole)
    if not isinstance(found, dict):
        raise AdapterError(f"{path}: vision_config must be a JSON object.")
    return {
        "model_type": "clip_vision_model",
        **{name: _count(path, found, name) for name in (*_CLIP_NUMBERS, "patch_size")},
        "num_channels": found.get("num_channels", 3),
        "hidden_act": found.get("hidden_act", "quick_gelu"),
        "layer_norm_eps": found.get("layer_norm_eps", 1e-5),
        "projection_dim": found.get("projection_dim", 512),
    }


def _count(path: Path, found: Mapping[str, Any], name: str) -> int:
    value = found.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise AdapterError(f"{path}: {name} must be a whole number above 0, found {value!r}.")
    return value


def llava_config(path: Path, text: dict[str, Any], vision: dict[str, Any], dtype: str) -> dict[str, Any]:
    """config.json of the new folder; `path` is GLaMM's, which says the layer of CLIP that is read."""
    found = read_json(path)
    if (feature := found.get("mm_vision_select_feature", "patch")) != "patch":
        raise AdapterError(f"{path}: mm_vision_select_feature is {feature!r}; only 'patch' is known.")
    return {
        "architectures": [Glamm.architecture],
        "model_type": Glamm.model_type,
        "dtype": dtype,
        "image_token_index": text["vocab_size"] - 1,
        "image_seq_length": (vision["image_size"] // vision["patch_size"]) ** 2,
        "vision_feature_layer": found.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": "default",  # without the CLS token
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "tie_word_embeddings": False,
        "text_config": text,
        "vision_config": vision,
    }


def check_added_tokens(folder: Path, pieces: list[Piece]) -> None:
    """GLaMM's seven tokens follow the vocabulary, one id each. Raises AdapterError."""
    path = folder / "added_tokens.json"
    if path.is_file():
        found = read_json(path)
    else:  # newer libraries keep them here
        path = folder / "tokenizer_config.json"
        decoder = read_json(path).get("added_tokens_decoder", {})
        found = {token["content"]: int(at) for at, token in decoder.items() if int(at) >= len(pieces)}
    expected = {token: len(pieces) + place for place, token in enumerate(ADDED_TOKENS)}
    if wrong := next((t for t in [*expected, *found] if found.get(t) != expected.get(t)), None):
        raise AdapterError(
            f"{path}: the token {wrong} has id {found.get(wrong, 'none')}, GLaMM's "
            f"has {expected.get(wrong, 'none')} (behind the {len(pieces)} of tokenizer.model)."
        )


def added_tokens() -> list[Any]:
    """GLaMM's tokens and the image placeholder. Its tokens swallow the spaces on both sides.

    The tokenizer that GLaMM was trained with (transformers, April 2023) did that: "<im_end> provides"
    is <im_end>, then "▁provides", with no id for the space between.
    """
    from tokenizers import AddedToken

    marks = [AddedToken(token, lstrip=True, rstrip=True, normalized=False) for token in ADDED_TOKENS]
    return [*marks, AddedToken(Glamm.image_token, normalized=False, special=True)]


def small_files(
    text: Mapping[str, Any], vision: Mapping[str, Any], images: Path
) -> dict[str, dict[str, Any]]:
    """name -> content of the JSON files beside config.json; images: CLIP's preprocessor_config.json."""
    side = vision["image_size"]
    pixels = read_json(images)
    crop = pixels.get("crop_size", side)
    if not pixels.get("do_center_crop", True) or crop not in (side, {"height": side, "width": side}):
        raise AdapterError(f"{images}: expected a center crop of {side} px, found {crop!r}.")
    return {
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "LlavaProcessor",
            **dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize"), True),
            "do_convert_rgb": True,
            "size": {"shortest_edge": side},
            "crop_size": {"height": side, "width": side},
            "resample": pixels.get("resample", 3),
            "rescale_factor": 1 / 255,
            **{name: pixels[name] for name in ("image_mean", "image_std") if name in pixels},
        },
        "processor_config.json": {
            "processor_class": "LlavaProcessor",
            "image_token": Glamm.image_token,
            "num_additional_image_tokens": 1,
            "patch_size": vision["patch_size"],
            "vision_feature_select_strategy": "default",
        },
        "generation_config.json": {
            "do_sample": False,
            "bos_token_id": text["bos_token_id"],
            "eos_token_id": [text["eos_token_id"]],
            "pad_token_id": text["pad_token_id"],
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",  # tokenizer.json as it is; LlamaTokenizer rebuilds it
            **{"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"},
            "extra_special_tokens": [Glamm.image_token],
            "model_max_length": text["max_position_embeddings"],
            "padding_side": "left",
            "clean_up_tokenization_spaces": False,
        },
    }
