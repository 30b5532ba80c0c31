"""The weights of GLaMM that answer in text: their keys, shapes and published names.

GLaMM (github.com/mbzuai-oryx/groundingLMM) answers through LLaVA-1.5: CLIP, two linear layers with a GELU
between, Vicuna. What segments and reads regions is left out; CLIP, which was frozen, is not in its checkpoint.
"""

from collections.abc import Mapping
from typing import Any

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"  # one row a token

DROPPED = ("model.region_encoder.", "model.grounding_encoder.", "model.text_hidden_fcs.")
DROPPED_OF_CLIP = ("text_model.", "visual_projection.", "text_projection.", "logit_scale")
DROPPED_ENDS = ("rotary_emb.inv_freq", "embeddings.position_ids")  # computed by the library


def text_shapes(config: Mapping[str, Any], n_rows: int, vision_size: int) -> dict[str, tuple[int, ...]]:
    """GLaMM's own key -> shape of every weight that is kept; n_rows of the embedding and of lm_head."""
    size, inner = config["hidden_size"], config["intermediate_size"]
    keys_size = size // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        EMBEDDING: (n_rows, size),
        "model.norm.weight": (size,),
        HEAD: (n_rows, size),
        "model.mm_projector.0.weight": (size, vision_size),
        "model.mm_projector.0.bias": (size,),
        "model.mm_projector.2.weight": (size, size),
        "model.mm_projector.2.bias": (size,),
    }
    for layer in range(config["num_hidden_layers"]):
        parts = {
            "self_attn.q_proj": (size, size),
            "self_attn.k_proj": (keys_size, size),
            "self_attn.v_proj": (keys_size, size),
            "self_attn.o_proj": (size, size),
            "mlp.gate_proj": (inner, size),
            "mlp.up_proj": (inner, size),
            "mlp.down_proj": (size, inner),
            "input_layernorm": (size,),
            "post_attention_layernorm": (size,),
        }
        shapes |= {f"model.layers.{layer}.{part}.weight": shape for part, shape in parts.items()}
    return shapes


def vision_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """CLIP's own key -> shape of every weight of its vision tower."""
    size, inner, patch = config["hidden_size"], config["intermediate_size"], config["patch_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (size,),
        "embeddings.patch_embedding.weight": (size, config["num_channels"], patch, patch),
        "embeddings.position_embedding.weight": ((config["image_size"] // patch) ** 2 + 1, size),
    }
    linear = {"self_attn.q_proj": (size, size), "self_attn.k_proj": (size, size)}
    linear |= {"self_attn.v_proj": (size, size), "self_attn.out_proj": (size, size)}
    linear |= {"mlp.fc1": (inner, size), "mlp.fc2": (size, inner)}
    norms = ["pre_layrnorm", "post_layernorm"]  # [sic], in every CLIP
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layers.{layer}."
        norms += [f"{at}layer_norm1", f"{at}layer_norm2"]
        for name, shape in linear.items():
            shapes |= {f"{at}{name}.weight": shape, f"{at}{name}.bias": shape[:1]}
    shapes |= {f"{norm}.{part}": (size,) for norm in norms for part in ("weight", "bias")}
    return {f"vision_model.{name}": shape for name, shape in shapes.items()}


def published(key: str) -> str:
    """The name of a kept weight in the folders that transformers and vLLM both read."""
    renamed = (
        ("model.mm_projector.0.", "multi_modal_projector.linear_1."),
        ("model.mm_projector.2.", "multi_modal_projector.linear_2."),
        ("vision_model.", "vision_tower.vision_model."),
        ("", "language_model."),
    )
    old, new = next(pair for pair in renamed if key.startswith(pair[0]))
    return new + key.removeprefix(old)
