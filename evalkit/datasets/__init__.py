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
    build_command: str  # what to type to get it, or why nothing can be typed yet
    can_build: bool = True


def _built(name: str, variables: tuple[str, ...], gold: GoldKind) -> DatasetInfo:
    return DatasetInfo(name, variables, ("train", "test"), gold, f"evalkit data build {name}")


_ALL = (
    _built("line_intersection", (), "int"),
    _built("line_tracing", ("node_a", "node_b"), "yes_no"),
    _built("grid_patch", (), "point_xy_px"),
    DatasetInfo(
        "pixmo_points",
        ("label",),
        ("train", "test"),
        "point_xy_px",
        "its photographs and points come from the web (allenai/pixmo-points), and this version cannot prepare them",
        can_build=False,
    ),
    DatasetInfo(
        "refcoco",
        ("expression",),
        ("train", "val", "testA", "testB"),
        "bbox_xyxy",
        "its photographs and expressions come from COCO and RefCOCO (UNC), and this version cannot prepare them",
        can_build=False,
    ),
)

DATASETS: Mapping[str, DatasetInfo] = MappingProxyType({info.name: info for info in _ALL})
