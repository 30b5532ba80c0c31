"""Models, batches and the ways to an attention row that benchmarks.klal_step compares."""

import math
import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any

# torch is imported inside functions alone: a measured child's peak size starts at its parent's.

FAMILIES = ("qwen2_5_vl", "llava")
BASES = {
    "ntp": "sdpa", "one_row": "sdpa", "recompute": "sdpa", "eager": "eager",
    "flash": "flash_attention_2", "one_row_flash": "flash_attention_2",
}  # fmt: skip

IMAGE, VOCABULARY, PATCH = 99, 1000, 4
SHAPES = {
    "small": {"num_hidden_layers": 8, "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8},
    "7b_x4": {
        "num_hidden_layers": 4,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
    },
}
KV_HEADS = {("qwen2_5_vl", "small"): 2, ("llava", "small"): 8, ("qwen2_5_vl", "7b_x4"): 4}


@dataclass(frozen=True)
class Case:
    """What the variants are compared on."""

    family: str
    S: int
    B: int
    checkpointing: bool
    model: str
    device: str
    dtype: str

    def __str__(self) -> str:
        checkpointing = "on" if self.checkpointing else "off"
        where = f"{self.model}, {self.device}, {self.dtype}"
        return f"{self.family} S={self.S} B={self.B} checkpointing {checkpointing} ({where})"


# ------------------------------------------------------------------------------------ the measured process


def text_settings(case: Case) -> dict[str, Any]:
    return SHAPES[case.model] | {
        "num_key_value_heads": KV_HEADS[case.family, case.model], "vocab_size": VOCABULARY,
        "max_position_embeddings": 8192, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip


def grid_side(length: int) -> int:
    """Side of the square of visual tokens: 0.8 of the sequence, about."""
    return round(math.sqrt(0.8 * length))


def qwen(case: Case) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = text_settings(case)
    half = text["hidden_size"] // text["num_attention_heads"] // 2
    sections = [half // 4, half * 3 // 8, half * 3 // 8]
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    vision = {
        "depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": PATCH,
        "out_hidden_size": text["hidden_size"], "fullatt_block_indexes": [], "window_size": 8 * PATCH,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=IMAGE, video_token_id=98,
        vision_start_token_id=97, vision_end_token_id=96,
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(config)


def llava(case: Case) -> Any:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    vision = {
        "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": PATCH * grid_side(case.S), "patch_size": PATCH,
        "projection_dim": 16,
    }  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config={"model_type": "llama"} | text_settings(case),
        image_token_index=IMAGE, image_seq_length=grid_side(case.S) ** 2, vision_feature_layer=-1,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)


def build(case: Case, variant: str) -> Any:
    """The model of a case, its language part on the variant's attention, ready to train."""
    import torch

    from trainers.attention import use_row_attention

    torch.manual_seed(0)
    model = qwen(case) if case.family == "qwen2_5_vl" else llava(case)
    base = BASES[variant]
    if variant.startswith("one_row"):
        use_row_attention(model, base)
    else:
        vision = "sdpa" if base == "eager" else base
        model.set_attn_implementation({"text_config": base, "vision_config": vision})
    sharpen(model)
    for name, weight in model.named_parameters():
        weight.requires_grad_("language_model" in name or "lm_head" in name)
    if case.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.to(case.device, getattr(torch, case.dtype)).train()


def sharpen(model: Any) -> None:
    """Larger queries and keys: with plain random weights all rows are uniform and every KLAL agrees."""
    import torch

    gain = 72 / math.sqrt(model.config.get_text_config().hidden_size)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "language_model" in name and re.search(r"[qk]_proj\.weight$", name):
                weight.mul_(gain)


def make_batch(case: Case) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """(inputs of the model, (query index (B,), key index (B, N), key mask (B, N), target map (B, N)))."""
    import torch

    chance = torch.Generator().manual_seed(1)
    side, n, size = grid_side(case.S), grid_side(case.S) ** 2, (case.B, case.S)
    ids = torch.randint(100, VOCABULARY, size, generator=chance)
    ids[:, 5], ids[:, 6 : 6 + n], ids[:, 6 + n] = 97, IMAGE, 96
    labels = torch.full_like(ids, -100)
    labels[:, -3:] = ids[:, -3:]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    if case.family == "qwen2_5_vl":
        batch["pixel_values"] = torch.randn(case.B * 4 * n, 3 * 2 * PATCH**2, generator=chance)
        batch["image_grid_thw"] = torch.tensor([[1, 2 * side, 2 * side]] * case.B)
        batch["mm_token_type_ids"] = (ids == IMAGE).long()
    else:
        batch["pixel_values"] = torch.randn(case.B, 3, PATCH * side, PATCH * side, generator=chance)
    batch["pixel_values"] = batch["pixel_values"].to(getattr(torch, case.dtype))
    target = torch.rand(case.B, n, generator=chance).pow(4)
    keys = torch.arange(6, 6 + n).repeat(case.B, 1)
    places = (torch.full((case.B,), case.S - 1), keys, torch.ones_like(keys, dtype=torch.bool),
              target / target.sum(-1, keepdim=True))  # fmt: skip
    device = case.device
    return {name: value.to(device) for name, value in batch.items()}, tuple(p.to(device) for p in places)


def recorded(model: Any, batch: dict[str, Any], places: tuple[Any, ...]) -> tuple[Any, dict[int, Any]]:
    """(NTP loss, rows) with trainers.attention."""
    from trainers.attention import RowRequest

    request = RowRequest(*places[:3])
    ntp = model(**batch, attention_row=request, use_cache=False).loss
    rows = request.rows
    request.close()
    return ntp, rows


def sliced(model: Any, batch: dict[str, Any], places: tuple[Any, ...]) -> tuple[Any, dict[int, Any]]:
    """(NTP loss, rows) from whole matrices (B, H, S, S), renormalised over the visual tokens."""
    import torch

    query, keys, _, _ = places
    sample = torch.arange(len(query), device=query.device)[:, None]
    out = model(**batch, output_attentions=True, use_cache=False)
    rows = {}
    for layer, whole in enumerate(out.attentions):
        alpha = whole[sample, :, query[:, None], keys].transpose(1, 2).float()  # (B, H, N)
        alpha = alpha.clamp_min(torch.finfo(torch.float32).tiny)  # underflown weights have no logarithm
        rows[layer] = (alpha / alpha.sum(-1, keepdim=True)).log()
    return out.loss, rows


def recomputed(model: Any, batch: dict[str, Any], places: tuple[Any, ...]) -> tuple[Any, dict[int, Any]]:
    """(NTP loss, rows) from the layers' input hidden states."""
    import torch

    query, keys, _, _ = places
    sample = torch.arange(len(query), device=query.device)[:, None]
    positions, given = position_ids(model, batch)
    out = model(**batch, **given, output_hidden_states=True, use_cache=False)
    text = model.model.language_model
    rotate = import_module(type(text).__module__).apply_rotary_pos_emb
    states = out.hidden_states
    turn_q = text.rotary_emb(states[0], positions[..., sample, query[:, None]])
    turn_k = text.rotary_emb(states[0], positions[..., sample, keys])
    rows = {}
    for number, (layer, hidden) in enumerate(zip(text.layers, states[:-1], strict=True)):
        q = heads(layer.self_attn.q_proj(layer.input_layernorm(hidden[sample, query[:, None]])), layer)
        k = heads(layer.self_attn.k_proj(layer.input_layernorm(hidden[sample, keys])), layer)
        # the function turns a query and a key at the same positions: an empty one in place of the other
        rows[number] = row(rotate(q, q[:, :0], *turn_q)[0], rotate(k[:, :0], k, *turn_k)[1], layer)
    return out.loss, rows


def position_ids(model: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(position ids (..., B, S), what to give the model so that it does not compute them twice)."""
    import torch

    if not hasattr(model.model, "compute_3d_position_ids"):
        length = batch["input_ids"].shape[1]
        return torch.arange(length, device=model.device).expand(batch["input_ids"].shape), {}
    names = ("input_ids", "image_grid_thw", "attention_mask", "mm_token_type_ids")
    positions = model.model.compute_3d_position_ids(
        **{name: batch[name] for name in names}, video_grid_thw=None, inputs_embeds=None, past_key_values=None
    )  # (3, B, S)
    return positions, {"position_ids": positions}


def heads(projected: Any, layer: Any) -> Any:
    """(B, N, H * D) -> (B, H, N, D)."""
    return projected.unflatten(-1, (-1, layer.self_attn.head_dim)).transpose(1, 2)


def row(query: Any, key: Any, layer: Any) -> Any:
    """(B, Hq, 1, D) and (B, Hkv, N, D) -> (B, Hq, N) float32, log of the softmax over the visual tokens."""
    folded = query[:, :, 0].unflatten(1, (key.shape[1], -1)).float()  # (B, Hkv, group, D)
    logits = folded @ key.float().transpose(2, 3) * layer.self_attn.scaling
    return logits.flatten(1, 2).log_softmax(-1)


def loss_of(variant: str, model: Any, batch: dict[str, Any], places: tuple[Any, ...]) -> tuple[Any, Any]:
    """(loss to train on, KLAL or None). The model's other outputs are let go of here, before backward."""
    from trainers.klal import klal

    if variant in ("ntp", "flash"):
        return model(**batch, use_cache=False).loss, None
    ways = {"recompute": recomputed, "eager": sliced}
    ntp, rows = ways.get(variant, recorded)(model, batch, places)
    attention = klal(rows, places[3], places[2]).mean()
    return ntp + attention, attention.detach()
