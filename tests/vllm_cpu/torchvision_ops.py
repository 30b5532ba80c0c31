"""Lets the CUDA build of torchvision import beside the CPU build of torch, which cannot load its operators.

Package indexes that have no CPU build of torchvision leave no other choice. vLLM and Qwen's processor import it
but call none of the operators that are declared here. Active in every process of the environment, by a .pth file.
"""

import importlib.abc
import sys
from typing import Any

_NEEDS_OPERATORS = "torchvision._meta_registrations"  # the first module to look them up
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _DeclareOperators(importlib.abc.MetaPathFinder):
    """Finds nothing; it only learns in time that the module is about to be imported."""

    library: Any = None  # kept, or the declarations go with it

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname != _NEEDS_OPERATORS or self.library is not None:
            return
        import torch
        from torchvision.extension import _has_ops

        if not _has_ops():
            self.library = torch.library.Library("torchvision", "FRAGMENT")
            for name in ("nms", "qnms"):
                self.library.define(name + _SCHEMA)


sys.meta_path.insert(0, _DeclareOperators())
