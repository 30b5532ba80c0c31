"""Small random Qwen2.5-VL and LLaVA models with peaked attention, packed batches, and KLAL by whole matrices."""

import math
import re

import torch

from trainers.attention import RowRequest

IMAGE = 99  # the image token's id in both vocabularies


WHOLE = "whole_matrices_float64"


def whole_matrices():
    """An attention that keeps every matrix (B, H, S, S) in float64; transformers' eager softmaxes in float32."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    def forward(
        module, query, key, value, attention_mask, dropout=0.0, scaling=None, matrices=None, **kwargs
    ):
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        logits = query @ key.transpose(2, 3) * scaling
        length = query.shape[2]
        allowed = (
            torch.ones(length, length, dtype=torch.bool).tril() if attention_mask is None else attention_mask
        )
        weights = logits.masked_fill(~allowed, torch.finfo(logits.dtype).min).softmax(-1)
        if matrices is not None:
            matrices[module.layer_idx] = weights
        return (weights @ value).transpose(1, 2).contiguous(), None

    AttentionInterface.register(WHOLE, forward)
    AttentionMaskInterface.register(WHOLE, sdpa_mask)
    return WHOLE


def small_qwen(implementation, layers=2, dtype=torch.float64, heads=4, kv_heads=2):
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        },
        vision_config={
            "depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64,
            "fullatt_block_indexes": [0], "window_size": 112,
        },
        image_token_id=IMAGE, video_token_id=98, vision_start_token_id=97, vision_end_token_id=96,
    )  # fmt: skip
    return _peaked(Qwen2_5_VLForConditionalGeneration(config), implementation, dtype)


def small_llava(implementation, layers=2, dtype=torch.float64):
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 56, "patch_size": 14, "projection_dim": 16,
        },
        text_config={
            "model_type": "llama", "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 4,
            "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        },
        image_token_index=IMAGE, image_seq_length=16,
    )  # fmt: skip
    return _peaked(LlavaForConditionalGeneration(config), implementation, dtype)


def _peaked(model, implementation, dtype):
    """Random weights leave attention nearly uniform; larger queries and keys make rows that differ."""
    model.set_attn_implementation({"text_config": implementation, "vision_config": "sdpa"})
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "language_model" in name and re.search(r"[qk]_proj\.weight$", name):
                weight.mul_(9.0)
    return model.to(dtype).train()


def _texts(count, generator):
    return torch.randint(3, 90, (count,), generator=generator)


def qwen_batch(side, dtype=torch.float64, grids=((1, 4, 6), (1, 4, 4))):
    """Two samples with different numbers of visual tokens (6 and 4) and of text tokens."""
    generator = torch.Generator().manual_seed(1)
    sequences = [
        torch.cat(
            [_texts(3, generator), torch.tensor([97]), torch.full((t * h * w // 4,), IMAGE), torch.tensor([96]),
             _texts(n, generator)]
        )
        for (t, h, w), n in zip(grids, (6, 11), strict=True)
    ]  # fmt: skip
    patches = sum(t * h * w for t, h, w in grids)
    pixels = torch.randn(patches, 3 * 2 * 14 * 14, generator=generator).to(dtype)
    batch, places = pack(sequences, side)
    types = (batch["input_ids"] == IMAGE).long()
    return batch | {
        "pixel_values": pixels, "image_grid_thw": torch.tensor(grids), "mm_token_type_ids": types,
    }, places  # fmt: skip


def llava_batch(side, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    sequences = [
        torch.cat([_texts(4, generator), torch.full((16,), IMAGE), _texts(n, generator)]) for n in (6, 11)
    ]
    batch, places = pack(sequences, side)
    return batch | {"pixel_values": torch.randn(2, 3, 56, 56, generator=generator).to(dtype)}, places


def pack(sequences, side):
    """Padded inputs with labels on the last 3 tokens; (query_index of the last one, key_index, key_mask, target)."""
    length, n = max(map(len, sequences)), len(sequences)
    ids = torch.zeros(n, length, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    query = torch.zeros(n, dtype=torch.long)
    for i, sequence in enumerate(sequences):
        start = 0 if side == "right" else length - len(sequence)
        end = start + len(sequence)
        ids[i, start:end], mask[i, start:end] = sequence, 1
        labels[i, end - 3 : end] = sequence[-3:]
        query[i] = end - 1
    found = [row.nonzero()[:, 0] for row in ids == IMAGE]
    most = max(map(len, found))
    keys, key_mask = torch.zeros(n, most, dtype=torch.long), torch.zeros(n, most, dtype=torch.bool)
    for i, positions in enumerate(found):
        keys[i, : len(positions)], key_mask[i, : len(positions)] = positions, True
    target = torch.rand(n, most, generator=torch.Generator().manual_seed(3)).pow(4)
    target[:, 1] = 0  # 0 log 0
    target = target.masked_fill(~key_mask, 0)
    target = target / target.sum(-1, keepdim=True)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return batch, (query, keys, key_mask, target)


def whole_klal(matrices, places, layers=None, heads="mean"):
    """Eqs. 3-4 as printed, in float64, from whole attention matrices (B, H, S, S): loops, no log space."""
    query, keys, key_mask, target = places
    total = 0.0
    for b in range(len(query)):
        visual = keys[b][key_mask[b]]
        p = target[b][key_mask[b]].double()
        per_layer = []
        for layer, matrix in matrices.items():
            if layers is not None and layer not in layers:
                continue
            alpha = matrix[b, :, query[b], visual].double()  # (H, V)
            alpha = alpha / alpha.sum(-1, keepdim=True)
            rows = [alpha.mean(0)] if heads == "mean" else list(alpha)
            kls = [
                sum(pi * (math.log(pi) - qi.log()) for pi, qi in zip(p, row, strict=True) if pi > 0)
                for row in rows
            ]
            per_layer.append(sum(kls) / len(kls))
        total = total + sum(per_layer) / len(per_layer)
    return total / len(query)


def request_for(places, **settings):
    query, keys, key_mask, _ = places
    return RowRequest(query, keys, key_mask, **settings)


def gradients(model):
    return {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}


def relative_error(found, expected):
    """Norm of the difference over the norm of the expected gradient, all parameters together."""
    difference = sum((found[k].double() - expected[k].double()).pow(2).sum() for k in expected)
    return float((difference / sum(g.double().pow(2).sum() for g in expected.values())).sqrt())
