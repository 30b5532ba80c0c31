"""Where a model looks when it answers: attention row, visual share and token norms, batch by batch.

The model's own answer is put behind the prompt and one forward pass is made; the row is taken as in
training, so a probe costs what a prefill costs and its memory does not grow with the square of the length.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.errors import EvalkitError
from evalkit.records import Sample
from evalkit.targets import marks
from evalkit.task import TaskSpec
from model_adapters.families import TokenGrid
from model_adapters.hf_local import HfLocal
from trainers.attention import RowRequest, use_row_attention
from trainers.batches import Collator, Example, Item, make_example
from trainers.spec import KlalSpec


@dataclass(frozen=True, slots=True)
class Found:
    """A row of a probe, and the sample's maps over its (rows, cols) visual tokens.

    attention: (V,) float32, Q of Eq. 3 averaged over layers; norm: (V,) float32, L2 after the last layer.
    """

    row: dict[str, Any]
    grid: TokenGrid
    attention: NDArray[np.float32] | None = None
    norm: NDArray[np.float32] | None = None


def probe(
    adapter: HfLocal,
    task: TaskSpec,
    samples: Sequence[Sample],
    answers: Mapping[str, str],
    *,
    query: str = "last_answer",
    batch_size: int = 8,
    attention: str = "sdpa",
) -> Iterator[Found]:
    """One Found a sample, in the order of `samples`. answers: sample id -> the text that is probed.

    A sample that cannot be probed (an empty answer, nothing to look at) gets a row with `skipped`.
    """
    use_row_attention(adapter.model, attention)
    collator = Collator(adapter.maker)
    for start in range(0, len(samples), batch_size):
        prepared = [
            _prepare(adapter, task, s, answers[s.sample_id], query)
            for s in samples[start : start + batch_size]
        ]
        examples = [one for one in prepared if isinstance(one, Example)]
        measured = iter(_measure(adapter, collator, examples) if examples else [])
        for sample, one in zip(samples[start : start + batch_size], prepared, strict=True):
            grid = adapter.maker.family.grid(sample.image_size_wh)
            common = {
                "sample_id": sample.sample_id,
                "cluster": sample.image_id,
                "answer": answers[sample.sample_id],
            }
            if isinstance(one, str):
                yield Found(common | {"skipped": one}, grid)
            else:
                yield _found(common, next(measured), one.target > 0, grid)


def _prepare(adapter: HfLocal, task: TaskSpec, sample: Sample, answer: str, query: str) -> Example | str:
    """The sequence to probe, its target patches as `target`; or why there is none."""
    found = marks(task.dataset, sample)
    if found.absent:
        return "no target: the answer is that nothing is there"
    if not answer.strip():
        return "empty answer"
    try:
        # sigma 0: the target tokens themselves, as in the paper's Fig. 4 and Table 5
        spec = KlalSpec(query=query, sigma=0.0)  # type: ignore[arg-type]  # checked by pydantic
        return make_example(Item(task, sample, answer), adapter.maker, spec)
    except EvalkitError as error:
        return str(error)


def _measure(
    adapter: HfLocal, collator: Collator, examples: Sequence[Example]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Per example: Q (L, V), share (L,), norms (V,), float32 on the CPU."""
    batch = {name: tensor.to(adapter.device) for name, tensor in collator(examples).items()}
    batch["pixel_values"] = batch["pixel_values"].to(adapter.model.dtype)
    for name in ("labels", "target", "klal_weight"):
        del batch[name]
    request = RowRequest(
        batch.pop("query_index"),
        batch.pop("key_index"),
        batch.pop("key_mask"),
        valid=batch["attention_mask"].bool(),
    )
    last: list[Tensor] = []
    layers = adapter.model.model.language_model.layers
    hook = layers[-1].register_forward_hook(
        lambda _m, _i, out: last.append(out if torch.is_tensor(out) else out[0])
    )
    try:
        with torch.inference_mode():
            adapter.model(**batch, attention_row=request, use_cache=False, logits_to_keep=1)
    finally:
        hook.remove()
    attention = torch.stack(
        [request.rows[layer].exp().mean(1) for layer in sorted(request.rows)], 1
    )  # (B, L, N)
    share = torch.stack([request.shares[layer].mean(1) for layer in sorted(request.shares)], 1)  # (B, L)
    index = request.key_index[:, :, None].expand(-1, -1, last[0].shape[-1])
    norms = last[0].gather(1, index).float().norm(dim=-1)  # (B, N)
    counts = request.key_mask.sum(1).tolist()
    return [
        (attention[b, :, :n].float().cpu(), share[b].float().cpu(), norms[b, :n].cpu())
        for b, n in enumerate(counts)
    ]


def _found(
    common: dict[str, Any],
    measured: tuple[Tensor, Tensor, Tensor],
    target: NDArray[np.bool_],
    grid: TokenGrid,
) -> Found:
    attention, share, norms = measured
    here = torch.from_numpy(target)
    ratio = attention[:, here].mean(1) / attention.mean(1)  # (L,)
    row = common | {
        "n_visual": len(target),
        "n_target": int(target.sum()),
        "ratio": [round(v, 6) for v in ratio.tolist()],
        "share": [round(v, 6) for v in share.tolist()],
        "norm_target": round(float(norms[here].mean()), 6),
        "norm_visual": round(float(norms.mean()), 6),
    }
    return Found(row, grid, attention.mean(0).numpy(), norms.numpy())
