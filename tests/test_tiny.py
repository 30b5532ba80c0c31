"""Tiny checkpoints: the same bytes each time, whole under concurrency, readable by transformers as saved."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from evalkit.errors import ConfigError
from model_adapters.tiny import TINY_FAMILIES, tiny_checkpoint

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.local

CLASSES = {"qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration", "llava": "LlavaForConditionalGeneration"}
IMAGE_TOKENS = {"qwen2_5_vl": "<|image_pad|>", "llava": "<image>"}
families = pytest.mark.parametrize("family", TINY_FAMILIES)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)


@families
def test_same_bytes_in_another_cache(family, tiny_cache, tmp_path):
    first, again = tiny_checkpoint(family, tiny_cache), tiny_checkpoint(family, tmp_path)
    assert first.name == again.name
    assert contents(first) == contents(again)


def test_made_once_by_many_at_once(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(lambda _: tiny_checkpoint("llava", tmp_path), range(3)))
    assert [*folders] == [*(tmp_path / "tiny").iterdir()]  # one folder, and no scratch left behind


def test_a_folder_that_is_there_is_used(tiny_cache, tmp_path):
    folder = tmp_path / "tiny" / tiny_checkpoint("llava", tiny_cache).name
    folder.mkdir(parents=True)
    assert tiny_checkpoint("llava", tmp_path) == folder
    assert contents(folder) == {}


def test_a_failed_rename_is_not_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.rename", lambda *_: (_ for _ in ()).throw(OSError("read-only")))
    with pytest.raises(OSError, match="read-only"):
        tiny_checkpoint("llava", tmp_path)


def test_unknown_family(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"No tiny checkpoint 'molmo'. There are: qwen2_5_vl, llava, qwen2_5_vl-mini, llava-mini",
    ):
        tiny_checkpoint("molmo", tmp_path)


@families
def test_loads_whole_and_small(family, tiny_cache):
    folder = tiny_checkpoint(family, tiny_cache)
    model, found = getattr(transformers, CLASSES[family]).from_pretrained(folder, output_loading_info=True)
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype.itemsize == 4
    assert model.num_parameters() < 500_000
    text = model.config.text_config
    assert text.hidden_size // text.num_attention_heads == 32  # vLLM on the CPU takes no smaller head
    assert model.generation_config.do_sample is False


@families
def test_tokenizer(family, tiny_cache):
    folder = tiny_checkpoint(family, tiny_cache)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    image_id = config.get("image_token_id", config.get("image_token_index"))
    assert tokenizer.encode(IMAGE_TOKENS[family], add_special_tokens=False) == [image_id]
    assert len(tokenizer) <= config["text_config"]["vocab_size"]
    text = "Node Ä–7: (12, 23)\n「はい」 \t🙂"
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text
    assert len(tokenizer.encode("24", add_special_tokens=False)) == 2  # digit by digit


@families
def test_chat_template(family, tiny_cache):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_checkpoint(family, tiny_cache))
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]}
    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    answer = {"role": "assistant", "content": "2"}

    def rendered(*chat, start):
        return tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=start)

    if family == "llava":
        assert rendered(user, start=True) == "USER: <image>\nHow many? ASSISTANT:"
        assert rendered(system, user, start=True) == "Be brief. USER: <image>\nHow many? ASSISTANT:"
        assert rendered(user, answer, start=False) == "USER: <image>\nHow many? ASSISTANT: 2 "
        return
    question = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>How many?<|im_end|>\n"
    default = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert rendered(user, start=True) == f"{default}{question}<|im_start|>assistant\n"
    brief = "<|im_start|>system\nBe brief.<|im_end|>\n"
    assert (
        rendered(system, user, answer, start=False)
        == f"{brief}{question}<|im_start|>assistant\n2<|im_end|>\n"
    )


def weight_keys(folder):
    from safetensors import safe_open

    keys = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            keys |= set(file.keys())
    return keys


@pytest.mark.parametrize("max_shard_size", ["1GB", "300KB"])
def test_published_llava_keys_reload_identically(max_shard_size, tiny_cache, tmp_path):
    """What save_pretrained writes and what vLLM reads differ in the vision tower's names alone."""
    from model_adapters.export import restore_vision_tower_keys

    published = weight_keys(tiny_checkpoint("llava", tiny_cache))
    assert "vision_tower.vision_model.embeddings.class_embedding" in published
    llava = transformers.LlavaForConditionalGeneration
    loaded = llava.from_pretrained(tiny_checkpoint("llava", tiny_cache))
    model = llava(loaded.config)  # one that was not loaded: those are saved under the names they had
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert "vision_tower.embeddings.class_embedding" in weight_keys(tmp_path)
    restore_vision_tower_keys(tmp_path)
    assert weight_keys(tmp_path) == published
    if index := list(tmp_path.glob("*.index.json")):
        assert json.loads(index[0].read_text())["weight_map"].keys() == published
    assert len(list(tmp_path.glob("*.safetensors"))) == (1 if max_shard_size == "1GB" else 5)
    assert same_weights(llava.from_pretrained(tmp_path), model)


def test_published_names_stay(tiny_cache, tmp_path):
    from model_adapters.export import restore_vision_tower_keys

    folder = shutil.copytree(tiny_checkpoint("llava", tiny_cache), tmp_path / "copy")
    before = contents(folder)
    restore_vision_tower_keys(folder)
    assert contents(folder) == before
