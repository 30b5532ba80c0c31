"""Prompts: strict, sandboxed, hashed over what the question depends on."""

from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.errors import ConfigError
from evalkit.frames import Frame
from evalkit.prompts import make_prompt, render_text, resolve_frame
from evalkit.records import Sample
from evalkit.task import PromptVariant, load_task

SAMPLE = Sample(
    sample_id="000001-A-B",
    image_id="000001",
    split="test",
    image_path=Path("images/000001.png"),
    image_size_wh=(384, 384),
    pixels_sha256="ab" * 32,
    gold="yes",
    stratum="3-yes",
    variables={"node_a": "A", "node_b": "B"},
    geometry={},
)
TASK = load_task("line_tracing")


def test_text():
    assert make_prompt(TASK, TASK.default_variant, SAMPLE).text == "Is node A connected to node B?"


def test_values_are_never_templates():
    hostile = replace(SAMPLE, variables={"node_a": "{{ 7 * 7 }}", "node_b": "{% raw %}"})
    text = make_prompt(TASK, TASK.default_variant, hostile).text
    assert text == "Is node {{ 7 * 7 }} connected to node {% raw %}?"


def test_hash_covers_text_image_and_length():
    first = make_prompt(TASK, TASK.default_variant, SAMPLE).sha256
    assert make_prompt(TASK, TASK.default_variant, replace(SAMPLE, sample_id="other")).sha256 == first
    others = {
        make_prompt(TASK, PromptVariant(prompt="Is {{ node_a }} joined?"), SAMPLE).sha256,
        make_prompt(TASK, TASK.default_variant, replace(SAMPLE, pixels_sha256="cd" * 32)).sha256,
        make_prompt(TASK.model_copy(update={"max_new_tokens": 7}), TASK.default_variant, SAMPLE).sha256,
    }
    assert len(others | {first}) == 4


@pytest.mark.parametrize(
    "source",
    [
        "{{ missing }}",
        "{{ label.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ label | nofilter }}",
        "{{ 1 / 0 }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_templates_are_strict_and_sandboxed(source):
    with pytest.raises(ConfigError, match="cannot be rendered"):
        render_text(source, {"label": "x"})


@pytest.mark.parametrize(
    ("variant_frame", "model_frame", "resolved"),
    [
        (None, Frame("percent"), None),
        ("grid_24", Frame("percent"), Frame("grid_24")),  # the wording asks for cells
        ("model", Frame("per_mille", "yx"), Frame("per_mille", "yx")),
    ],
)
def test_frame(variant_frame, model_frame, resolved):
    assert resolve_frame(PromptVariant(prompt="x", frame=variant_frame), model_frame, "m") == resolved


def test_a_model_without_a_frame_is_refused():
    with pytest.raises(ConfigError, match="'m' declares none"):
        resolve_frame(PromptVariant(prompt="x", frame="model"), None, "m")
