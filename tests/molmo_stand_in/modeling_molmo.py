"""The stand-in's model: two layers of attention over embeddings, positions and patches of image.

Like the released one it was written for transformers 4: no post_init, no GenerationMixin, a tie_weights without
arguments, a list of (key, value) pairs as its cache, -1 as padding.
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .config_molmo import MolmoConfig


class Layer(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.query, self.key = nn.Linear(size, size, bias=False), nn.Linear(size, size, bias=False)
        self.value, self.out = nn.Linear(size, size, bias=False), nn.Linear(size, size, bias=False)

    def forward(self, x, bias, past):
        normed = nn.functional.layer_norm(x, x.shape[-1:])
        query, key, value = self.query(normed), self.key(normed), self.value(normed)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=1), torch.cat([past[1], value], dim=1)
        scores = query @ key.transpose(1, 2) / x.shape[-1] ** 0.5 + bias
        return x + self.out(scores.softmax(-1) @ value), (key, value)


class Molmo(nn.Module):
    def __init__(self, config):
        super().__init__()
        size = config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, size)
        self.positions = nn.Embedding(1024, size)
        self.patches = nn.Linear(config.patch_values, size, bias=False)
        self.layers = nn.ModuleList(Layer(size) for _ in range(config.num_hidden_layers))
        self.head = nn.Linear(size, config.vocab_size, bias=False)

    def see(self, images, image_masks):
        """(B, T, N, D) -> (B, T, N, hidden); nothing where a whole crop is -1."""
        is_image = ~torch.all(images == -1, dim=(2, 3), keepdim=True)
        return self.patches(images) * image_masks.clamp_min(0)[..., None].to(images.dtype) * is_image


class MolmoForCausalLM(PreTrainedModel):
    config_class = MolmoConfig
    base_model_prefix = "model"
    _no_split_modules = ("Layer",)

    def __init__(self, config):
        super().__init__(config)
        self.model = Molmo(config)

    def can_generate(self):
        return True

    def tie_weights(self):
        raise AssertionError("the released method is a no-op; this one shows that it is not called")

    def get_input_embeddings(self):
        return self.model.embedding

    def get_output_embeddings(self):
        return self.model.embedding if self.config.weight_tying else self.model.head

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        images=None,
        image_masks=None,
        image_input_idx=None,
        position_ids=None,
        past_key_values=None,
        use_cache=None,
        last_logits_only=None,
        append_last_valid_logits=None,
        return_dict=None,
    ):
        assert images is None or past_key_values is None, "no images beside a cache"
        if return_dict is None:
            return_dict = self.config.use_return_dict
        past_length = 0 if past_key_values is None else past_key_values[0][0].shape[1]
        rows, length = input_ids.shape
        assert attention_mask.shape == (rows, past_length + length)
        x = self.model.embedding(input_ids * (input_ids != -1))
        if images is not None:
            features = self.model.see(images, image_masks).flatten(1, 2)  # (B, T * N, hidden)
            places = image_input_idx.flatten(1)
            row = torch.arange(rows)[:, None].expand_as(places)
            there = places >= 0
            x[row[there], places[there]] += features[there]
        x = x + self.model.positions(position_ids)
        whole = past_length + length
        causal = torch.ones(whole, whole, dtype=torch.bool).tril()[past_length:]
        allowed = causal[None] & attention_mask.bool()[:, None]
        bias = torch.zeros_like(allowed, dtype=x.dtype).masked_fill(~allowed, torch.finfo(x.dtype).min)
        cache = []
        for i, layer in enumerate(self.model.layers):
            x, pair = layer(x, bias, past_key_values[i] if past_key_values else None)
            cache.append(pair)
        if last_logits_only:
            at = append_last_valid_logits
            x = x[:, -1:] if at is None else x[torch.arange(rows), at][:, None]
        logits = self.model.head(nn.functional.layer_norm(x, x.shape[-1:]))
        if not return_dict:
            return (logits, cache)
        return CausalLMOutputWithPast(logits=logits, past_key_values=cache if use_cache else None)
