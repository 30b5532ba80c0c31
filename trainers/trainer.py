"""KlalTrainer: transformers' Trainer with NTP + lambda * KLAL, and the same loss whatever the sharding.

The loss of an optimiser step is the mean over its samples,

    loss = 1/N * sum over the N samples of ( NTP_i + lambda * KLAL_i )

with NTP_i the mean over sample i's answer tokens (Eq. 1 of arXiv 2511.12738) and KLAL_i from Eq. 4. N counts
the samples of the whole step: of all gradient accumulation and all ranks. So lambda means the same for every
family and any split of a batch; transformers' own scaling differs between Qwen2.5-VL and LLaVA.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainingArguments

from evalkit.errors import TrainError
from trainers import resume
from trainers.attention import RowRequest, attention_layers, require_gradient, use_row_attention
from trainers.batches import IGNORED
from trainers.klal import chosen_layers, klal
from trainers.sharding import is_sharded
from trainers.spec import KlalSpec

_ROW_KEYS = ("query_index", "key_index", "key_mask", "target", "klal_weight")


class SeededOrder(torch.utils.data.Sampler[int]):
    """A permutation of the n samples that depends on (seed, epoch) alone, filled up to a multiple of `whole`.

    What fills it are n, n + 1, ...: examples that are not counted, so that ranks have batches of one number and
    every sample still counts once an epoch.
    """

    def __init__(self, n: int, seed: int, whole: int = 1) -> None:
        self._n, self._seed, self._epoch = n, seed, 0
        self._filled = -(-n // whole) * whole

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._filled

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(1_000_003 * self._seed + self._epoch)
        yield from torch.randperm(self._n, generator=generator).tolist()
        yield from range(self._n, self._filled)


class KlalTrainer(Trainer):
    """Trains on batches of trainers.batches.Collator. `klal_spec` None: NTP alone, with the same code.

    Logs `ntp` and `klal` beside `loss`: means over the samples since the last log, over all ranks.
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by the samples of the whole step itself

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        *,
        klal_spec: KlalSpec | None,
        attention: str = "sdpa",
        **rest: Any,
    ) -> None:
        """Raises TrainError for settings under which KLAL would get no gradient, or the wrong scale."""
        checkpointing: Any = args.gradient_checkpointing_kwargs or {}
        if args.gradient_checkpointing and checkpointing.get("use_reentrant", False):
            raise TrainError(
                "Reentrant gradient checkpointing gives KLAL no gradient, silently: "
                "pass gradient_checkpointing_kwargs={'use_reentrant': False}."
            )
        if args.remove_unused_columns:
            raise TrainError("remove_unused_columns would drop what KLAL needs: set it to False.")
        self._klal = klal_spec
        if klal_spec is not None:
            inner = model.get_base_model() if hasattr(model, "get_base_model") else model
            use_row_attention(inner, attention)
            self._layers = chosen_layers(klal_spec.layers, attention_layers(inner))
        super().__init__(model=model, args=args, **rest)
        self.sharded = is_sharded(model)
        # what transformers calls a model that is spread over ranks already: not to be wrapped again
        self.is_distributed_loading_by_transformers = self.sharded
        if self.sharded:
            # autocast would keep its copy of every weight that was gathered to the end of the forward pass: a
            # whole model in half precision on every rank
            no_cache = import_module("accelerate.utils").AutocastKwargs(cache_enabled=False)
            self.accelerator.autocast_handler = no_cache
        self._sums = {name: torch.zeros((), dtype=torch.float64) for name in ("ntp", "klal", "samples")}

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        samples: Any = self.train_dataset if train_dataset is None else train_dataset
        ranks = self.args.world_size
        return SeededOrder(
            len(samples), self.args.seed, self.args.per_device_train_batch_size * ranks if ranks > 1 else 1
        )

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> int:
        """The samples of the whole optimiser step, over accumulation and ranks."""
        own = torch.stack([batch["counted"].sum() for batch in batch_samples]).sum().to(device)
        return int(self.accelerator.gather(own).sum()) if self.args.world_size > 1 else int(own)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        places = {name: inputs.pop(name) for name in _ROW_KEYS}
        labels, counted = inputs.pop("labels"), inputs.pop("counted")
        request = self._request(places)
        ntp, outputs = ntp_loss(model, inputs, labels, request)
        ntp = ntp * counted
        total, divergence = ntp, torch.zeros_like(ntp)
        if self._klal is not None and request is not None:
            if model.training:
                require_gradient(request.rows)
            divergence = klal(request.rows, places["target"], places["key_mask"], self._klal.heads)
            divergence = divergence * places["klal_weight"] * counted
            request.close()
            total = ntp + self._klal.weight * divergence
        if model.training:
            self._add(ntp, divergence, counted)
        samples = len(labels) * self.args.world_size if num_items_in_batch is None else num_items_in_batch
        # ranks' gradients are averaged, not added: each rank's share is scaled up to make the sum
        loss = total.sum() * self.args.world_size / samples
        return (loss, outputs) if return_outputs else loss

    # A checkpoint to resume from is ours (trainers.resume), for all kinds of sharding. transformers' own writes
    # published names, which its resume does not translate back: it would warn and go on from where it started.

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        weights = resume.gathered(resume.trained(self.model), keep=self.args.should_save)
        if self.args.should_save:
            resume.write(weights, Path(output_dir or str(self.args.output_dir)) / resume.WEIGHTS)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        folder, optimizer = Path(output_dir), self._bare_optimizer
        tensors = resume.gathered(resume.optimizer_tensors(self.model, optimizer), keep=self.args.should_save)
        if self.args.should_save:
            resume.write(tensors, folder / resume.OPTIMIZER)
            resume.write_scheduler(folder / resume.SCHEDULER, self.lr_scheduler)

    def _save_rng_state(self, output_dir: str) -> None:
        states = [resume.random_states(self.args.process_index, self.args.device)]
        if self.args.world_size > 1:
            of_all: list[Any] = [None] * self.args.world_size
            torch.distributed.all_gather_object(of_all, states[0])
            states = of_all
        if self.args.should_save:
            together = {name: state for one in states for name, state in one.items()}
            resume.write(together, Path(output_dir) / resume.RNG)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Raises TrainError unless every trained weight is there."""
        resume.read_weights(
            Path(resume_from_checkpoint) / resume.WEIGHTS, self.model if model is None else model
        )

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder, optimizer = Path(checkpoint), self._bare_optimizer
        resume.read_optimizer(folder / resume.OPTIMIZER, self.model, optimizer)
        resume.read_scheduler(folder / resume.SCHEDULER, self.lr_scheduler, optimizer)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        args = self.args
        seed = args.seed + 7_919 * self.state.global_step
        path = Path(checkpoint) / resume.RNG
        resume.read_random_states(path, args.process_index, args.world_size, args.device, seed)

    def _clip_grad_norm(self, model: Any) -> Any:
        norm: Tensor = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        return resume.whole(norm)

    @property
    def _bare_optimizer(self) -> Any:
        """Without accelerate's wrapping."""
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def _request(self, places: dict[str, Tensor]) -> RowRequest | None:
        if self._klal is None:
            return None
        return RowRequest(places["query_index"], places["key_index"], places["key_mask"], self._layers)

    def _add(self, ntp: Tensor, divergence: Tensor, counted: Tensor) -> None:
        """Sums for the log, kept on the device: no synchronisation a step."""
        with torch.no_grad():
            for name, value in (("ntp", ntp.sum()), ("klal", divergence.sum())):
                self._sums[name] = self._sums[name].to(value.device) + value.double()
            self._sums["samples"] = self._sums["samples"].to(ntp.device) + counted.sum().double()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            sums = torch.stack([value.to(self.args.device) for value in self._sums.values()])
            if self.args.world_size > 1:
                sums = self.accelerator.reduce(sums, "sum")
            ntp, divergence, samples = sums.tolist()
            if samples:
                logs["ntp"] = ntp / samples
                if self._klal is not None:
                    logs["klal"] = divergence / samples
            self._sums = {name: torch.zeros_like(value) for name, value in self._sums.items()}
        super().log(logs, start_time)


def ntp_loss(
    model: Any, inputs: dict[str, Any], labels: Tensor, request: RowRequest | None
) -> tuple[Tensor, Any]:
    """Eq. 1 of each sample, (B,) float32, and the model's outputs. labels: (B, S), IGNORED off the answer.

    Logits are made at the answers' positions alone: with a vocabulary of 150,000 those of the whole
    sequence would be the largest tensor of the step.
    """
    predicted = (
        (labels != IGNORED).any(0).nonzero()[:, 0]
    )  # positions that hold an answer token in any sample
    extra = {} if request is None else {"attention_row": request}
    outputs = model(**inputs, **extra, logits_to_keep=predicted - 1, use_cache=False)
    wanted = labels[:, predicted]  # (B, K)
    losses = cross_entropy(
        outputs.logits.float().flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(wanted)
    return losses.sum(1) / (wanted != IGNORED).sum(1), outputs
