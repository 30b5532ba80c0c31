"""One row of attention a layer, taken beside SDPA or FlashAttention: no eager attention, no S x S matrices.

KLAL compares the attention that one position pays to the visual tokens. Renormalised over these tokens
(Sec. 3 of arXiv 2511.12738) the row is the softmax over their logits alone,

    alpha_v = exp(q.k_v / sqrt(d)) / sum over visual u of exp(q.k_u / sqrt(d)),

because the full row's partition function cancels. So a layer needs one query and V keys: O(V) memory
where eager attention stores H * S * S numbers. Queries and keys are seen after the rotary embedding and
before key-value heads are repeated, in the layer's own attention function; nothing is computed twice.

    name = row_attention("sdpa")                       # registers it once
    model.set_attn_implementation({"text_config": name, "vision_config": "sdpa"})
    request = RowRequest(query_index, key_index, key_mask)
    model(**inputs, attention_row=request)
    request.rows                                       # {layer: (B, H, N) log alpha, float32}
"""

from collections.abc import Callable, Collection
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from evalkit.errors import TrainError

_PREFIX = "evalkit_row_"
MASKED = -1e30  # finite: -inf over all heads makes the gradient of logsumexp NaN


class RowRequest:
    """Which row to take, and the rows once the model ran. Travels through the model's keyword arguments.

    query_index: (B,) int64, the position whose attention is taken, in the padded sequence.
    key_index:   (B, N) int64, positions of the visual tokens in grid order; any value where masked.
    key_mask:    (B, N) bool, False where a sample has fewer than N visual tokens.
    layers:      which layers; None for all.
    valid:       (B, S) bool, the tokens that are not padding; only needed for `shares`.

    rows:   layer -> (B, H, N) float32, log of the attention renormalised over the visual tokens.
    shares: layer -> (B, H) float32, which part of the whole row goes to visual tokens, in [0, 1];
            filled when `valid` is given.

    Not a dataclass on purpose: FSDP copies dataclasses in keyword arguments, and rows would be lost.
    """

    def __init__(
        self,
        query_index: Tensor,
        key_index: Tensor,
        key_mask: Tensor,
        layers: Collection[int] | None = None,
        valid: Tensor | None = None,
    ) -> None:
        self.query_index, self.key_index, self.key_mask = query_index, key_index, key_mask
        self.layers = None if layers is None else frozenset(layers)
        self.valid = valid
        self.rows: dict[int, Tensor] = {}
        self.shares: dict[int, Tensor] = {}
        self._open = True

    def wants(self, layer: int) -> bool:
        return self.layers is None or layer in self.layers

    def record(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        """Take the row of one layer. query: (B, Hq, S, D); key: (B, Hkv, S, D), both after RoPE."""
        row = visual_row(query, key, scaling, self.query_index, self.key_index, self.key_mask)
        if self._open:  # checkpointing runs the layer again in backward: same work, nothing kept
            self.rows[layer] = row
            if self.valid is not None:
                self.shares[layer] = visual_share(
                    query, key, scaling, self.query_index, self.key_index, self.key_mask, self.valid
                )

    def close(self) -> None:
        """Let go of the rows once the loss is made: the graph keeps what backward needs."""
        self._open = False
        self.rows, self.shares = {}, {}


def visual_row(
    query: Tensor, key: Tensor, scaling: float, query_index: Tensor, key_index: Tensor, key_mask: Tensor
) -> Tensor:
    """log alpha of one position over the visual tokens, (B, Hq, N) float32; MASKED where key_mask is False.

    query: (B, Hq, S, D); key: (B, Hkv, S, D) with Hq a multiple of Hkv: head h reads kv head h // (Hq / Hkv).
    No causal mask is needed: the image stands before every answer.
    """
    logits = _logits(query, _taken(key, key_index), scaling, query_index)
    return logits.masked_fill(~key_mask.to(logits.device)[:, None], MASKED).log_softmax(-1)


def visual_share(
    query: Tensor,
    key: Tensor,
    scaling: float,
    query_index: Tensor,
    key_index: Tensor,
    key_mask: Tensor,
    valid: Tensor,
) -> Tensor:
    """Which part of a position's whole attention goes to visual tokens, (B, Hq) float32 in [0, 1]."""
    logits = _logits(query, key, scaling, query_index)  # (B, Hq, S)
    before = torch.arange(key.shape[2], device=key.device) <= query_index.to(key.device)[:, None]
    seen = (before & valid.to(key.device))[:, None]
    whole = logits.masked_fill(~seen, MASKED).logsumexp(-1)
    visual = _logits(query, _taken(key, key_index), scaling, query_index)
    visual = visual.masked_fill(~key_mask.to(key.device)[:, None], MASKED).logsumexp(-1)
    return (visual - whole).exp()


def _taken(key: Tensor, key_index: Tensor) -> Tensor:
    """(B, Hkv, S, D) -> (B, Hkv, N, D), the keys of the visual tokens."""
    batch, kv_heads, _, width = key.shape
    index = key_index.to(key.device)[:, None, :, None].expand(batch, kv_heads, key_index.shape[1], width)
    return key.gather(2, index)


def _logits(query: Tensor, key: Tensor, scaling: float, query_index: Tensor) -> Tensor:
    """Scaled dot products of one query a sample with (B, Hkv, N, D) keys -> (B, Hq, N) float32.

    The query is folded to (Hkv, group, D), so that keys are not repeated for grouped heads.
    """
    batch, heads, _, width = query.shape
    kv_heads, n = key.shape[1], key.shape[2]
    rows = torch.arange(batch, device=query.device)
    one = query[rows, :, query_index.to(query.device)].view(batch, kv_heads, heads // kv_heads, width)
    with torch.autocast(device_type=query.device.type, enabled=False):  # it would multiply in half precision
        logits = torch.einsum("bkgd,bknd->bkgn", one.float(), key.float())
    return logits.reshape(batch, heads, n) * scaling


def row_attention(base: str) -> str:
    """Register the attention that records a row beside `base` and return its name.

    base: an attention of transformers that computes the output: sdpa, flash_attention_2, ...
    Raises TrainError for eager, which is what this replaces, and for a name that is not known.
    """
    interfaces = import_module("transformers.modeling_utils").ALL_ATTENTION_FUNCTIONS
    masks = import_module("transformers.masking_utils").ALL_MASK_ATTENTION_FUNCTIONS
    name = _PREFIX + base
    if base == "eager" or base not in interfaces.valid_keys() or base not in masks.valid_keys():
        known = sorted(k for k in interfaces.valid_keys() if k in masks.valid_keys() and k != "eager")
        raise TrainError(f"No attention {base!r} to take a row beside. Known: {', '.join(known)}.")
    if name not in interfaces.valid_keys():
        interfaces.register(name, _recording(interfaces[base]))
        # Without a mask function of that name the mask is silently None, and left padding attended to.
        masks.register(name, masks[base])
    return name


def _recording(attention: Callable[..., Any]) -> Callable[..., Any]:
    def forward(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        attention_row: RowRequest | None = None,
        **kwargs: Any,
    ) -> Any:
        out = attention(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
        layer = getattr(module, "layer_idx", None)
        if attention_row is not None and layer is not None and attention_row.wants(layer):
            scale = query.shape[-1] ** -0.5 if scaling is None else scaling
            attention_row.record(layer, query, key, scale)
        return out

    return forward


def use_row_attention(model: Any, base: str = "sdpa") -> None:
    """Let the language model's layers record rows; the vision tower keeps `base` as it is."""
    model.set_attn_implementation({"text_config": row_attention(base), "vision_config": base})


def attention_layers(model: Any) -> int:
    """How many layers the language model has."""
    return int(model.config.get_text_config().num_hidden_layers)


def require_gradient(rows: dict[int, Tensor]) -> None:
    """Raise TrainError when no row carries a gradient: KLAL would be computed and train nothing.

    That is what reentrant gradient checkpointing does: it runs the layers without a graph first.
    """
    if torch.is_grad_enabled() and rows and not any(row.requires_grad for row in rows.values()):
        raise TrainError(
            "No attention row carries a gradient, so KLAL would train nothing. Reentrant gradient checkpointing "
            "does that: pass gradient_checkpointing_kwargs={'use_reentrant': False}. Or q and k, and all below "
            "them, are frozen."
        )
