"""The data sets: what each asks and where it comes from. Light: importing this loads no numpy and no images."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

GoldKind = Literal["int", "yes_no", "point_xy_px", "bbox_xyxy"]


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What a task may rely on before any sample is read."""

    name: str
    variables: tuple[str, ...]  # what a prompt template may name
    splits: tuple[str, ...]
    gold: GoldKind
    origin: Literal["build", "prepare"]  # drawn here, or prepared from its public source

    @property
    def command(self) -> str:
        """What to type to get it."""
        return f"evalkit data {self.origin} {self.name}"


_ALL = (
    DatasetInfo("line_intersection", (), ("train", "test"), "int", "build"),
    DatasetInfo("line_tracing", ("node_a", "node_b"), ("train", "test"), "yes_no", "build"),
    DatasetInfo("grid_patch", (), ("train", "test"), "point_xy_px", "build"),
    DatasetInfo("pixmo_points", ("label",), ("train", "test"), "point_xy_px", "prepare"),
    DatasetInfo("refcoco", ("expression",), ("train", "val", "testA", "testB"), "bbox_xyxy", "prepare"),
)

DATASETS: Mapping[str, DatasetInfo] = MappingProxyType({info.name: info for info in _ALL})
