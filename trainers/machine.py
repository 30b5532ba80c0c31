"""A machine to train on: its GPUs, and the settings that fit a training to them. Light: no torch."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from evalkit.errors import ConfigError
from evalkit.yamlfile import faults, load_yaml

MACHINES = Path(__file__).with_name("machines")
# A machine may not change what is trained: not the samples of a step, not the learning rate.
SETTINGS = ("per_device_batch", "checkpointing", "sharding", "workers", "keep_in_memory", "device")


class Machine(BaseModel):
    """trainers/machines/<name>.yaml. memory_gib and tflops are of one GPU; tflops dense, in bfloat16."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    title: str
    gpu: str
    gpus: int = Field(ge=1)
    memory_gib: float = Field(gt=0)
    tflops: float = Field(gt=0)
    source: str
    settings: dict[str, Any] = Field(default_factory=dict)


def machine_names() -> list[str]:
    return sorted(path.stem for path in MACHINES.glob("*.yaml"))


def load_machine(name: str) -> Machine:
    """The machine of that name, or of a YAML file of one's own. Raises ConfigError."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else MACHINES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(machine_names())
        raise ConfigError(f"No machine named {name!r}. Known: {known}; or the path of a YAML file.")
    machine, lines = faults(Machine, load_yaml(path), str(path))
    if machine is None:
        raise ConfigError("\n".join(lines))
    if others := sorted(set(machine.settings) - set(SETTINGS)):
        raise ConfigError(
            f"{path}: settings: {others[0]!r} would change what is trained; a machine may set {', '.join(SETTINGS)}."
        )
    return machine
