"""A tiny random GLaMM in the layout of its release: .bin shards, tokenizer.model, added_tokens.json; and its CLIP."""

import json
import struct

import torch

from model_adapters.tiny_recipes import SENTENCES

ADDED = ("<im_start>", "<im_end>", "<bbox>", "<point>", "[SEG]", "<p>", "</p>")
HEAD = 32  # vLLM on the CPU takes no smaller one
CLIP_SIZE, CLIP_LAYERS, SIDE, PATCH = 48, 3, 56, 14
N_VISUAL = (SIDE // PATCH) ** 2


def make_glamm(folder, shards=3, dtype=torch.float32, safetensors=False, size=64, inner=128, layers=2):
    """The checkpoint; returns its weights by their own keys."""
    folder.mkdir(parents=True)
    pieces = learnt_pieces()
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(pieces))
    added = {token: len(pieces) + place for place, token in enumerate(ADDED)}
    write_json(folder / "added_tokens.json", added)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True})
    write_json(folder / "config.json", config(len(pieces) + len(ADDED), size, inner, layers))
    weights = {k: v.to(dtype) for k, v in text_weights(len(pieces), size, inner, layers).items()}
    save_shards(folder, weights, shards, safetensors)
    return weights


def make_clip(folder, dtype=torch.float32):
    """The whole CLIP, as openai/clip-vit-large-patch14-336 has it, text model and all; returns its weights."""
    folder.mkdir(parents=True)
    vision = {
        "hidden_size": CLIP_SIZE, "intermediate_size": 96, "num_hidden_layers": CLIP_LAYERS, "num_attention_heads": 4,
        "image_size": SIDE, "patch_size": PATCH, "projection_dim": 32, "hidden_act": "quick_gelu", "torch_dtype": None,
    }  # fmt: skip
    write_json(folder / "config.json", {"model_type": "clip", "vision_config": vision, "text_config": {}})
    images = {
        "crop_size": SIDE, "do_center_crop": True, "do_normalize": True, "do_resize": True, "size": SIDE, "resample": 3,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }  # fmt: skip
    write_json(folder / "preprocessor_config.json", images)
    weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in clip_weights().items()}
    torch.save(weights, folder / "pytorch_model.bin")
    return weights


def config(n_tokens, size, inner, layers):
    """As GLaMM's class saves it: model_type "llava" of its own, keys that LLaVA's config has under other names."""
    return {
        "architectures": ["GLaMMForCausalLM"], "model_type": "llava", "vocab_size": n_tokens, "hidden_size": size,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": size // HEAD, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "mm_hidden_size": CLIP_SIZE, "mm_use_im_start_end": True, "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch", "mm_vision_tower": "openai/clip-vit-large-patch14-336", "out_dim": 256,
        "tie_word_embeddings": False, "torch_dtype": "float32", "transformers_version": "4.28.0.dev0", "use_cache": False,
    }  # fmt: skip


def text_weights(n_pieces, size, inner, layers):
    rows, random = n_pieces + len(ADDED), torch.Generator().manual_seed(5)

    def linear(*shape):  # unit gain: logits with a clear winner
        return torch.randn(shape, generator=random) / shape[-1] ** 0.5

    weights = {"model.embed_tokens.weight": linear(rows, size), "model.norm.weight": torch.ones(size)}
    for layer in range(layers):
        at = f"model.layers.{layer}."
        shapes = {f"self_attn.{name}": (size, size) for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
        shapes |= {
            "mlp.gate_proj": (inner, size),
            "mlp.up_proj": (inner, size),
            "mlp.down_proj": (size, inner),
        }
        weights |= {f"{at}{name}.weight": linear(*shape) for name, shape in shapes.items()}
        for name in ("q_proj", "k_proj"):
            weights[f"{at}self_attn.{name}.weight"] *= 1.5  # attention picks, it does not average
        weights[f"{at}input_layernorm.weight"] = torch.ones(size) + linear(size) * 0.3
        weights[f"{at}post_attention_layernorm.weight"] = torch.ones(size)
        weights[f"{at}self_attn.rotary_emb.inv_freq"] = torch.ones(HEAD // 2)
    weights |= {
        "model.mm_projector.0.weight": linear(size, CLIP_SIZE),
        "model.mm_projector.0.bias": linear(size),
    }
    weights |= {
        "model.mm_projector.2.weight": linear(size, size) * 2,
        "model.mm_projector.2.bias": linear(size),
    }
    head = linear(rows, size)
    head[:259] *= 0.2  # unknown, bytes: replies are of words
    head[2] *= 18  # </s>: replies end
    head[n_pieces + 4 :] *= 2.5  # [SEG], <p>, </p>: replies have marks
    return weights | {"lm_head.weight": head} | unused_weights(linear, size)


def unused_weights(linear, size):
    """Of what segments and reads regions."""
    return {
        "model.region_encoder.mlvl_fuse.input_conv.0.weight": linear(4, 4),
        "model.grounding_encoder.image_encoder.pos_embed": linear(1, 2, 2, 8),
        "model.grounding_encoder.mask_decoder.iou_token.weight": linear(1, 8),
        "model.text_hidden_fcs.0.0.weight": linear(8, size),
        "model.text_hidden_fcs.0.0.bias": linear(8),
    }


def clip_weights():
    random = torch.Generator().manual_seed(6)

    def linear(*shape):
        return torch.randn(shape, generator=random) / torch.Size(shape[1:]).numel() ** 0.5

    size, weights = (
        CLIP_SIZE,
        {"logit_scale": torch.tensor(4.6), "visual_projection.weight": linear(32, CLIP_SIZE)},
    )
    weights["text_projection.weight"] = linear(32, 32)
    weights["text_model.final_layer_norm.weight"] = torch.ones(32)
    at = "vision_model."
    weights[f"{at}embeddings.class_embedding"] = torch.randn(size, generator=random)
    weights[f"{at}embeddings.patch_embedding.weight"] = linear(size, 3, PATCH, PATCH)
    weights[f"{at}embeddings.position_embedding.weight"] = linear(N_VISUAL + 1, size) * 4
    weights[f"{at}embeddings.position_ids"] = torch.arange(N_VISUAL + 1)[None]
    norms = [f"{at}pre_layrnorm", f"{at}post_layernorm"]
    for layer in range(CLIP_LAYERS):
        block = f"{at}encoder.layers.{layer}."
        norms += [f"{block}layer_norm1", f"{block}layer_norm2"]
        shapes = {f"self_attn.{n}": (size, size) for n in ("q_proj", "k_proj", "v_proj", "out_proj")}
        for name, shape in (shapes | {"mlp.fc1": (96, size), "mlp.fc2": (size, 96)}).items():
            weights[f"{block}{name}.weight"], weights[f"{block}{name}.bias"] = (
                linear(*shape),
                linear(shape[0], 1)[:, 0],
            )
    for norm in norms:
        weights[f"{norm}.weight"], weights[f"{norm}.bias"] = torch.ones(size), torch.zeros(size)
    return weights


def save_shards(folder, weights, shards, safetensors=False):
    """In `shards` files with an index, or in one without."""
    stem, end = ("model", "safetensors") if safetensors else ("pytorch_model", "bin")
    keys = list(weights)
    names = (
        [f"{stem}-{i:05d}-of-{shards:05d}.{end}" for i in range(1, shards + 1)]
        if shards > 1
        else [f"{stem}.{end}"]
    )
    for i, name in enumerate(names):
        part = {key: weights[key] for key in keys[i::shards]}
        if safetensors:
            from safetensors.torch import save_file

            save_file({k: v.contiguous() for k, v in part.items()}, folder / name)
        else:
            torch.save(part, folder / name)
    if shards > 1:
        weight_map = {key: names[i % shards] for i, key in enumerate(keys)}
        write_json(folder / f"{stem}.{end}.index.json", {"metadata": {}, "weight_map": weight_map})


def write_json(path, content):
    path.write_text(json.dumps(content))


def learnt_pieces(n_merges=400):
    """(text, score, type) in LLaMA's order: three of control, 256 bytes, merges, single characters."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()
    bpe.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=n_merges, show_progress=False))
    merged = [left + right for left, right in json.loads(bpe.to_str())["model"]["merges"]]
    single = sorted(text for text in bpe.get_vocab() if len(text) == 1)
    texts = list(dict.fromkeys([*merged, *single]))
    return [*fixed_pieces(), *((text, -float(place), 1) for place, text in enumerate(texts))]


def fixed_pieces():
    bytes_ = [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    return [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *bytes_]


def sentencepiece_model(pieces, trainer=((3, 2), (35, 1)), normalizer=((1, b"identity"), (3, 1), (4, 0))):
    """The bytes of a tokenizer.model: pieces, then (field, value) pairs of the two specs."""
    message = b""
    for text, score, kind in pieces:
        message += field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + field(3, kind))
    for number, spec in ((2, trainer), (3, normalizer)):
        message += field(number, b"".join(field(*pair) for pair in spec))
    return message


def field(number, value):
    """A protobuf field of an int or of bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])
