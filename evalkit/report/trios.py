"""Base, NTP and NTP + KLAL of each family that the paper fine-tunes, by the registry's names at a scale."""

from collections.abc import Mapping
from dataclasses import dataclass

from evalkit.report.paper import Paper

STAGES = ("base", "ntp", "klal")
LABELS = {"base": "base", "ntp": "NTP", "klal": "NTP + KLAL"}


@dataclass(frozen=True, slots=True)
class Trio:
    """The three models that a comparison is about: registry names of base, NTP and NTP + KLAL."""

    title: str
    family: str
    models: Mapping[str, str]  # stage -> name


def trios(paper: Paper, prefix: str) -> list[Trio]:
    """prefix: of the registry's names at a scale (`tiny-`), empty at the paper's."""
    found: dict[str, Trio] = {}
    for group in (group for table in paper.tables for group in table.groups):
        if len(group.rows) >= 3 and all(row.fine_tuned for row in group.rows[1:]):
            family = group.rows[0].model.removesuffix("-base")
            models = {stage: f"{prefix}{family}-{stage}" for stage in STAGES}
            found.setdefault(family, Trio(group_title(group.name, prefix), family, models))
    return list(found.values())


def group_title(name: str, prefix: str) -> str:
    """At other scales a group is named by its architecture, not by the 7B model."""
    return name.partition("-7B")[0] if prefix else name
