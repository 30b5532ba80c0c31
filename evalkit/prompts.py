"""Task wording + sample -> Prompt, and the answer a model is trained to give.

Templates are sandboxed; an undefined variable is an error.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from evalkit.datasets import DATASETS
from evalkit.errors import ConfigError
from evalkit.frames import GRID, Frame, from_pixels
from evalkit.records import Prompt, Sample
from evalkit.task import PromptVariant, TaskSpec

# Every sample has these, whatever its data set.
COMMON_VARIABLES = ("width", "height")


class _Sandbox(ImmutableSandboxedEnvironment):
    """No attribute access to internals, no mutation, and no operator that can blow up memory."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not all(isinstance(v, int | float) for v in (left, right)):
            raise SecurityError(f"operator {operator} is not allowed on these values in a prompt")
        return super().call_binop(context, operator, left, right)


def _environment() -> _Sandbox:
    return _Sandbox(undefined=StrictUndefined, autoescape=False)


@lru_cache(maxsize=64)
def _template(source: str) -> Template:
    return _environment().from_string(source)


def allowed_variables(task: TaskSpec) -> tuple[str, ...]:
    return (*DATASETS[task.dataset].variables, *COMMON_VARIABLES)


# What an answer's template may name besides the question's variables, by the kind of gold.
ANSWER_VARIABLES = {
    "int": ("gold",),
    "yes_no": ("gold",),
    "point_xy_px": ("x", "y"),
    "bbox_xyxy": ("x0", "y0", "x1", "y1"),
}


def answer_variables(task: TaskSpec) -> tuple[str, ...]:
    return (*ANSWER_VARIABLES[DATASETS[task.dataset].gold], *allowed_variables(task))


def template_faults(source: str, allowed: tuple[str, ...]) -> list[str]:
    """What is wrong with a template: a syntax error, or variables that no sample has."""
    environment = _environment()
    try:
        used = meta.find_undeclared_variables(environment.parse(source))
    except TemplateError as error:
        return [f"not a valid template: {error}"]
    unknown = sorted(used - set(allowed))
    return [f"no sample has a variable {name!r}; allowed: {', '.join(allowed)}" for name in unknown]


def render_text(source: str, variables: Mapping[str, Any]) -> str:
    """The prompt's text, without surrounding blank space. Raises ConfigError."""
    try:
        return _template(source).render(variables).strip()
    except (TemplateError, SecurityError, ArithmeticError, TypeError, ValueError) as error:
        raise ConfigError(f"The prompt template cannot be rendered: {error}.") from None


def make_prompt(task: TaskSpec, variant: PromptVariant, sample: Sample) -> Prompt:
    """What a model is asked about one sample; its sha256 covers all that the question depends on."""
    width, height = sample.image_size_wh
    text = render_text(variant.prompt, {**sample.variables, "width": width, "height": height})
    identity = json.dumps([text, sample.pixels_sha256, task.max_new_tokens], ensure_ascii=True)
    return Prompt(
        sample_id=sample.sample_id,
        text=text,
        image_path=sample.image_path,
        image_size_wh=sample.image_size_wh,
        max_new_tokens=task.max_new_tokens,
        sha256=hashlib.sha256(identity.encode()).hexdigest(),
    )


def resolve_frame(variant: PromptVariant, model_frame: Frame | None, model_name: str) -> Frame | None:
    """The frame in which a reply's coordinates are meant, or None for tasks without coordinates."""
    if variant.frame is None:
        return None
    if variant.frame != "model":
        return Frame(variant.frame)  # type: ignore[arg-type]  # checked by PromptVariant
    if model_frame is None:
        raise ConfigError(
            f"The task asks in the model's own frame, but {model_name!r} declares none: "
            "add `frame:` to its registry entry."
        )
    return model_frame


def make_answer(task: TaskSpec, variant: PromptVariant, frame: Frame | None, sample: Sample) -> str:
    """What a model is trained to reply to a sample: its gold in the wording and the frame of the task.

    Coordinates are x first whatever the frame's order, rounded as a model states them. Raises ConfigError
    where the task has no answer for this wording.
    """
    if variant.answer is None:
        raise ConfigError(f"Task {task.name!r} has no `answer:` for this wording: nothing to train on.")
    width, height = sample.image_size_wh
    named: dict[str, Any] = {**sample.variables, "width": width, "height": height}
    if frame is None:
        named["gold"] = sample.gold
    else:
        assert isinstance(sample.gold, list)
        straight = replace(frame, order="xy")
        spoken = [_spoken(v, frame) for v in from_pixels(sample.gold, straight, sample.image_size_wh)]
        named |= dict(zip(ANSWER_VARIABLES[DATASETS[task.dataset].gold], spoken, strict=True))
    return render_text(variant.answer, named)


def _spoken(value: float, frame: Frame) -> str:
    """A coordinate as a model of that frame states it: whole pixels and cells, 0.61, 61.5."""
    match frame.kind:
        case "grid_24":
            # the cell that holds the point: index i stands for the middle of [i - 0.5, i + 0.5)
            return str(min(max(math.floor(value + 0.5), 0), GRID - 1))
        case "unit" | "padded_unit":
            return f"{value:.2f}"
        case "percent":
            return f"{value:.1f}"
        case _:
            return str(round(value))
