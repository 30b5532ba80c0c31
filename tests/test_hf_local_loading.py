"""Loading a checkpoint: whole or refused in one line, from the pinned commit, without foreign code."""

import json
import shutil

import pytest

from evalkit.errors import AdapterError, ConfigError, Unavailable

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from model_adapters.hf_local import HfLocal  # noqa: E402
from model_adapters.tiny import tiny_checkpoint  # noqa: E402

pytestmark = pytest.mark.local


def shorten(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:3000])


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def drop_a_weight(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["language_model.model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit(name, **changes):
    def apply(folder):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **changes}))

    return apply


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (remove("config.json"), Unavailable, "holds no config.json"),
        (write("config.json", "{"), Unavailable, "its config cannot be loaded"),
        (
            edit("config.json", model_type="qwen2_5_vl"),
            AdapterError,
            "says 'qwen2_5_vl', asked for as 'llava'",
        ),
        (edit("config.json", vision_feature_select_strategy="full"), AdapterError, "only 'default'"),
        (remove("tokenizer.json", "tokenizer_config.json"), AdapterError, "its tokenizer cannot be loaded"),
        (write("tokenizer.json", "{}"), AdapterError, "its tokenizer cannot be loaded"),
        (remove("chat_template.jinja"), AdapterError, "no chat template"),
        (remove("preprocessor_config.json"), Unavailable, "its image processor cannot be loaded"),
        (
            edit("preprocessor_config.json", crop_size={"height": 28, "width": 28}),
            AdapterError,
            "made 28 px wide, the vision tower takes 56 px",
        ),
        (remove("model.safetensors"), Unavailable, "its weights cannot be loaded"),
        (shorten("model.safetensors"), AdapterError, "its weights cannot be loaded"),
        (drop_a_weight, AdapterError, "1 weights are missing"),
    ],
)
def test_damaged_checkpoint_in_one_line(tiny_cache, tmp_path, damage, error, message):
    folder = shutil.copytree(tiny_checkpoint("llava", tiny_cache), tmp_path / "copy")
    damage(folder)
    with pytest.raises(error) as caught:
        HfLocal(folder, "llava", device="cpu")
    assert message in str(caught.value)
    assert "copy" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("checkpoint", "settings", "error", "message"),
    [
        (
            "checkpoints/llava-ntp/line_tracing",
            {},
            Unavailable,
            "No checkpoint folder checkpoints/llava-ntp/",
        ),
        ("./nowhere/here", {}, Unavailable, "No checkpoint folder ./nowhere/here"),
        ("nosuch", {}, Unavailable, "or a Hub id owner/name"),
        ("some/where", {}, Unavailable, "some/where: its config cannot be loaded"),
        (None, {"family": "molmo"}, ConfigError, "Known families: qwen2_5_vl, llava"),
        (None, {"dtype": "int8"}, ConfigError, "Allowed: auto, float32, bfloat16, float16"),
        (None, {"batch_size": 0}, ConfigError, "must be 1 or more"),
        (None, {"device": "gpu"}, ConfigError, "Allowed: auto, cpu, cuda, cuda:N"),
        (None, {"min_pixels": 3136}, ConfigError, "are for qwen2_5_vl, not llava"),
    ],
)
def test_wrong_settings_in_one_line(tiny_cache, monkeypatch, checkpoint, settings, error, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(error) as caught:
        HfLocal(checkpoint or tiny_checkpoint("llava", tiny_cache), **{"family": "llava", **settings})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_cuda_is_said(tiny_cache, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(Unavailable, match="this machine has no CUDA device"):
        HfLocal(tiny_checkpoint("llava", tiny_cache), "llava", device="cuda")


def test_missing_package(monkeypatch, tiny_cache):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("model_adapters.local_weights.import_module", absent)
    with pytest.raises(Unavailable, match=r"need torch: pip install 'evalkit-vlm\[local\]'"):
        HfLocal(tiny_checkpoint("llava", tiny_cache), "llava")


def test_revision_and_trust_reach_every_file(monkeypatch, tiny_cache):
    """From the Hub, all files come from the pinned commit, and remote code runs only on request."""
    hub_id, asked = "llava-hf/llava-1.5-7b-hf", []

    def recorder(name, load):
        def from_pretrained(source, **settings):
            if source == hub_id:  # not what transformers asks of itself
                asked.append((name, settings.pop("revision"), settings.pop("trust_remote_code")))
                source = tiny_checkpoint("llava", tiny_cache)
            return load(source, **settings)

        return from_pretrained

    names = ("AutoConfig", "AutoTokenizer", "AutoImageProcessor", "LlavaForConditionalGeneration")
    for name in names:
        class_ = getattr(transformers, name)
        monkeypatch.setattr(class_, "from_pretrained", recorder(name, class_.from_pretrained))
    adapter = HfLocal(hub_id, "llava", revision="abc123", device="cpu")
    assert asked == [(name, "abc123", False) for name in names]
    assert adapter.describe()["checkpoint"] == f"{hub_id}@abc123"
