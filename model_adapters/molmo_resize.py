"""Molmo's one use of tensorflow, done by torch: its processor resizes with tf.image.resize (bilinear, antialiased).

torch's antialiased bilinear resize is the same filter: over six random images, enlarged and reduced, the two
differed by at most 6e-5 of the 0 to 1 range (tensorflow 2.21); without antialiasing they differ by 0.5.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

from evalkit.errors import AdapterError

_NAME = "tensorflow"


@contextmanager
def resize_at_hand() -> Iterator[None]:
    """Where tensorflow is not installed, `import tensorflow` finds the stand-in while this is open.

    The processor imports it each time it resizes, and transformers looks for it when it loads the processor.
    """
    if has_tensorflow():
        yield
        return
    sys.modules[_NAME] = stand_in()
    try:
        yield
    finally:
        del sys.modules[_NAME]


def has_tensorflow() -> bool:
    return find_spec(_NAME) is not None


def stand_in() -> ModuleType:
    """A module with the names of tensorflow that the processor uses, over torch tensors (H, W, 3)."""
    import torch

    def convert_image_dtype(image: Any, dtype: Any) -> Any:
        return image.to(dtype) * (1 / 255)  # from uint8

    def resize(image: Any, size: Sequence[int], method: str = "bilinear", antialias: bool = False) -> Any:
        if method != "bilinear" or not antialias:
            raise AdapterError(
                f"Molmo's processor asks for a {method} resize, antialias={antialias}; without tensorflow only "
                "its antialiased bilinear one can be made: pip install tensorflow-cpu."
            )
        planes = image.permute(2, 0, 1)[None]
        made = torch.nn.functional.interpolate(planes, tuple(size), mode="bilinear", antialias=True)
        return made[0].permute(1, 2, 0)

    module = ModuleType(_NAME)
    module.__spec__ = ModuleSpec(_NAME, None)
    names = {
        "constant": torch.from_numpy,
        "float32": torch.float32,
        "clip_by_value": torch.clamp,
        "image": SimpleNamespace(
            convert_image_dtype=convert_image_dtype,
            resize=resize,
            ResizeMethod=SimpleNamespace(BILINEAR="bilinear"),
        ),
        # einops asks whether a tensor is one of these, as soon as it finds the module
        "Tensor": type("Tensor", (), {}),
        "Variable": type("Variable", (), {}),
    }
    for name, value in names.items():
        setattr(module, name, value)
    return module
