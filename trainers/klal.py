"""The KL attention loss (Eqs. 3-4 of arXiv 2511.12738), from rows of log attention, in nats and float32."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from evalkit.errors import TrainError

Heads = Literal["mean", "each"]


def klal(rows: Mapping[int, Tensor], target: Tensor, mask: Tensor, heads: Heads = "mean") -> Tensor:
    """KL attention loss of each sample, (B,) float32, at least 0; 0 exactly when every Q_l equals P.

        Q_l  = mean over heads of alpha_(l,h)                   (Eq. 3)
        loss = mean over layers of KL(P || Q_l)                 (Eq. 4)

    rows:   layer -> (B, H, N) log alpha, each row's exponentials sum to 1 over the visual tokens.
    target: (B, N), P of Eq. 5; sums to 1 over the visual tokens; zeros allowed (0 log 0 = 0).
    mask:   (B, N) bool, False on padding of samples with fewer visual tokens.
    heads:  "mean", Eq. 3; "each": the mean over heads of KL(P || alpha_(l,h)), which lets no head look elsewhere.

    Raises TrainError without any row: no layer recorded one.
    """
    if not rows:
        raise TrainError("No layer recorded an attention row: is the model's attention the recording one?")
    losses = [_divergence(log_alpha, target.float(), mask, heads) for log_alpha in rows.values()]
    return torch.stack([loss.to(losses[0].device) for loss in losses]).mean(0)


def _divergence(log_alpha: Tensor, target: Tensor, mask: Tensor, heads: Heads) -> Tensor:
    """KL(P || Q) of one layer, (B,). log_alpha: (B, H, N)."""
    target, mask = target.to(log_alpha.device), mask.to(log_alpha.device)
    # log of the mean over heads, without leaving log space: no epsilon, no underflow
    log_q = (
        log_alpha.logsumexp(1, keepdim=True) - math.log(log_alpha.shape[1]) if heads == "mean" else log_alpha
    )
    log_q = log_q.masked_fill(~mask[:, None], 0.0)  # (B, 1 or H, N)
    cross_entropy = -(target[:, None] * log_q).sum(-1).mean(1)  # (B,)
    return torch.xlogy(target, target).sum(-1) + cross_entropy


def chosen_layers(layers: Literal["all"] | int | Sequence[int], n_layers: int) -> frozenset[int]:
    """Which layers are supervised: "all", the last k (an int), or a list; -1 in a list is the last layer.

    Raises TrainError for a layer that is not there.
    """
    if layers == "all":
        return frozenset(range(n_layers))
    wanted = range(n_layers - layers, n_layers) if isinstance(layers, int) else [int(k) for k in layers]
    settled = frozenset(k + n_layers if k < 0 and not isinstance(layers, int) else k for k in wanted)
    if not settled or min(settled) < 0 or max(settled) >= n_layers:
        raise TrainError(f"layers {layers!r}: the model has {n_layers} layers, 0 to {n_layers - 1}.")
    return settled
