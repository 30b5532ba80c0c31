"""FSDP2: each rank keeps a part of every weight; a layer is put together when it runs, and let go of after.

By torch's own fully_shard, not through accelerate's plugin: that one leaves a model whole on CPUs, without a word,
and the loss and gradients of sharded training are tested there. Weights are gathered as they are kept, so that
what is computed is what one rank computes.
"""

from importlib import import_module
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from evalkit.errors import TrainError

# What is gathered in one piece: the layers of language model and vision tower.
_LAYERS = {
    "qwen2_5_vl": ("Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock"),
    "llava": ("LlamaDecoderLayer", "CLIPEncoderLayer"),
}


def shard(model: Any, family: str, device: torch.device) -> None:
    """Spread the model over all ranks, in place. Its weights are moved to the device layer by layer.

    Raises TrainError for an architecture whose layers are not known.
    """
    fully_shard = import_module("torch.distributed.fsdp").fully_shard
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    layers = [module for module in model.modules() if type(module).__name__ in _LAYERS.get(family, ())]
    if not layers:
        raise TrainError(f"sharding: fsdp does not know the layers of {family}.")
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(model: Any) -> bool:
    return any(isinstance(weight, DTensor) for weight in model.parameters())
