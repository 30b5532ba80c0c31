"""What the tests of vLLM share: a trained checkpoint, prompts, transformers' answers to them."""

from dataclasses import asdict

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed; make test-vllm installs its CPU build")
pytest.importorskip("torch")

from evalkit.datasets.disk import read_split
from evalkit.prompts import make_prompt
from evalkit.task import load_task
from model_adapters.hf_local import HfLocal
from model_adapters.tiny import tiny_checkpoint
from model_adapters.vllm_engine import VllmEngine
from trainers.spec import TrainSpec
from trainers.training import Base, train

PROMPTS = 20
MARKS = [
    pytest.mark.local,
    pytest.mark.filterwarnings("ignore"),  # of vLLM and what it imports
    pytest.mark.timeout(600),
]


def prompts_of(data, family, n=PROMPTS):
    task = load_task("grid_patch")
    samples = read_split(data, "grid_patch", "test").samples[:n]
    return [make_prompt(task, task.variant(family), sample) for sample in samples]


def trained(recipe, family, data, folder, cache, *, tuning="full", export="merged"):
    spec = TrainSpec(
        model="x", base="y", task="grid_patch", objective="ntp_klal", tuning=tuning, export=export, freeze=[], steps=30,
        batch_size=8, per_device_batch=8, lr=1e-3, precision="float32", checkpointing=False, device="cpu",
        lora={"r": 4, "alpha": 8},
    )  # fmt: skip
    base = Base(str(tiny_checkpoint(recipe, cache)), family, None, {}, "pad", None, {"name": recipe})
    train(spec, base, [(load_task("grid_patch"), read_split(data, "grid_patch", "train"))], folder)
    return folder


def by_transformers(checkpoint, family, prompts, **options):
    """{sample_id: (the reply of HfLocal, its tokens up to an EOS)}, one prompt a batch."""
    adapter = HfLocal(checkpoint, family, dtype="float32", device="cpu", batch_size=1, **options)
    try:
        found = {}
        for reply in adapter.replies(prompts):
            prompt = next(p for p in prompts if p.sample_id == reply.sample_id)
            tokens = adapter._generate([adapter.maker.load(adapter.maker.encode(prompt))])[0]
            found[reply.sample_id] = comparable(reply), tokens[: reply.usage["output_tokens"]]
        return found
    finally:
        adapter.close()


class RecordedEngine(VllmEngine):
    """A VllmEngine that keeps the tokens vLLM made for each prompt; `recorded` runs it over prompts."""

    def recorded(self, prompts):
        """{sample_id: (its reply, its tokens)}."""
        self.tokens = {}
        return {name: (reply, self.tokens[name]) for name, reply in answers(self.replies(prompts)).items()}

    async def _generate(self, request, max_new_tokens, request_id):
        output = await super()._generate(request, max_new_tokens, request_id)
        self.tokens[request_id.rpartition("-")[0]] = list(output.outputs[0].token_ids)
        return output


def comparable(reply):
    """All of a reply that does not depend on the hour."""
    return {key: value for key, value in asdict(reply).items() if key != "latency_s"}


def answers(replies):
    found = {}
    for reply in replies:
        assert reply.sample_id not in found, "answered twice"
        assert reply.error or reply.latency_s > 0
        found[reply.sample_id] = comparable(reply)
    return found
