"""What the tiny checkpoints are made of: sentences, special tokens, chat templates, configs. Data only.

`qwen2_5_vl`, `llava` and `instructblip` are noise that ends, for smoke tests. `<family>-mini` (CPU) and
`<family>-small` (one GPU) are starting points for training: the library's own initialisation, and images of a
size that the synthetic tasks can be read at.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from model_adapters import tiny_instructblip

# The byte-level BPE learns its merges here: the wording of the five tasks and of their answers.
SENTENCES = (
    "How many times do the blue and red lines touch each other?",
    "The blue line and the red line cross 2 times.",
    "They touch each other 3 times, once near the top left and once near the bottom right.",
    "The lines do not touch. The answer is 0. Count 1 2 3 4 5 crossings.",
    "Is node A connected to node B?",
    "Yes, node A is connected to node C by a green line.",
    "No, node D is not connected to node E.",
    "Yes Yes Yes No No No yes no",
    "Where is the red square? The image is divided into a grid of 24 columns and 24 rows.",
    "Answer with its grid coordinates (x, y): x is the column counted from the left",
    "and y the row counted from the top, both from 0 to 23.",
    "The red square is at (12, 7). (0, 23) (5, 9) (18, 14) (21, 3) (10, 16)",
    "Where is the dog? Where is the car? Where is the person? Point to the motorboat.",
    "Locate the woman on the right in this image and output the bbox coordinates in JSON format.",
    'Locate "the man in the white shirt" in this image. Answer with its bounding box',
    "[x_min, y_min, x_max, y_max] in pixels; the image is 640 pixels wide and 480 pixels high.",
    "Please provide the bounding box coordinate of the region this sentence describes: the left cup",
    "[0.61, 0.36, 0.92, 0.83] [0.05, 0.24, 0.71, 0.98]",
    '[{"bbox_2d": [10, 20, 110, 220], "label": "dish"}]',
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "You are a helpful assistant. system user assistant",
    "USER: What is in the picture? ASSISTANT: A table, two chairs and a small lamp near the window.",
    "There is nothing there. I cannot see it. It is hard to say what the picture shows.",
)
BPE_SIZE = 768  # all 256 bytes, then merges; special tokens come on top

_QWEN_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"),
    *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
_QWEN_TEMPLATE = """\
{%- if messages[0].role != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type in ('image', 'image_url') -%}
{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part.type == 'video' -%}
{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif part.type == 'text' -%}
{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""

_LLAVA_SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
_LLAVA_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role != 'system' -%}
{{ message.role | upper + ': ' }}
{%- endif -%}
{%- if message.content is string -%}
{{ message.content + ' ' }}
{%- else -%}
{%- for part in message.content if part.type in ('image', 'image_url') -%}
{{ '<image>\\n' }}
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

_CLIP_NORM = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """One tiny checkpoint; `config` names special tokens as "id:<token>", the builder fills the ids in."""

    family: str
    special: tuple[str, ...]
    bos: str | None
    eos: str
    pad: str
    also_stop: tuple[str, ...]  # further tokens that end a reply, as in the family's generation config
    chat_template: str
    config: Mapping[str, Any]  # keyword arguments of the family's config class
    files: Mapping[str, Mapping[str, Any]]  # JSON files in the layout of the family's Hub repository
    seed: int  # chosen so that most replies are not empty, end within 32 tokens and differ between images
    eos_gain: float  # length of the EOS row of lm_head; most others have length 1
    answer_gain: float  # length of the rows of digits, yes and no: many replies then hold what a parser reads
    projector_gain: float  # how loudly the image speaks beside the text
    to_train: bool = False  # the library's initialisation; the gains above are not used
    position_gain: float = (
        1.0  # to_train: of CLIP's position embeddings, which start at a 30th of the patches
    )


_TEXT_CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,  # head_dim 32: vLLM on the CPU takes no smaller one
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}

_NOISE: Mapping[str, Recipe] = {
    "qwen2_5_vl": Recipe(
        family="qwen2_5_vl",
        special=_QWEN_SPECIAL,
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        also_stop=("<|endoftext|>",),
        chat_template=_QWEN_TEMPLATE,
        config={
            "text_config": {
                **_TEXT_CONFIG,
                "rms_norm_eps": 1e-6,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
                "bos_token_id": "id:<|endoftext|>",
                "eos_token_id": "id:<|im_end|>",
                "pad_token_id": "id:<|endoftext|>",
            },
            "vision_config": {
                "depth": 2,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_heads": 4,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "window_size": 112,
                "out_hidden_size": 64,
                "fullatt_block_indexes": [1],
            },
            "image_token_id": "id:<|image_pad|>",
            "video_token_id": "id:<|video_pad|>",
            "vision_start_token_id": "id:<|vision_start|>",
            "vision_end_token_id": "id:<|vision_end|>",
            "tie_word_embeddings": False,
        },
        files={
            "preprocessor_config.json": {
                "image_processor_type": "Qwen2VLImageProcessor",
                "processor_class": "Qwen2_5_VLProcessor",
                "min_pixels": 4 * 28 * 28,  # 4 to 16 visual tokens
                "max_pixels": 16 * 28 * 28,
                "patch_size": 14,
                "temporal_patch_size": 2,
                "merge_size": 2,
                **_CLIP_NORM,
            },
        },
        seed=17,
        eos_gain=3.5,
        answer_gain=1.6,
        projector_gain=4.0,
    ),
    "llava": Recipe(
        family="llava",
        special=_LLAVA_SPECIAL,
        bos="<s>",
        eos="</s>",
        pad="<pad>",
        also_stop=(),
        chat_template=_LLAVA_TEMPLATE,
        config={
            "text_config": {
                **_TEXT_CONFIG,
                "model_type": "llama",
                "bos_token_id": "id:<s>",
                "eos_token_id": "id:</s>",
                "pad_token_id": "id:<pad>",
            },
            "vision_config": {
                "model_type": "clip_vision_model",
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "image_size": 56,  # 4 x 4 = 16 visual tokens
                "patch_size": 14,
                "projection_dim": 64,
            },
            "image_token_index": "id:<image>",
            "image_seq_length": 16,
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "tie_word_embeddings": False,
        },
        files={
            "preprocessor_config.json": {
                "image_processor_type": "CLIPImageProcessor",
                "processor_class": "LlavaProcessor",
                "do_center_crop": True,
                "do_convert_rgb": True,
                "do_normalize": True,
                "do_rescale": True,
                "do_resize": True,
                "size": {"shortest_edge": 56},
                "crop_size": {"height": 56, "width": 56},
                "resample": 3,
                "rescale_factor": 1 / 255,
                **_CLIP_NORM,
            },
            "processor_config.json": {
                "processor_class": "LlavaProcessor",
                "image_token": "<image>",
                "num_additional_image_tokens": 1,
                "patch_size": 14,
                "vision_feature_select_strategy": "default",
            },
        },
        seed=32,
        eos_gain=4.0,
        answer_gain=2.0,
        projector_gain=1.5,
    ),
}


def _qwen_to_train(
    text: Mapping[str, Any], vision: Mapping[str, Any], patch: int, merge: int, side: int
) -> Recipe:
    """Images of side x side px, patches of `patch` px, tokens of merge x merge patches."""
    noise = _NOISE["qwen2_5_vl"]
    config = dict(noise.config)
    sizes = {"patch_size": patch, "spatial_merge_size": merge, "out_hidden_size": text["hidden_size"]}
    everywhere = {"fullatt_block_indexes": list(range(vision["depth"]))}
    config["text_config"] = {**config["text_config"], **text}
    config["vision_config"] = {**config["vision_config"], **vision, **sizes, **everywhere}
    name = "preprocessor_config.json"
    pixels = {"min_pixels": side * side, "max_pixels": side * side, "patch_size": patch, "merge_size": merge}
    return replace(noise, config=config, files={name: {**noise.files[name], **pixels}}, to_train=True)


def _llava_to_train(text: Mapping[str, Any], vision: Mapping[str, Any], patch: int, side: int) -> Recipe:
    """Images of side x side px, tokens of `patch` px."""
    noise = _NOISE["llava"]
    config = dict(noise.config)
    config["text_config"] = {**config["text_config"], **text}
    config["vision_config"] = {**config["vision_config"], **vision, "image_size": side, "patch_size": patch}
    config["image_seq_length"] = (side // patch) ** 2
    name, processor = "preprocessor_config.json", "processor_config.json"
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    files = {
        name: {**noise.files[name], **sizes},
        processor: {**noise.files[processor], "patch_size": patch},
    }
    return replace(noise, config=config, files=files, to_train=True, position_gain=20.0)


# 12 x 12 visual tokens of 14 px: two cells of Grid Patch a side.
_MINI_TEXT = {
    "hidden_size": 96,
    "intermediate_size": 288,
    "num_attention_heads": 3,
    "max_position_embeddings": 1024,
}
_MINI_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_MINI_VISION = {"hidden_size": 64, "intermediate_size": 192, "num_heads": 4, "depth": 2}
_MINI_CLIP = {"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 4, "num_hidden_layers": 3}
# 24 x 24 visual tokens, one a cell of Grid Patch, as the 7B models have them.
_SMALL_TEXT = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
_SMALL_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_SMALL_VISION = {"hidden_size": 256, "intermediate_size": 768, "num_heads": 4, "depth": 6}
_SMALL_CLIP = {"hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 4, "num_hidden_layers": 7}

RECIPES: Mapping[str, Recipe] = {
    **_NOISE,
    "qwen2_5_vl-mini": _qwen_to_train(
        {
            **_MINI_TEXT,
            "num_hidden_layers": 4,
            "num_key_value_heads": 1,
            "rope_parameters": {**_MINI_ROPE, "mrope_section": [4, 6, 6]},
        },
        _MINI_VISION,
        patch=14,
        merge=1,
        side=168,
    ),
    "llava-mini": _llava_to_train(
        {**_MINI_TEXT, "num_hidden_layers": 3, "num_key_value_heads": 3, "rope_parameters": _MINI_ROPE},
        _MINI_CLIP,
        patch=14,
        side=168,
    ),
    "qwen2_5_vl-small": _qwen_to_train(
        {**_SMALL_TEXT, "rope_parameters": {**_SMALL_ROPE, "mrope_section": [8, 12, 12]}},
        _SMALL_VISION,
        patch=14,
        merge=1,
        side=336,
    ),
    "llava-small": _llava_to_train(
        {**_SMALL_TEXT, "rope_parameters": _SMALL_ROPE}, _SMALL_CLIP, patch=14, side=336
    ),
    "instructblip": Recipe(
        family="instructblip",
        special=("<unk>", "<s>", "</s>", "[PAD]", "<image>"),
        bos="</s>",
        eos="</s>",
        pad="[PAD]",
        also_stop=(),
        chat_template="",  # it has none
        config=tiny_instructblip.config(_TEXT_CONFIG, len(tiny_instructblip.qformer_vocabulary(SENTENCES))),
        files=tiny_instructblip.files(_CLIP_NORM),
        seed=1,
        eos_gain=2.0,
        answer_gain=2.0,
        projector_gain=6.0,
    ),
}
