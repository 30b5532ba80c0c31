"""What vLLM is started with and asked; what of a LoRA it cannot apply. No vLLM needed."""

import json

import pytest

pytest.importorskip("torch", reason="the `local` extra is not installed")

from evalkit.errors import AdapterError, ConfigError, Unavailable
from model_adapters.checkpoint_inputs import open_checkpoint
from model_adapters.families import Llava, Qwen25VL, messages
from model_adapters.tiny import tiny_checkpoint
from model_adapters.vllm_engine import check_prompt_ids, require_room
from model_adapters.vllm_server import chat_request_extras, messages_for
from model_adapters.vllm_settings import VllmOptions, arguments, command_line, lora_rank, start_environment

pytestmark = pytest.mark.local


def opened(family, cache, **options):
    return open_checkpoint(tiny_checkpoint(family, cache), family, **options)


def test_a_gpu_is_left_to_vllm_but_for_what_changes_answers(tiny_cache):
    checkpoint = opened("llava", tiny_cache)
    assert arguments(checkpoint, VllmOptions(), on_cpu=False) == {
        "model": checkpoint.source,
        "dtype": "float32",  # as stored; vLLM's own auto would halve it
        "tensor_parallel_size": 1,
        "data_parallel_size": 1,
        "generation_config": "vllm",
        "limit_mm_per_prompt": {"image": 1, "video": 0},
    }


def test_settings_are_passed_on(tiny_cache):
    checkpoint = opened("qwen2_5_vl", tiny_cache, min_pixels=3136, max_pixels=6272)
    options = {
        "dtype": "bfloat16", "tensor_parallel_size": 2, "data_parallel_size": 4, "gpu_memory_utilization": 0.5,
        "max_model_len": 2048, "max_num_seqs": 64, "enforce_eager": False, "trust_remote_code": True,
    }  # fmt: skip
    found = arguments(checkpoint, VllmOptions(**options), on_cpu=False)
    assert found | options == found
    assert found["mm_processor_kwargs"] == {"min_pixels": 3136, "max_pixels": 6272}


@pytest.mark.parametrize(
    ("options", "expected", "cache_bytes"),
    [
        # 2 layers of 1 head of 32: 2 * 2 * 32 * 4 bytes a token; never less than 256 MiB
        ({}, {"enforce_eager": True, "max_num_seqs": 16, "max_model_len": 4096}, 1 << 28),
        ({"max_num_seqs": 3, "max_model_len": 99, "enforce_eager": False}, {"max_num_seqs": 3, "max_model_len": 99}, 1 << 28),
        ({"gpu_memory_utilization": 0.25}, {"gpu_memory_utilization": 0.25}, None),
    ],
)  # fmt: skip
def test_a_cpu_gets_small_batches_and_a_small_cache(tiny_cache, options, expected, cache_bytes):
    checkpoint = opened("qwen2_5_vl", tiny_cache)
    found = arguments(checkpoint, VllmOptions(**options), on_cpu=True)
    assert found | expected == found
    assert found.get("kv_cache_memory_bytes") == cache_bytes
    assert found["distributed_executor_backend"] == "uni"  # so small a model
    variables = start_environment(checkpoint, VllmOptions(**options), on_cpu=True)
    assert variables["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in start_environment(checkpoint, VllmOptions(**options), on_cpu=False)


def test_copies_of_a_model_are_processes_of_their_own(tiny_cache):
    found = arguments(opened("llava", tiny_cache), VllmOptions(data_parallel_size=2), on_cpu=True)
    assert "distributed_executor_backend" not in found


def test_the_servers_command_line():
    settings = {
        "max_model_len": 9,
        "enforce_eager": True,
        "async_scheduling": False,
        "lora_modules": {"name": "a b"},
    }
    assert command_line(settings) == [
        "--max-model-len", "9", "--enforce-eager", "--no-async-scheduling", "--lora-modules", '{"name": "a b"}',
    ]  # fmt: skip


def test_an_unknown_setting_and_an_unknown_dtype():
    with pytest.raises(ConfigError, match=r"no dtype 'int4'\. Allowed: auto"):
        VllmOptions(dtype="int4")
    with pytest.raises(TypeError, match="speed"):
        VllmOptions(speed=2)


def adapter(folder, weights=("model.language_model.layers.0.self_attn.q_proj",), **config):
    from safetensors.numpy import save_file

    np = pytest.importorskip("numpy")
    folder.mkdir()
    config = {"r": 4, "base_model_name_or_path": "base", "bias": "none"} | config
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    keys = [f"base_model.model.{name}.lora_{part}.weight" for name in weights for part in "AB"]
    save_file({key: np.zeros((4, 4), np.float32) for key in keys}, folder / "adapter_model.safetensors")
    return str(folder)


@pytest.mark.parametrize(
    ("config", "rank"), [({"r": 4}, 8), ({"r": 64}, 64), ({"rank_pattern": {"q": 65}}, 128)]
)
def test_max_lora_rank_is_the_least_that_vllm_allows(tmp_path, config, rank):
    assert lora_rank(adapter(tmp_path / "a", **config), "a") == rank


VISION = "model.visual.blocks.0.attn.qkv"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"weights": ["model.language_model.layers.0.mlp.up_proj", VISION]},
            f"1 other modules, {VISION} among",
        ),
        ({"weights": ["model.multi_modal_projector.linear_1"]}, "multi_modal_projector.linear_1 among"),
        ({"weights": ["lm_head"]}, "lm_head among"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "biases"),
        ({"use_dora": True}, "DoRA"),
        ({"r": 1024}, "rank is 1024, vLLM takes 512 at most"),
    ],
)
def test_a_lora_that_vllm_would_apply_in_part_is_refused(tmp_path, config, message):
    with pytest.raises(AdapterError, match=message) as error:
        lora_rank(adapter(tmp_path / "a", **config), "a")
    assert "--engine hf_local" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_lora_without_weights(tmp_path):
    folder = adapter(tmp_path / "a")
    (tmp_path / "a" / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"a: adapter_model\.safetensors cannot be read"):
        lora_rank(folder, "a")


@pytest.mark.parametrize("family", [Llava(), Qwen25VL()])
def test_chat_messages_are_transformers_with_the_image_in_place(family):
    found = messages_for(family, "Where?", "data:image/png;base64,AAAA")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert found[-1] == {"role": "user", "content": [image, {"type": "text", "text": "Where?"}]}
    assert found[:-1] == messages(family, "Where?")[:-1]
    assert len(found) == (2 if family.system else 1)


def test_what_a_request_says_besides():
    plain = {"add_special_tokens": True, "return_token_ids": True, "repetition_penalty": 1.0}
    assert chat_request_extras() == plain
    assert chat_request_extras(frozenset({7, 3})) == plain | {"ignore_eos": True, "stop_token_ids": [3, 7]}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([1, 2, 4], r"at token 2: 4 .* where 3 .* is meant \(3 and 3 tokens\)"),
        ([2, 3], r"at token 0: 2 .* where 1 .* is meant \(2 and 3 tokens\)"),
        ([1, 2], "at token 2: its end  where 3"),
        ([1, 2, 3, 9], "at token 3: 9 .* where its end"),
        (None, "at token 0: its end"),
    ],
)
def test_the_first_token_that_differs_is_named(tiny_cache, prompt, found, message):
    checkpoint = opened("llava", tiny_cache)
    check_prompt_ids(checkpoint, prompt, (1, 2, 3), [1, 2, 3])
    with pytest.raises(AdapterError, match=message):
        check_prompt_ids(checkpoint, prompt, found, [1, 2, 3])


def test_room_for_prompt_and_answer(tiny_cache, prompt):
    checkpoint = opened("llava", tiny_cache)
    require_room(checkpoint, prompt, 92, 100)
    with pytest.raises(AdapterError, match="has 93 tokens and its answer up to 8; max_model_len is 100"):
        require_room(checkpoint, prompt, 93, 100)


@pytest.fixture
def prompt(tmp_path):
    from evalkit.records import Prompt

    return Prompt("s", "Where?", tmp_path / "i.png", (60, 40), 8, "")


def test_without_vllm_the_engine_says_what_to_install(tiny_cache, monkeypatch):
    import model_adapters.vllm_settings as settings
    from model_adapters.vllm_engine import VllmEngine

    def absent(name):
        raise ImportError(f"No module named {name!r}", name="vllm")

    monkeypatch.setattr(settings, "import_module", absent)
    with pytest.raises(Unavailable, match=r"pip install 'evalkit-vlm\[vllm\]'"):
        VllmEngine(tiny_checkpoint("llava", tiny_cache), "llava")
