"""Which engine a local model gets, which settings reach it, and what is said of it."""

import pytest

from evalkit.errors import ConfigError
from model_adapters import get_entry, identity
from model_adapters.engines import with_engine


@pytest.fixture
def installed(monkeypatch):
    def only(*names):
        def find(name):
            return object() if name in names else None

        monkeypatch.setattr("model_adapters.engines.find_spec", find)

    return only


@pytest.mark.parametrize(
    ("model", "vllm", "engine", "adapter", "says"),
    [
        ("qwen-base", True, "auto", "vllm_engine", "qwen-base runs in vLLM ("),
        ("qwen-base", False, "auto", "hf_local", "qwen-base runs in transformers (vLLM is not installed"),
        ("qwen-base", True, "hf_local", "hf_local", "runs in transformers (as asked)"),
        ("qwen-base", False, "vllm", "vllm_engine", "runs in vLLM (as asked)"),
        ("qwen-base", False, "vllm_server", "vllm_server", "runs in a vLLM server (as asked)"),
        ("glamm-fs-7b", True, "auto", "vllm_engine", "glamm-fs-7b runs in vLLM"),
        ("instructblip-7b", True, "auto", "instructblip", "transformers (vLLM has no instructblip)"),
        ("molmo-7b-d", True, "auto", "molmo", "transformers (evalkit runs molmo in transformers alone)"),
        ("fake", True, "auto", "fake", None),
        ("gpt-6-luna", True, "auto", "openai_api", None),
    ],
)
def test_choice(installed, model, vllm, engine, adapter, says):
    installed("torch", *(["vllm"] if vllm else []))
    entry, why = with_engine(get_entry(model), engine)
    assert entry.adapter == adapter
    assert (why is None) == (says is None)
    assert (says or "") in (why or "")


@pytest.mark.parametrize(
    ("model", "engine", "message"),
    [
        ("instructblip-7b", "vllm", "vLLM has no instructblip: use --engine hf_local"),
        ("molmo-7b-d", "vllm", "evalkit runs molmo in transformers alone: use --engine hf_local"),
        ("gpt-6-luna", "hf_local", "not a local checkpoint: leave --engine out"),
        ("fake", "vllm", "not a local checkpoint"),
    ],
)
def test_an_engine_that_cannot_run_a_model_is_refused(model, engine, message):
    with pytest.raises(ConfigError, match=message):
        with_engine(get_entry(model), engine)


def test_an_engine_takes_its_own_settings_alone():
    entry = get_entry("tiny-qwen").with_settings(
        {"batch_size": 4, "max_num_seqs": 8, "concurrency": 3, "dtype": "float32", "num_beams": 5}
    )
    hf, _ = with_engine(entry, "hf_local")
    assert (hf.options, hf.runtime) == ({"dtype": "float32"}, {"batch_size": 4, "device": "cpu"})
    vllm, _ = with_engine(entry, "vllm")
    assert (vllm.options, vllm.runtime) == ({"dtype": "float32"}, {"max_num_seqs": 8})
    server, _ = with_engine(entry, "vllm_server")
    assert server.runtime == {"max_num_seqs": 8, "concurrency": 3}


def test_the_engine_is_part_of_a_runs_identity_and_its_speed_is_not():
    qwen = get_entry("qwen-base")
    prints = [identity(with_engine(qwen, name)[0]) for name in ("hf_local", "vllm", "vllm_server")]
    assert len({str(one) for one in prints}) == 3
    faster, _ = with_engine(
        qwen.with_settings({"tensor_parallel_size": 4, "trust_remote_code": True}), "vllm"
    )
    assert identity(faster) == prints[1]
