"""The paper's printed numbers, from results/paper.yaml."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evalkit.errors import ConfigError
from evalkit.paths import resource
from evalkit.yamlfile import faults, load_yaml


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Column(_Strict):
    """What was evaluated. trained_on: the training task of fine-tuned rows; null: the column's own."""

    title: str
    task: str
    split: str
    trained_on: str | None = None


class PaperRow(_Strict):
    """One printed row; `model` is the registry entry that regenerates it, null values were not printed."""

    label: str
    model: str
    fine_tuned: bool = False  # whether there is a checkpoint for each training task
    values: list[float | None]


class Group(_Strict):
    name: str
    rows: Annotated[list[PaperRow], Field(min_length=1)]


class PaperTable(_Strict):
    number: int
    title: str
    unit: Literal["percent", "ratio"]
    columns: Annotated[list[Column], Field(min_length=1)]
    groups: Annotated[list[Group], Field(min_length=1)]

    @model_validator(mode="after")
    def _rows_are_full(self) -> Self:
        for group in self.groups:
            for row in group.rows:
                if len(row.values) != len(self.columns):
                    raise ValueError(f"row {group.name} / {row.label} needs {len(self.columns)} values")
        return self


class Paper(_Strict):
    source: str
    tables: Annotated[list[PaperTable], Field(min_length=1)]


def load_paper(path: Path | None = None) -> Paper:
    """results/paper.yaml, checked. Raises ConfigError, one line a fault."""
    path = path or resource("results/paper.yaml")
    paper, lines = faults(Paper, load_yaml(path), str(path))
    if paper is None:
        raise ConfigError("\n".join(lines))
    return paper
