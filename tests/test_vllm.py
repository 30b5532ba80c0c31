"""A checkpoint trained here answers alike in transformers and in vLLM: every greedy token, on 20 prompts.

Runs where vLLM is installed (a CPU build will do); skipped elsewhere.
"""

import pytest

pytest.importorskip("vllm")
torch = pytest.importorskip("torch")

from evalkit.datasets.build import build  # noqa: E402
from evalkit.datasets.disk import read_split  # noqa: E402
from evalkit.prompts import make_prompt  # noqa: E402
from evalkit.task import load_task  # noqa: E402
from model_adapters.families import messages  # noqa: E402
from model_adapters.hf_local import HfLocal  # noqa: E402
from model_adapters.local_inputs import open_rgb, pad_to_square  # noqa: E402
from model_adapters.tiny import tiny_checkpoint  # noqa: E402
from trainers.spec import TrainSpec  # noqa: E402
from trainers.training import Base, train  # noqa: E402

pytestmark = [
    pytest.mark.local,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(900),
]
PROMPTS = 20
ENGINE = {
    "dtype": "float32", "enforce_eager": True, "max_model_len": 1024, "max_num_seqs": 16,
    "limit_mm_per_prompt": {"image": 1, "video": 0}, "distributed_executor_backend": "uni",
}  # fmt: skip


@pytest.fixture(autouse=True)
def quiet_engine(monkeypatch):
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def trained(recipe, family, tuning, data, folder, cache):
    spec = TrainSpec(
        model="x", base="y", task="grid_patch", objective="ntp_klal", tuning=tuning, freeze=[], steps=30, batch_size=8,
        per_device_batch=8, lr=1e-3, precision="float32", checkpointing=False, device="cpu", lora={"r": 4, "alpha": 8},
    )  # fmt: skip
    base = Base(str(tiny_checkpoint(recipe, cache)), family, None, {}, "pad", None, {"name": recipe})
    train(spec, base, [(load_task("grid_patch"), read_split(data, "grid_patch", "train"))], folder)
    return folder


@pytest.mark.parametrize(
    ("recipe", "family", "tuning"),
    [
        ("qwen2_5_vl", "qwen2_5_vl", "full"),
        ("llava", "llava", "full"),
        ("qwen2_5_vl", "qwen2_5_vl", "lora"),
        ("llava", "llava", "lora"),
        ("qwen2_5_vl-mini", "qwen2_5_vl", "full"),
        ("llava-mini", "llava", "full"),
    ],
)
def test_a_trained_checkpoint_answers_alike_in_vllm(recipe, family, tuning, tmp_path, tiny_cache):
    build("grid_patch", tmp_path / "data", n=100)
    folder = trained(recipe, family, tuning, tmp_path / "data", tmp_path / "trained", tiny_cache)
    task = load_task("grid_patch")
    samples = read_split(tmp_path / "data", "grid_patch", "test").samples[:PROMPTS]
    prompts = [make_prompt(task, task.variant(family), sample) for sample in samples]
    adapter = HfLocal(folder, family, dtype="float32", device="cpu", batch_size=4)
    ours = {}
    for prompt in prompts:
        item = adapter.maker.load(adapter.maker.encode(prompt))
        ours[prompt.sample_id] = adapter._generate([item])[0]
    theirs = vllm_tokens(folder, adapter, prompts)
    assert len(theirs) == PROMPTS
    for prompt in prompts:
        ids, tokens = theirs[prompt.sample_id]
        assert ids == adapter.maker.encode(prompt).input_ids
        assert tokens == ours[prompt.sample_id][: len(tokens)]
        assert len(tokens) == task.max_new_tokens or tokens[-1] in adapter._eos_ids


def vllm_tokens(folder, adapter, prompts):
    from vllm import LLM, SamplingParams

    engine = LLM(model=str(folder), **ENGINE)
    inputs = []
    for prompt in prompts:
        image = open_rgb(prompt.image_path, prompt.image_size_wh)
        if adapter.maker.family.name == "llava":
            image = pad_to_square(image, (122, 116, 104))
        text = adapter.maker.tokenizer.apply_chat_template(
            messages(adapter.maker.family, prompt.text), tokenize=False, add_generation_prompt=True
        )
        ids = adapter.maker.tokenizer(text).input_ids
        inputs.append({"prompt_token_ids": ids, "multi_modal_data": {"image": image}})
    outputs = engine.generate(inputs, SamplingParams(temperature=0, max_tokens=prompts[0].max_new_tokens))
    return {
        prompt.sample_id: (list(output.prompt_token_ids), list(output.outputs[0].token_ids))
        for prompt, output in zip(prompts, outputs, strict=True)
    }
