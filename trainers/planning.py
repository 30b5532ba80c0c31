"""What a training needs before it is started: memory of each GPU, and hours. No torch, nothing is loaded.

Memory is counted (trainers.memory), and so are floating-point operations (trainers.flops). Hours follow from them
by the share of its peak that a GPU is assumed to reach: a guess, which the first minutes of a training replace.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from evalkit.errors import ConfigError, Unavailable
from evalkit.frames import Frame
from evalkit.prompts import make_answer, make_prompt, resolve_frame
from evalkit.records import Prompt, Sample
from evalkit.sampling import stratified
from evalkit.task import TaskSpec
from model_adapters.checkpoints import local_checkpoint
from model_adapters.estimate import text_tokens
from model_adapters.families import Family, Qwen25VL, family_class
from model_adapters.local_inputs import InputMaker, loading
from model_adapters.registry import ModelEntry
from trainers.flops import Flops, MeanSample, flops_of
from trainers.machine import Machine
from trainers.memory import GIB, Batch, Memory, memory_of, trained_weights
from trainers.shapes import Shape, known_shape, shape_of
from trainers.spec import TrainSpec

MFU = 0.3
_CHAT = {"qwen2_5_vl": 24, "llava": 44}  # tokens that a chat puts around a question
_READ = 512  # samples whose texts are counted; images all are

# (question without its image, answer with its end) of a prompt and its answer, in tokens
Count = Callable[[Prompt, str], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the samples that are trained on.

    n: samples. longest: of visual tokens, question and answer, each at its most. varied: whether lengths differ.
    exact: counted by the checkpoint's tokenizer; else estimated by characters.
    """

    n: int
    mean: MeanSample
    longest: MeanSample
    varied: bool
    exact: bool


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """One training on one machine. mfu: share of its peak that a GPU is assumed to reach."""

    spec: TrainSpec
    machine: Machine
    shape: Shape
    lengths: Lengths
    steps: int
    memory: Memory  # of one GPU
    flops: Flops  # of one sample
    mfu: float

    @property
    def samples(self) -> int:
        """Seen in all steps together."""
        return self.steps * self.spec.batch_size

    @property
    def accumulation(self) -> int:
        return self.spec.batch_size // (self.spec.per_device_batch * self.machine.gpus)

    @property
    def hours(self) -> float:
        a_second = self.machine.gpus * self.machine.tflops * 1e12 * self.mfu
        return self.samples * self.flops.total / a_second / 3600

    @property
    def spare_gib(self) -> float:
        return self.machine.memory_gib - self.memory.peak / GIB

    @property
    def fits(self) -> bool:
        return self.spare_gib >= 0

    @property
    def host_gib(self) -> float:
        """Memory of the machine itself: every process loads the whole model before any of it moves to a GPU."""
        return self.machine.gpus * self.memory.loaded / GIB

    @property
    def disk_gib(self) -> float:
        """Of two checkpoints to resume from, and the exported one."""
        exported = self.memory.loaded if self.spec.export == "merged" or self.spec.tuning == "full" else 0
        return (2 * 12 * trained_weights(self.shape, self.spec) + exported) / GIB


def model_of(base: ModelEntry) -> tuple[Shape, Family, Count | None]:
    """(dimensions, image layout, tokenizer): of a folder as its files say, of a known Hub id as written down here.

    Raises ConfigError, Unavailable, AdapterError.
    """
    place = local_checkpoint(base.checkpoint or "")
    limits = {k: v for k in ("min_pixels", "max_pixels") if (v := base.options.get(k)) is not None}
    kind = family_class(base.family or "")
    if not isinstance(place, Path):
        shape = known_shape(place)
        if shape is None:
            raise ConfigError(
                f"--plan does not know the dimensions of {place}: fetch it and give its folder with --base."
            )
        return shape, kind(**limits) if kind is Qwen25VL else kind(), None
    try:
        transformers = import_module("transformers")
    except ImportError as error:
        raise Unavailable(
            f"Planning from a folder needs {error.name}: pip install 'evalkit-vlm[train]'."
        ) from None
    with loading(str(place), "config"):
        config = transformers.AutoConfig.from_pretrained(place)
    maker = InputMaker(str(place), kind, config, limits, {}, base.options.get("layout"))

    def count(prompt: Prompt, answer: str) -> tuple[int, int]:
        return len(maker.bare_ids(prompt)) - 1, len(maker.answer_ids(prompt, answer))

    return shape_of(config, kind.name, str(place)), maker.family, count


def make_plan(
    spec: TrainSpec, machine: Machine, shape: Shape, lengths: Lengths, mfu: float = MFU
) -> TrainPlan:
    """Raises ConfigError where the spec does not fit the number of GPUs."""
    at_once = spec.per_device_batch * machine.gpus
    if spec.batch_size % at_once:
        raise ConfigError(
            f"batch_size {spec.batch_size} is no multiple of per_device_batch {spec.per_device_batch} "
            f"x {machine.gpus} GPUs."
        )
    if spec.sharding == "fsdp" and machine.gpus == 1:
        raise ConfigError("sharding: fsdp spreads a model over several GPUs; this machine has one.")
    most, n = lengths.longest, spec.per_device_batch
    batch = Batch(
        n=n,
        length=math.ceil(most.length),
        n_visual=math.ceil(most.n_visual),
        n_patches=math.ceil(most.n_patches),
        # positions that hold an answer in any sample: where lengths vary they stand apart
        n_answer=math.ceil(most.n_answer) * (n if lengths.varied else 1),
        padded=lengths.varied and n > 1,
    )
    return TrainPlan(
        spec=spec,
        machine=machine,
        shape=shape,
        lengths=lengths,
        steps=steps_of(spec, lengths.n),
        memory=memory_of(shape, spec, batch, machine.gpus),
        flops=flops_of(shape, spec, lengths.mean),
        mfu=mfu,
    )


def steps_of(spec: TrainSpec, n: int) -> int:
    """Optimiser steps of a training on n samples."""
    return spec.steps or math.ceil(n / spec.batch_size * (spec.epochs or 0))


def lengths_of(
    spec: TrainSpec,
    data: Sequence[tuple[TaskSpec, Sequence[Sample]]],
    family: Family,
    frame: Frame | None,
    shape: Shape,
    count: Count | None = None,
) -> Lengths:
    """Of all samples that the spec trains on. frame: the model's own, for tasks that ask in it.

    count: the checkpoint's tokenizer; None: three characters a token, digits one each. Raises ConfigError where
    there is no sample.
    """
    visual, questions, answers = [], [], []
    for task, samples in data:
        chosen = stratified(samples, spec.limit, spec.seed)
        visual += [len(family.grid(sample.image_size_wh)) for sample in chosen]
        variant = task.variant(family.name)
        spoken = resolve_frame(variant, frame, family.name)
        for sample in chosen[:: -(-len(chosen) // _READ) or 1]:
            prompt, answer = make_prompt(task, variant, sample), make_answer(task, variant, spoken, sample)
            n_question, n_answer = count(prompt, answer) if count else _by_characters(family, prompt, answer)
            questions.append(n_question)
            answers.append(n_answer)
    if not visual:
        raise ConfigError(f"{spec.trained_on}: no training samples.")

    def of(most: Callable[[list[int]], float]) -> MeanSample:
        n_visual, n_answer = most(visual), most(answers)
        return MeanSample(
            n_visual + most(questions) + n_answer, n_visual, n_visual * shape.merge**2, n_answer
        )

    varied = len({*visual}) > 1 or len({*questions}) > 1
    return Lengths(len(visual), of(lambda n: sum(n) / len(n)), of(max), varied, count is not None)


def _by_characters(family: Family, prompt: Prompt, answer: str) -> tuple[int, int]:
    digits = sum(character.isdigit() for character in answer)
    rest = "".join(character for character in answer if not character.isdigit())
    return _CHAT[family.name] + text_tokens(prompt.text), digits + text_tokens(rest) + 1
