"""evalkit validate: every task file checked beyond its schema, one line a fault."""

from collections.abc import Iterable
from pathlib import Path

from evalkit.parsers import parse
from evalkit.prompts import allowed_variables, answer_variables, template_faults
from evalkit.task import Example, TaskSpec, check_task_file


def task_faults(path: Path, families: Iterable[str]) -> list[str]:
    """Faults of one task file: schema, name, templates, families, and examples that parse otherwise."""
    spec, lines = check_task_file(path)
    if spec is None:
        return lines
    if spec.name != path.stem:
        lines.append(f"{path}: name: {spec.name!r} does not match the file's name {path.name!r}.")
    lines += [f"{path}: {fault}." for fault in _prompt_faults(spec, set(families))]
    for number, example in enumerate(spec.examples, 1):
        if fault := _example_fault(spec, example):
            lines.append(f"{path}: examples.{number}: {fault}.")
    return lines


def _prompt_faults(spec: TaskSpec, families: set[str]) -> list[str]:
    allowed, in_answers = allowed_variables(spec), answer_variables(spec)
    found = [f"prompt: {fault}" for fault in template_faults(spec.prompt, allowed)]
    found += [f"answer: {fault}" for fault in template_faults(spec.answer or "", in_answers)]
    for family, variant in spec.family_prompts.items():
        key = f"family_prompts.{family}"
        if family not in families:
            found.append(
                f"{key}: no model of the registry has this family; known: {', '.join(sorted(families))}"
            )
        found += [f"{key}.prompt: {fault}" for fault in template_faults(variant.prompt, allowed)]
        found += [f"{key}.answer: {fault}" for fault in template_faults(variant.answer or "", in_answers)]
    return found


def _example_fault(spec: TaskSpec, example: Example) -> str | None:
    parsed = parse(spec.parser, example.reply)
    if parsed.answer == example.answer:
        return None
    reason = f" ({parsed.reason})" if parsed.reason else ""
    shown = example.reply if len(example.reply) <= 60 else example.reply[:57] + "..."
    return f"parser {spec.parser} reads {parsed.answer!r}{reason} in {shown!r}, expected {example.answer!r}"
