"""What a training goes on from, written alike whatever the weights are spread over: one GPU, DDP or FSDP.

    model.resume.safetensors       the trained weights, whole, under their names in memory
    optimizer.resume.safetensors   KEY/NAME: what the optimiser keeps of each weight (step, exp_avg, exp_avg_sq)
    scheduler.resume.json          the schedule's state
    rng.resume.safetensors         the random states of all ranks, for a LoRA with dropout

So what two ranks have saved, one can go on with. Every rank takes part in putting sharded tensors together, the
first one writes. No pickles.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from evalkit.errors import TrainError

WEIGHTS = "model.resume.safetensors"
OPTIMIZER = "optimizer.resume.safetensors"
SCHEDULER = "scheduler.resume.json"
RNG = "rng.resume.safetensors"
Named = Iterable[tuple[str, Tensor]]


def trained(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The weights that are trained; the frozen ones are the base's."""
    return ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)


def whole(tensor: Tensor) -> Tensor:
    """The tensor put together of its shards; every rank must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(named: Named, *, keep: bool) -> dict[str, Tensor]:
    """Whole tensors in this machine's memory, one after the other; empty where they are not to be kept."""
    found = {}
    for name, tensor in named:
        together = whole(tensor.detach())
        if keep:
            found[name] = together.cpu().contiguous().clone()
    return found


def write(tensors: dict[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def put(name: str, value: Tensor, target: Tensor, path: Path) -> None:
    """Copy a whole tensor, or this rank's shard of it, into a target of the same shape. Raises TrainError."""
    if value.shape != target.shape:
        found, wanted = tuple(value.shape), tuple(target.shape)
        raise TrainError(f"{path}: {name} is {found}, the model's {wanted}: not the weights of this model.")
    if isinstance(target, DTensor):
        # every rank has read the file itself: nothing is sent
        value = distribute_tensor(
            value.to(target.device), target.device_mesh, target.placements, src_data_rank=None
        )
    with torch.no_grad():
        target.copy_(value)


def read_weights(path: Path, model: Any) -> None:
    """Load trained weights into the model. Raises TrainError unless each of them is there."""

    def load(read: Callable[[str], Tensor], names: set[str]) -> None:
        wanted = dict(trained(model))
        if absent := sorted(wanted.keys() - names):
            raise TrainError(f"{path}: not the weights of this model ({absent[0]} is missing).")
        for name, weight in wanted.items():
            put(name, read(name), weight, path)

    _with_file(path, load)


def optimizer_tensors(model: Any, optimizer: Any) -> Iterator[tuple[str, Tensor]]:
    """KEY/NAME and tensor of all that the optimiser keeps."""
    for name, weight in trained(model):
        for key, value in sorted(optimizer.state.get(weight, {}).items()):
            yield f"{key}/{name}", torch.as_tensor(value)


def read_optimizer(path: Path, model: Any, optimizer: Any) -> None:
    """Load what the optimiser keeps of each weight. Raises TrainError for what is of no weight."""
    groups = {weight: group for group in optimizer.param_groups for weight in group["params"]}
    weights = dict(trained(model))

    def load(read: Callable[[str], Tensor], names: set[str]) -> None:
        for full_name in sorted(names):
            key, _, name = full_name.partition("/")
            if name not in weights:
                raise TrainError(f"{path}: not of this model (it trains no {name}).")
            weight, value = weights[name], read(full_name)
            state = optimizer.state[weight]
            if value.shape == weight.shape:
                state[key] = torch.zeros_like(weight, dtype=value.dtype)
                put(full_name, value, state[key], path)
            else:  # the number of steps, kept where the optimiser counts
                on_device = groups[weight].get("fused") or groups[weight].get("capturable")
                state[key] = value.to(weight.device) if on_device else value

    _with_file(path, load)


def write_scheduler(path: Path, scheduler: Any) -> None:
    path.write_text(json.dumps(scheduler.state_dict(), indent=1) + "\n", encoding="utf-8")


def read_scheduler(path: Path, scheduler: Any, optimizer: Any) -> None:
    """The schedule's state, and the learning rate it is at. Raises TrainError."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        scheduler.load_state_dict(state)
        for group, rate in zip(optimizer.param_groups, state["_last_lr"], strict=True):
            group["lr"] = rate
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainError(f"{path}: cannot be read ({error}).") from None


def random_states(rank: int, device: torch.device) -> dict[str, Tensor]:
    """This rank's random states."""
    found = {f"cpu/{rank}": torch.get_rng_state()}
    if device.type == "cuda":
        found[f"cuda/{rank}"] = torch.cuda.get_rng_state(device)
    return found


def read_random_states(path: Path, rank: int, world_size: int, device: torch.device, seed: int) -> None:
    """Go on with the stored states; another number of ranks begins with states of its own."""

    def load(read: Callable[[str], Tensor], names: set[str]) -> None:
        if sum(name.startswith("cpu/") for name in names) != world_size:
            torch.manual_seed(seed + rank)
            return
        torch.set_rng_state(read(f"cpu/{rank}"))
        if device.type == "cuda" and f"cuda/{rank}" in names:
            torch.cuda.set_rng_state(read(f"cuda/{rank}"), device)

    _with_file(path, load)


def _with_file(path: Path, load: Callable[[Callable[[str], Tensor], set[str]], None]) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            load(file.get_tensor, set(file.keys()))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainError(f"{path}: cannot be gone on with ({reason}). --force starts over.") from None
