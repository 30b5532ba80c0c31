"""YAML from disk: loaded safely, duplicate keys refused, validated by pydantic with one line a fault."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from evalkit.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (plain YAML lets the last one win)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`, resolved by the base class
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a scalar", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError with the place of the fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    try:
        loaded = yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path}{where}: not valid YAML: {problem}.") from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid YAML: nested too deep.") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected a mapping at the top, found {type(loaded).__name__}.")
    return loaded


def faults(model: type[Model], data: Any, where: str) -> tuple[Model | None, list[str]]:
    """Validate `data`; on failure one line a fault, each naming `where`, the key and what is allowed."""
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        return None, [_line(where, fault, known) for fault in error.errors()]


def _line(where: str, fault: Any, known: str) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    match fault["type"]:
        case "extra_forbidden" if len(fault["loc"]) == 1:
            return f"{where}: unknown key {key!r}. Known keys: {known}."
        case "extra_forbidden":
            return f"{where}: unknown key {key!r}."
        case "missing":
            return f"{where}: key {key!r} is missing."
        case _:
            message = str(fault["msg"]).removeprefix("Value error, ").rstrip(".")
            found = repr(fault["input"])
            shown = found if len(found) <= 80 else found[:77] + "..."
            return f"{where}: {key or 'document'}: {message} (found {shown})."
