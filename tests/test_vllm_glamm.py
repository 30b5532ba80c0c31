"""A converted GLaMM in vLLM: the prompt ids and every greedy token of transformers."""

from vllm_support import MARKS, RecordedEngine, by_transformers

from evalkit.datasets.build import build
from evalkit.datasets.disk import read_split
from evalkit.prompts import make_prompt
from evalkit.task import load_task

pytestmark = MARKS


def test_every_token_of_a_converted_checkpoint(tmp_path):
    from tiny_glamm import make_clip, make_glamm

    from model_adapters.glamm import convert

    make_glamm(tmp_path / "glamm"), make_clip(tmp_path / "clip")
    convert(tmp_path / "glamm", tmp_path / "converted", tmp_path / "clip", shard_bytes=400_000)
    build("line_tracing", tmp_path / "data", n=60)
    task = load_task("line_tracing")
    samples = read_split(tmp_path / "data", "line_tracing", "test").samples[:20]
    prompts = [make_prompt(task, task.variant("glamm"), sample) for sample in samples]
    ours = by_transformers(tmp_path / "converted", "glamm", prompts)
    engine = RecordedEngine(
        tmp_path / "converted", "glamm", dtype="float32", layout="crop", max_model_len=1024
    )
    try:
        theirs = engine.recorded(prompts)
    finally:
        engine.close()
    for prompt in prompts:
        (reply, tokens), (_, found) = ours[prompt.sample_id], theirs[prompt.sample_id]
        assert theirs[prompt.sample_id][0]["error"] is None
        assert found == tokens, prompt.sample_id
        assert reply["usage"] == theirs[prompt.sample_id][0]["usage"]
    assert len({tuple(tokens) for _, tokens in ours.values()}) > 5
