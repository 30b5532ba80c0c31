"""What the tiny checkpoints are made of: sentences, special tokens, chat templates, configs. Data only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


_TEXT_CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,  # head_dim 32: vLLM on the CPU takes no smaller one
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}

RECIPES: Mapping[str, Recipe] = {
    "qwen2_5_vl": Recipe(
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
