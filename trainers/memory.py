"""How many bytes one device holds in a training step, by what it holds them for. No torch.

What autograd keeps of each layer was read off the layers of transformers 5.19 one saved tensor at a time, under
float32 and under autocast to bfloat16; `python -m benchmarks.train_memory` measures whole trainings beside it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from evalkit.errors import ConfigError
from trainers.shapes import Shape
from trainers.spec import TrainSpec

GIB = 2**30
# What is not tensors of ours: the CUDA context with its libraries' workspaces, and what the caching allocator
# loses between blocks. Assumed, not measured.
CONTEXT_BYTES = 1_200_000_000
FRAGMENTATION = 0.05
_FP32, _BF16 = 4, 2


@dataclass(frozen=True, slots=True)
class Term:
    """One line of the arithmetic. how: the formula with its numbers."""

    name: str
    n_bytes: int
    how: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What one device sees at once, at its longest.

    n: sequences; length: tokens of each, padded; n_visual: visual tokens of each; n_patches: patches of each image;
    n_answer: answer tokens of each; padded: whether sequences of several lengths stand together.
    """

    n: int
    length: int
    n_visual: int
    n_patches: int
    n_answer: int
    padded: bool


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one device: what stays, what each phase of a step adds, and the most of them."""

    stays: list[Term]
    forward: list[Term]  # at the end of the forward pass
    backward: list[Term]  # where the backward pass holds most
    step: list[Term]  # while the optimiser steps
    loaded: int  # bytes of the whole model as it is read from disk

    @property
    def phases(self) -> dict[str, int]:
        stays = _sum(self.stays)
        return {
            "forward": stays + _sum(self.forward),
            "backward": stays + _sum(self.backward),
            "optimiser step": stays + _sum(self.step),
        }

    @property
    def tensors(self) -> int:
        """The peak of what tensors hold, in bytes."""
        return max(self.phases.values())

    @property
    def peak(self) -> int:
        """With the context of a GPU and its allocator's losses."""
        return round(self.tensors * (1 + FRAGMENTATION)) + CONTEXT_BYTES


def _sum(terms: Iterable[Term]) -> int:
    return sum(term.n_bytes for term in terms)


def memory_of(shape: Shape, spec: TrainSpec, batch: Batch, world: int, *, fused: bool = True) -> Memory:
    """What one device of `world` holds.

    fused: the optimiser of GPUs, which needs no space of its own; that of CPUs holds two copies of the largest
    weight.
    """
    weights = _Weights.of(shape, spec)
    parts = world if spec.sharding == "fsdp" else 1
    saved, boundaries, working = _activations(shape, spec, batch)
    casts, layer_casts = _casts(shape, spec, weights, sharded=parts > 1)
    trained = _n(weights.trained)
    gradients = Term("gradients", 4 * weights.trained // parts, f"4 B x {trained}{_per(parts)}")
    accumulated = [gradients] if spec.batch_size > batch.n * world else []
    images = _FP32 * batch.n * batch.n_patches * shape.patch_values
    stays = [
        Term("weights", weights.n_bytes // parts, weights.how + _per(parts)),
        Term("Adam's two moments", 8 * weights.trained // parts, f"8 B x {trained}{_per(parts)}"),
        Term("images", images, f"{batch.n} x {_n(batch.n_patches)} patches x {shape.patch_values} x 4 B"),
    ]
    if world > 1 and parts == 1:
        stays.append(Term("DDP's buckets", 4 * weights.trained, f"4 B x {trained}"))
    forward, backward = [*accumulated], []
    if parts > 1:
        forward += _gathered(shape, spec)
        backward += _gathered(shape, spec, backward=True)
    if spec.checkpointing:
        forward += [boundaries, *casts]
        backward += [gradients, boundaries, *saved, *layer_casts, working]
    else:
        forward += [*saved, *casts]
        # as gradients grow, what the layers have saved is let go: the most is at one of the ends
        at_start, at_end = [*accumulated, *saved, *casts], [gradients]
        backward += [*(at_start if _sum(at_start) > _sum(at_end) else at_end), working]
    forward.append(_logits(shape, spec, batch))
    return Memory(stays, forward, backward, [gradients, _scratch(shape, spec, parts, fused)], weights.n_bytes)


def _scratch(shape: Shape, spec: TrainSpec, parts: int, fused: bool) -> Term:
    largest = max(shape.embedding, shape.language.mlp * shape.language.width) // parts
    n_bytes = 0 if fused or spec.tuning == "lora" else 2 * _FP32 * largest
    return Term("the optimiser's own", n_bytes, f"2 x 4 B x {_n(largest)}, the largest weight")


@dataclass(frozen=True, slots=True)
class _Weights:
    """trained: how many, whole or of adapters. n_bytes: of all as they are loaded, adapters included."""

    trained: int
    n_bytes: int
    how: str

    @classmethod
    def of(cls, shape: Shape, spec: TrainSpec) -> "_Weights":
        total = sum(shape.weights.values())
        if spec.tuning == "lora":
            adapters = lora_weights(shape, spec)
            width = _BF16 if spec.precision == "bfloat16" else _FP32
            how = f"{width} B x {_n(total)} + 4 B x {_n(adapters)} of adapters"
            return cls(adapters, width * total + _FP32 * adapters, how)
        trained = sum(n for part, n in shape.weights.items() if part not in spec.freeze)
        return cls(trained, _FP32 * total, f"4 B x {_n(total)}")


def lora_weights(shape: Shape, spec: TrainSpec) -> int:
    """Of all adapters. Raises ConfigError where lora.modules names no projection of the language model."""
    return shape.language.layers * sum(
        spec.lora.r * (n_in + n_out) for n_in, n_out in adapted(shape, spec).values()
    )


def adapted(shape: Shape, spec: TrainSpec) -> dict[str, tuple[int, int]]:
    """The projections of a decoder layer that have an adapter: name -> (inputs, outputs)."""
    try:
        modules = re.compile(spec.lora.modules)
    except re.error as error:
        raise ConfigError(
            f"lora.modules {spec.lora.modules!r}: not a regular expression ({error})."
        ) from None
    where = {name: "self_attn" if name in "qkvo" else "mlp" for name in shape.language.projections}
    found = {
        name: dims
        for name, dims in shape.language.projections.items()
        if modules.fullmatch(f"model.language_model.layers.0.{where[name]}.{name}_proj")
    }
    if not found:
        raise ConfigError(
            f"lora.modules {spec.lora.modules!r}: --plan knows adapters of the language model's projections alone."
        )
    return found


def trained_weights(shape: Shape, spec: TrainSpec) -> int:
    return _Weights.of(shape, spec).trained


def _activations(shape: Shape, spec: TrainSpec, batch: Batch) -> tuple[list[Term], Term, Term]:
    """(what layers save, what checkpointing keeps instead, what one layer's backward pass works with).

    With checkpointing the first is of one layer alone: the one that is run again.
    """
    layers, tokens = shape.language.layers, batch.n * batch.length
    again = 1 if spec.checkpointing else layers
    a_token, how = _saved_a_token(shape, spec, batch)
    times = f"{again} layer{'s' if again > 1 else ''} x {_n(tokens)} tokens x {_n(a_token)} B"
    saved = [Term("activations", again * tokens * a_token, f"{times} ({how})")]
    if spec.objective == "ntp_klal":
        row = batch.n * batch.n_visual * _FP32
        a_layer = row * (shape.language.heads + shape.language.kv_width)
        heads, width = shape.language.heads, shape.language.kv_width
        rows = (
            f"{again} x {batch.n} x {batch.n_visual} visual tokens x 4 B x ({heads} heads + {width} of keys)"
        )
        saved.append(Term("KLAL's rows", again * a_layer, rows))
    stream = _BF16 if spec.tuning == "lora" and spec.precision == "bfloat16" else _FP32
    edge = stream * shape.language.width
    boundaries = layers * tokens * edge
    how_kept = f"{layers} layers x {_n(tokens)} tokens x {_n(edge)} B"
    if "vision" not in spec.freeze and spec.tuning == "full":
        saved.append(_vision(shape, spec, batch))
        boundaries += (
            shape.vision.layers * batch.n * _vision_tokens(shape, batch) * _FP32 * shape.vision.width
        )
        how_kept += " + the vision tower's"
    kept = Term("inputs of layers", boundaries, how_kept)
    half = spec.precision == "bfloat16"
    # gradients of the MLP's inner values and of the residual stream, and of float32 copies that adapters make
    inner = (3 * _BF16 if half else 3 * _FP32) * shape.language.mlp
    inner += _FP32 * shape.language.mlp if half and spec.tuning == "lora" else 0
    working = tokens * (inner + 3 * _FP32 * shape.language.width)
    return (
        saved,
        kept,
        Term("a layer's backward pass", working, f"{_n(tokens)} tokens x {_n(working // tokens)} B"),
    )


def _saved_a_token(shape: Shape, spec: TrainSpec, batch: Batch) -> tuple[int, str]:
    """Bytes that one decoder layer saves for a token, and the formula.

    d: width; k: width of keys and of values; f: the MLP's inner width; h: a head's width.
    Norms save their input (and, trained, its normalised values) in float32, projections their input once each
    where weights are trained, attention its queries, keys, values and output, the gated MLP four inner values.
    """
    tower = shape.language
    lora = spec.lora.r * len(adapted(shape, spec)) if spec.tuning == "lora" else 0
    d, f, h = tower.width, tower.mlp, tower.head_width
    repeated = (
        batch.padded and tower.kv_heads < tower.heads
    )  # under a mask, keys and values are repeated for all heads
    k = tower.q_width if repeated else tower.kv_width
    small = 4 * tower.heads + 8
    if spec.precision == "float32":
        if lora:
            return 24 * d + 8 * k + 16 * f + 4 * lora + 8 * h + small, "24 d + 8 k + 16 f + 4 r a projection"
        return 32 * d + 8 * k + 16 * f + 8 * h + small, "32 d + 8 k + 16 f"
    if lora:
        return 24 * d + 4 * k + 8 * f + 2 * lora + 4 * h + small, "24 d + 4 k + 8 f + 2 r a projection"
    return 30 * d + 4 * k + 4 * tower.kv_width + 8 * f + 8 * h + small, "30 d + 8 k + 8 f"


def _vision(shape: Shape, spec: TrainSpec, batch: Batch) -> Term:
    """What a trained vision tower saves; a frozen one saves nothing."""
    tower, tokens = shape.vision, batch.n * _vision_tokens(shape, batch)
    half = spec.precision == "bfloat16"
    if shape.family == "qwen2_5_vl":
        width, inner, rest = (32, 8, 8 * tower.head_width) if half else (52, 16, 8 * tower.head_width)
    else:
        width, inner, rest = (24, 6, 8) if half else (32, 12, 8)
    a_token = width * tower.width + inner * tower.mlp + rest + 4 * tower.heads + 8
    again = 1 if spec.checkpointing else tower.layers
    how = f"{again} x {_n(tokens)} patches x {_n(a_token)} B ({width} d + {inner} f)"
    return Term("the vision tower's activations", again * tokens * a_token, how)


def _vision_tokens(shape: Shape, batch: Batch) -> int:
    return batch.n_patches + (1 if shape.class_token else 0)


def _casts(
    shape: Shape, spec: TrainSpec, weights: _Weights, *, sharded: bool
) -> tuple[list[Term], list[Term]]:
    """(bfloat16 copies of float32 weights in the forward pass, those of the layer that is run again)."""
    if spec.precision != "bfloat16":
        return [], []
    adapters = spec.tuning == "lora"
    a_layer = weights.trained // shape.language.layers if adapters else shape.language.matrix_weights
    once = Term("bfloat16 copies of a layer", _BF16 * a_layer, f"2 B x {_n(a_layer)}")
    if sharded and spec.checkpointing:  # not kept: see trainers.trainer
        return [once], [once]
    n = weights.trained - (
        0 if adapters or shape.tied else shape.embedding
    )  # embeddings are looked up as they are
    return [Term("bfloat16 copies", _BF16 * n, f"2 B x {_n(n)}, autocast's")], [once]


def _gathered(shape: Shape, spec: TrainSpec, *, backward: bool = False) -> list[Term]:
    """FSDP: what stands outside of layers stays together through a pass; of layers the one at work and the next.

    Each is there twice while it is put together; so are gradients of weights that are trained whole.
    """
    lora = spec.tuning == "lora"
    width = _BF16 if lora and spec.precision == "bfloat16" else _FP32
    layer = width * shape.language.layer_weights
    layer += _FP32 * lora_weights(shape, spec) // shape.language.layers if lora else 0
    outside = width * shape.outside_layers
    what = f"outside of layers {width} B x {_n(shape.outside_layers)}, a layer {_n(layer)} B"
    if not backward:
        return [
            Term(
                "gathered",
                max(2 * outside, outside + 3 * layer),
                f"{what}; max(2 outside, outside + 3 layers)",
            )
        ]
    if lora:
        return [Term("gathered", outside + 3 * layer, f"{what}; outside + 3 layers")]
    most = max(2 * outside, 3 * outside // 2 + 4 * layer)
    return [Term("gathered, with its gradients", most, f"{what}; max(2 outside, 1.5 outside + 4 layers)")]


def _logits(shape: Shape, spec: TrainSpec, batch: Batch) -> Term:
    """At answer positions alone: as the model makes them, in float32, their log-softmax, and its gradient."""
    n = batch.n * batch.n_answer * shape.vocabulary
    width = (_BF16 if spec.precision == "bfloat16" else 0) + 3 * _FP32
    return Term(
        "logits",
        width * n,
        f"{batch.n} x {batch.n_answer} answer tokens x {_n(shape.vocabulary)} x {width} B",
    )


def _per(parts: int) -> str:
    return f" / {parts} devices" if parts > 1 else ""


def _n(n: int) -> str:
    """12,345 or 8.29 G: a number for a formula."""
    return f"{n / 1e9:.2f} G" if n >= 1e9 else f"{n / 1e6:.1f} M" if n >= 1e7 else f"{n:,}"
