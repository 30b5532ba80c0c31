"""How many floating-point operations a training sample costs. No torch.

A multiplication and an addition count as two, attention as if every token saw every other (kernels that leave out
what a causal mask hides do half of it): as torch.utils.flop_counter counts, beside which
`python -m benchmarks.train_memory` puts it.
"""

from dataclasses import dataclass

from trainers.memory import lora_weights
from trainers.shapes import Shape, Tower
from trainers.spec import TrainSpec


@dataclass(frozen=True, slots=True)
class MeanSample:
    """A sample in tokens, all of them, visual ones, and those of its answer; and its image in patches."""

    length: float
    n_visual: float
    n_patches: float
    n_answer: float


@dataclass(frozen=True, slots=True)
class Flops:
    """Of one sample: the vision tower with the projector, the language model's passes, and the logits."""

    vision: float
    forward: float
    again: float  # the forward pass that checkpointing repeats
    backward: float
    logits: float

    @property
    def total(self) -> float:
        return self.vision + self.forward + self.again + self.backward + self.logits


def flops_of(shape: Shape, spec: TrainSpec, sample: MeanSample) -> Flops:
    """Of one sample's part of a training step. KLAL's rows, norms and the optimiser are left out: under 1 %."""
    language, tokens = shape.language, sample.length
    matrices = 2.0 * language.layers * language.matrix_weights * tokens
    attention = language.layers * _attention(language, tokens, tokens)
    adapters = 2.0 * lora_weights(shape, spec) * tokens if spec.tuning == "lora" else 0.0
    forward = matrices + attention + adapters
    # gradients to what is below cost as much as the forward pass; those of weights as much again, where trained;
    # attention's take five products where it took two, one of them done again
    backward = 2.5 * attention + 2 * adapters + matrices * (1 if spec.tuning == "lora" else 2)
    head = 2.0 * shape.embedding * sample.n_answer
    trains_vision = spec.tuning == "full" and "vision" not in spec.freeze
    trains_projector = spec.tuning == "full" and "projector" not in spec.freeze
    tower, projector = _vision(shape, sample)
    below = tower * ((4 if spec.checkpointing else 3) if trains_vision else 1)
    below += projector * (3 if trains_projector else 1)
    # a layer is run again up to the last value that its backward pass needs: not its last product, but for adapters
    last = 0.0 if spec.tuning == "lora" else 2.0 * language.layers * language.mlp * language.width * tokens
    return Flops(
        vision=below,
        forward=forward,
        again=forward - last if spec.checkpointing else 0.0,
        backward=backward,
        logits=head * (2 if spec.tuning == "lora" else 3),
    )


def _attention(tower: Tower, queries: float, keys: float) -> float:
    """Of one layer: queries x keys, and weights x values."""
    return 4.0 * queries * keys * tower.q_width


def _vision(shape: Shape, sample: MeanSample) -> tuple[float, float]:
    """(the tower's forward pass, the projector's), of one image."""
    tower = shape.vision
    tokens = sample.n_patches + (1 if shape.class_token else 0)
    windowed = tower.layers - shape.full_attention_layers if shape.window else 0
    attention = (tower.layers - windowed) * _attention(tower, tokens, tokens)
    if windowed:
        attention += windowed * _attention(tower, tokens, min(tokens, float(shape.window**2)))
    patches = 2.0 * shape.patch_values * tower.width * sample.n_patches
    wide, out = tower.width * shape.merge**2, shape.language.width
    inner = wide if shape.family == "qwen2_5_vl" else out
    projector = 2.0 * (wide * inner + inner * out) * sample.n_visual
    return 2.0 * tower.layers * tower.matrix_weights * tokens + attention + patches, projector
