"""A checkpoint trained here answers alike in transformers and in vLLM: every token, on 20 prompts.

Runs where vLLM is installed (`make test-vllm` installs a CPU build); skipped elsewhere.
"""

import pytest
from vllm_support import MARKS, PROMPTS, RecordedEngine, by_transformers, prompts_of, trained

from evalkit.datasets.build import build
from model_adapters.tiny import tiny_checkpoint

pytestmark = MARKS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    build("grid_patch", folder, n=100)
    return folder


@pytest.mark.parametrize(
    ("recipe", "family", "tuning", "export"),
    [
        ("qwen2_5_vl", "qwen2_5_vl", "full", "merged"),
        ("llava", "llava", "full", "merged"),
        ("qwen2_5_vl", "qwen2_5_vl", "lora", "merged"),
        ("llava", "llava", "lora", "merged"),
        ("qwen2_5_vl", "qwen2_5_vl", "lora", "adapter"),
        ("llava", "llava", "lora", "adapter"),
        ("qwen2_5_vl-mini", "qwen2_5_vl", "full", "merged"),
        ("llava-mini", "llava", "full", "merged"),
    ],
)
def test_a_trained_checkpoint_answers_alike_in_vllm(
    recipe, family, tuning, export, data, tmp_path, tiny_cache
):
    folder = trained(recipe, family, data, tmp_path / "trained", tiny_cache, tuning=tuning, export=export)
    prompts = prompts_of(data, family)
    ours = by_transformers(folder, family, prompts)
    engine = RecordedEngine(folder, family, dtype="float32")
    try:
        theirs = engine.recorded(prompts)
    finally:
        engine.close()
    assert len(ours) == PROMPTS
    assert theirs == ours
    if export == "adapter":  # and it is the adapter that answers, not its base
        base = by_transformers(tiny_checkpoint(recipe, tiny_cache), family, prompts)
        assert [tokens for _, tokens in base.values()] != [tokens for _, tokens in ours.values()]
