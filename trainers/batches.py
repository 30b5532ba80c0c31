"""Samples -> training examples -> padded tensors: prompt, answer, target map, and which row KLAL supervises.

Nothing here draws random numbers while training: an example depends on its index alone, so that a resumed
run sees exactly what an unbroken one would.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.errors import ConfigError, TrainError
from evalkit.frames import Frame
from evalkit.prompts import make_answer, make_prompt, resolve_frame
from evalkit.records import Sample
from evalkit.targets import marks, target_map, target_patches
from evalkit.task import TaskSpec
from model_adapters.families import Llava, visual_positions
from model_adapters.local_inputs import InputMaker, ModelInput
from trainers.spec import KlalSpec

IGNORED = -100  # a label that no loss counts


@dataclass(frozen=True, slots=True)
class Item:
    """One sample with the task it belongs to and the reply to learn."""

    task: TaskSpec
    sample: Sample
    answer: str


@dataclass(frozen=True, slots=True)
class Example:
    """One training sequence: prompt, answer, end of sequence.

    input_ids:       S tokens; those from answer_start on are the answer and the EOS.
    query_index:     the position whose attention KLAL supervises.
    key_index:       (V,) positions of the visual tokens.
    counted:         whether the sample counts at all.
    target:          (V,) float32, P of Eq. 5; klal_weight 0 leaves KLAL out for this sample.
    pixel_values, grid_thw: as model_adapters.local_inputs.ModelInput.
    """

    sample_id: str
    input_ids: list[int]
    answer_start: int
    query_index: int
    key_index: NDArray[np.int64]
    target: NDArray[np.float32]
    klal_weight: float
    pixel_values: NDArray[np.float32]
    grid_thw: tuple[int, int, int] | None
    counted: bool = True  # False: only there to fill a rank's batch


def items_of(task: TaskSpec, samples: Sequence[Sample], family: str, frame: Frame | None) -> list[Item]:
    """Each sample with its gold as the reply to learn. frame: the model's own, for tasks that ask in it."""
    variant = task.variant(family)
    spoken = resolve_frame(variant, frame, family)
    return [Item(task, sample, make_answer(task, variant, spoken, sample)) for sample in samples]


def shuffled_answers(items: Sequence[Item], seed: int) -> list[Item]:
    """The same questions with each task's answers dealt out at random: only their form can be learnt."""
    rng = np.random.default_rng([seed, 0x0F0F])
    dealt = list(items)
    for name in dict.fromkeys(item.task.name for item in items):  # in order: a set's would vary by process
        places = [i for i, item in enumerate(items) if item.task.name == name]
        for place, other in zip(places, rng.permutation(places).tolist(), strict=True):
            dealt[place] = Item(items[place].task, items[place].sample, items[other].answer)
    return dealt


class TrainingSet(torch.utils.data.Dataset[Example]):
    """Examples by index; from its length on they are the same ones, not counted. `keep_in_memory` prepares each
    once: for sets that fit.
    """

    def __init__(
        self, items: Sequence[Item], maker: InputMaker, klal: KlalSpec | None, *, keep_in_memory: bool = False
    ) -> None:
        """klal: None when KLAL is not trained; the examples then carry no target."""
        self._items, self._maker, self._klal = items, maker, klal
        self._keep = keep_in_memory
        self._kept: dict[int, Example] = {}
        self._images: dict[Path, ModelInput] = {}  # several questions share one

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Example:
        if index >= len(self):
            return replace(self[index % len(self)], counted=False)
        if not self._keep:
            return make_example(self._items[index], self._maker, self._klal)
        if index not in self._kept:
            self._kept[index] = make_example(self._items[index], self._maker, self._klal, self._images)
        return self._kept[index]


def make_example(
    item: Item, maker: InputMaker, klal: KlalSpec | None, images: dict[Path, ModelInput] | None = None
) -> Example:
    """Tokens, pixels and target of one item. Raises EvalkitError, naming the sample."""
    sample = item.sample
    prompt = make_prompt(item.task, item.task.variant(maker.family.name), sample)
    encoded = maker.encode(prompt)
    answer_ids = maker.answer_ids(prompt, item.answer)
    loaded = None if images is None else images.get(sample.image_path)
    if loaded is None:
        loaded = maker.load(encoded)
        if images is not None:
            images[sample.image_path] = loaded
    start, key_index = len(encoded.input_ids), visual_positions(encoded.input_ids, maker.image_token_id)
    target, weight = target_of(item, maker, klal)
    return Example(
        sample_id=sample.sample_id,
        input_ids=[*encoded.input_ids, *answer_ids],
        answer_start=start,
        query_index=query_position(start, len(answer_ids), klal.query if klal else "last_answer"),
        key_index=key_index,
        target=target,
        klal_weight=weight,
        pixel_values=loaded.pixel_values,
        grid_thw=loaded.grid_thw,
    )


def query_position(answer_start: int, answer_length: int, query: str) -> int:
    """The position whose attention is supervised; answer_length counts the EOS, which stands last.

    Computed here and never guessed from a padded batch: -1 would be padding, and the last label the EOS.
    """
    last = answer_start + answer_length - 1
    return {"last_answer": last - 1, "eos": last, "before_answer": answer_start - 1}[query]


def target_of(item: Item, maker: InputMaker, klal: KlalSpec | None) -> tuple[NDArray[np.float32], float]:
    """P over the sample's visual tokens and the weight of its KLAL, 0 where it is left out."""
    grid = maker.family.grid(item.sample.image_size_wh)
    if klal is None:
        return np.zeros(len(grid), np.float32), 0.0
    found = marks(item.task.dataset, item.sample)
    if found.absent and klal.absent == "skip":
        return np.zeros(len(grid), np.float32), 0.0
    patches = target_patches(found, grid, item.sample.sample_id)
    return target_map(patches, klal.sigma, klal.floor).astype(np.float32), 1.0


@dataclass(frozen=True, slots=True)
class Collator:
    """Examples -> one right-padded batch of CPU tensors.

    input_ids, attention_mask, labels: (B, S) int64; query_index: (B,) int64; key_index: (B, N) int64,
    key_mask: (B, N) bool, target: (B, N) float32 with N the most visual tokens; klal_weight, counted: (B,)
    float32; and the family's pixel tensors. Never truncates: that would cut visual tokens.
    """

    maker: InputMaker
    longest: int | None = None  # positions the model has; a longer sequence is an error

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        length = max(len(e.input_ids) for e in examples)
        if self.longest is not None and length > self.longest:
            long = max(examples, key=lambda e: len(e.input_ids))
            raise TrainError(
                f"{long.sample_id}: {length} tokens, the model takes {self.longest}. Lower max_pixels."
            )
        most = max(len(e.key_index) for e in examples)
        batch = {
            "input_ids": _padded([e.input_ids for e in examples], length, self.maker.pad_token_id),
            "attention_mask": _padded([[1] * len(e.input_ids) for e in examples], length, 0),
            "labels": _padded([_labels(e) for e in examples], length, IGNORED),
            "query_index": torch.tensor([e.query_index for e in examples]),
            "key_index": _padded([e.key_index.tolist() for e in examples], most, 0),
            "key_mask": _padded([[1] * len(e.key_index) for e in examples], most, 0).bool(),
            "target": torch.stack(
                [torch.from_numpy(np.pad(e.target, (0, most - len(e.target)))) for e in examples]
            ),
            "klal_weight": torch.tensor([e.klal_weight for e in examples]),
            "counted": torch.tensor([float(e.counted) for e in examples]),
        }
        return batch | self._pixels(examples, batch)

    def _pixels(self, examples: Sequence[Example], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pixels = [torch.from_numpy(np.ascontiguousarray(e.pixel_values)) for e in examples]
        if isinstance(self.maker.family, Llava):
            return {"pixel_values": torch.stack(pixels)}
        # Without the token types the model silently falls back from 2-D to plain positions.
        types = ((batch["input_ids"] == self.maker.image_token_id) & batch["attention_mask"].bool()).long()
        return {
            "pixel_values": torch.cat(pixels),
            "image_grid_thw": torch.tensor([e.grid_thw for e in examples]),
            "mm_token_type_ids": types,
        }


def _labels(example: Example) -> list[int]:
    return [IGNORED] * example.answer_start + example.input_ids[example.answer_start :]


def _padded(rows: Sequence[Sequence[int]], length: int, value: int) -> Tensor:
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])


def require_targets(items: Sequence[Item], maker: InputMaker, klal: KlalSpec) -> None:
    """Make every target once before training starts: what a model cannot see ends it now, not in hours.

    Raises ConfigError with how many samples and the first of them.
    """
    from evalkit.errors import TargetError

    failed = []
    for item in items:
        try:
            target_of(item, maker, klal)
        except TargetError as error:
            failed.append(str(error))
    if failed:
        raise ConfigError(f"{len(failed)} of {len(items)} samples have no target map. {failed[0]}")


def longest_input(config: Any) -> int | None:
    """Positions that the language model takes, or None where its config does not say."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if longest is None else int(longest)
