"""Loading InstructBLIP: whole or refused in one line; and the tiny checkpoint that stands in for it."""

import json
import shutil

import pytest

from evalkit.errors import AdapterError, ConfigError, Unavailable

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from model_adapters.instructblip import InstructBlip  # noqa: E402
from model_adapters.tiny import tiny_checkpoint  # noqa: E402

pytestmark = pytest.mark.local


@pytest.fixture(scope="module")
def checkpoint(tiny_cache):
    return tiny_checkpoint("instructblip", tiny_cache)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def drop_a_weight(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["query_tokens"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: edit(f / "config.json", model_type="llava"), AdapterError, "says 'llava', asked for as"),
        (
            lambda f: edit(f / "config.json", text_config={"model_type": "t5"}),
            AdapterError,
            "its language model is 't5'; only decoder-only ones",
        ),
        (
            lambda f: edit(f / "config.json", image_token_index=None),
            AdapterError,
            "names no image_token_index",
        ),
        (lambda f: shutil.rmtree(f / "qformer_tokenizer"), AdapterError, "its Q-Former tokenizer cannot be"),
        (
            lambda f: edit(f / "preprocessor_config.json", size={"height": 28, "width": 28}),
            AdapterError,
            "made 28 x 28 px, the vision tower takes 56 x 56",
        ),
        (lambda f: (f / "model.safetensors").unlink(), Unavailable, "its weights cannot be loaded"),
        (drop_a_weight, AdapterError, "1 weights are missing or of another shape, query_tokens"),
    ],
)
def test_damaged_checkpoint_in_one_line(checkpoint, tmp_path, damage, error, message):
    copy = shutil.copytree(checkpoint, tmp_path / "my-blip")
    damage(copy)
    with pytest.raises(error) as caught:
        InstructBlip(copy, device="cpu")
    assert message in str(caught.value)
    assert "my-blip" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "int8"}, "Allowed: auto, float32, bfloat16, float16"),
        ({"batch_size": 0}, "batch_size is 0; it must be 1 or more"),
        ({"num_beams": 0}, "num_beams is 0; it must be 1 or more"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0; it must be above 0"),
        ({"prompt_format": "Question:"}, "must hold {} once"),
        ({"prompt_format": "{} {}"}, "must hold {} once"),
        ({"device": "gpu"}, "Allowed: auto, cpu, cuda, cuda:N"),
    ],
)
def test_wrong_settings_in_one_line(checkpoint, settings, message):
    with pytest.raises(ConfigError) as caught:
        InstructBlip(checkpoint, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_same_bytes_in_another_cache(checkpoint, tmp_path):
    again = tiny_checkpoint("instructblip", tmp_path)
    assert again.name == checkpoint.name
    files = sorted(path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file())
    assert len(files) >= 8
    for name in files:
        assert (again / name).read_bytes() == (checkpoint / name).read_bytes(), name


def test_the_tiny_checkpoint_loads_whole_and_small(checkpoint):
    model, found = transformers.InstructBlipForConditionalGeneration.from_pretrained(
        checkpoint, output_loading_info=True
    )
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.num_parameters() < 500_000
