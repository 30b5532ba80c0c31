"""What each adapter needs and takes: packages, options that change answers, runtime settings, decoding."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_LOCAL_OPTIONS = frozenset({"dtype", "min_pixels", "max_pixels", "layout"})
_VLLM_RUNTIME = frozenset(
    {
        "tensor_parallel_size",
        "data_parallel_size",
        "gpu_memory_utilization",
        "max_model_len",
        "max_num_seqs",
        "enforce_eager",
        "trust_remote_code",
    }
)
_HF_RUNTIME = frozenset({"batch_size", "device", "trust_remote_code"})
_ASKING = frozenset({"base_url", "concurrency", "rpm", "tpm", "timeout_s", "api_key_env", "poll_s"})
_BEAMS = frozenset({"num_beams", "repetition_penalty", "length_penalty", "prompt_format"})


@dataclass(frozen=True, slots=True)
class Kind:
    """One adapter.

    packages: what it imports; extra: what installs them.
    options:  settings that change answers, part of a run's identity; runtime: those that do not.
    decoding: the keys a registry entry's `decoding` may have; `temperature: 0` alone where models run here.
    """

    packages: tuple[str, ...] = ()
    extra: str = ""
    options: frozenset[str] = frozenset()
    runtime: frozenset[str] = frozenset()
    decoding: frozenset[str] = frozenset({"temperature"})
    needs: tuple[str, ...] = ()  # entry fields

    @property
    def settings(self) -> frozenset[str]:
        return self.options | self.runtime


KINDS: dict[str, Kind] = {
    "fake": Kind(
        options=frozenset({"reply", "script", "faults"}),
        runtime=frozenset({"latency_s", "log"}),
    ),
    "hf_local": Kind(
        ("torch", "transformers"), "local", _LOCAL_OPTIONS, _HF_RUNTIME, needs=("checkpoint", "family")
    ),
    "instructblip": Kind(
        *(
            ("torch", "transformers"),
            "local",
            frozenset({"dtype"}) | _BEAMS,
            _HF_RUNTIME - {"trust_remote_code"},
        ),
        needs=("checkpoint", "family"),
    ),
    "molmo": Kind(
        ("torch", "transformers"),
        "local",
        frozenset({"dtype"}),
        _HF_RUNTIME,
        needs=("checkpoint", "family"),
    ),
    "vllm_engine": Kind(
        ("vllm", "transformers"), "vllm", _LOCAL_OPTIONS, _VLLM_RUNTIME, needs=("checkpoint", "family")
    ),
    "vllm_server": Kind(
        ("transformers", "openai", "tenacity", "aiolimiter"),
        "api,vllm",
        _LOCAL_OPTIONS,
        _VLLM_RUNTIME | _ASKING,
        needs=("checkpoint", "family"),
    ),
    "openai_api": Kind(
        ("openai", "aiohttp", "tenacity", "aiolimiter"),
        "api",
        frozenset({"detail", "token_parameter", "system", "reasoning_room"}),
        _ASKING,
        frozenset({"temperature", "seed", "reasoning_effort"}),
        needs=("checkpoint",),
    ),
    "gemini_api": Kind(
        ("google.genai", "aiohttp", "tenacity", "aiolimiter"),
        "api",
        frozenset({"media_resolution", "reasoning_room"}),
        _ASKING,
        frozenset({"temperature", "seed", "thinking_budget", "thinking_level"}),
        needs=("checkpoint",),
    ),
}

# `adapter: local` is the best engine here for the family; see model_adapters.engines.
LOCAL_KINDS = ("hf_local", "instructblip", "molmo", "vllm_engine", "vllm_server")
API_KINDS = ("openai_api", "gemini_api")
KINDS["local"] = Kind(
    options=frozenset().union(*(KINDS[name].options for name in LOCAL_KINDS)),
    runtime=frozenset().union(*(KINDS[name].runtime for name in LOCAL_KINDS)),
    needs=("checkpoint", "family"),
)

_NUMBER = (int, float)
_TYPES: dict[str, type | tuple[type, ...]] = {
    "reply": (str, int, float),
    "script": str,
    "faults": dict,
    "latency_s": _NUMBER,
    "log": str,
    "dtype": str,
    "min_pixels": int,
    "max_pixels": int,
    "layout": str,
    "trust_remote_code": bool,
    "batch_size": int,
    "device": str,
    "num_beams": int,
    "repetition_penalty": _NUMBER,
    "length_penalty": _NUMBER,
    "prompt_format": str,
    "tensor_parallel_size": int,
    "data_parallel_size": int,
    "gpu_memory_utilization": _NUMBER,
    "max_model_len": int,
    "max_num_seqs": int,
    "enforce_eager": bool,
    "base_url": str,
    "api_key_env": str,
    "concurrency": int,
    "rpm": _NUMBER,
    "tpm": _NUMBER,
    "timeout_s": _NUMBER,
    "poll_s": _NUMBER,
    "detail": str,
    "token_parameter": str,
    "system": str,
    "media_resolution": str,
    "reasoning_room": int,
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "detail": ("auto", "low", "high", "original"),
    "token_parameter": ("max_completion_tokens", "max_tokens"),
    "media_resolution": ("low", "medium", "high"),
}
_AT_LEAST_1 = frozenset(
    {
        *("batch_size", "min_pixels", "max_pixels", "num_beams", "tensor_parallel_size"),
        *("data_parallel_size", "max_model_len", "max_num_seqs", "concurrency", "rpm", "tpm"),
    }
)


def setting_fault(name: str, value: Any) -> str | None:
    """Why a setting's value cannot be used, or None."""
    allowed = _TYPES[name]
    kinds = allowed if isinstance(allowed, tuple) else (allowed,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return f"{name} must be {' or '.join(kind.__name__ for kind in kinds)}, found {value!r}"
    if name in _CHOICES and value not in _CHOICES[name]:
        return f"{name} must be one of {', '.join(_CHOICES[name])}, found {value!r}"
    if name == "base_url":
        return _url_fault(str(value))
    if name == "api_key_env" and not re.fullmatch(r"[A-Z][A-Z0-9_]*(KEY|TOKEN)", str(value)):
        return f"{name} must name a variable like MY_API_KEY or MY_TOKEN, found {value!r}"
    return _range_fault(name, value)


def _url_fault(value: str) -> str | None:
    try:
        parts = urlsplit(value)
        named = (
            parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        return "base_url must be like https://host/v1"
    if not named:
        return f"base_url must be like https://host/v1, found {value!r}"
    if parts.username or parts.password or parts.query or parts.fragment:
        return "base_url must not carry a name, a password or a query: it is stored with the run"
    return None


def _range_fault(name: str, value: Any) -> str | None:
    if name in _AT_LEAST_1 and not value >= 1:
        return f"{name} must be at least 1, found {value}"
    if name == "reasoning_room" and value < 0:
        return f"{name} must be a number of tokens, found {value}"
    if name == "latency_s" and not 0 <= value < 86_400:
        return f"{name} must be a number of seconds, found {value}"
    if name in ("timeout_s", "poll_s") and not 0 < value <= 86_400:
        return f"{name} must be a number of seconds above 0, found {value}"
    if name == "gpu_memory_utilization" and not 0 < value <= 1:
        return f"{name} must be above 0 and at most 1, found {value}"
    return None


def decoding_fault(adapter: str, decoding: dict[str, Any]) -> str | None:
    """Why a `decoding` cannot be used with an adapter, or None."""
    if adapter not in API_KINDS:
        if decoding != {"temperature": 0}:
            return "decoding must be {temperature: 0}: models that run here decode greedily"
        return None
    if unknown := sorted(set(decoding) - KINDS[adapter].decoding):
        known = ", ".join(sorted(KINDS[adapter].decoding))
        return f"decoding has no {unknown[0]!r} for adapter {adapter}; known: {known}"
    temperature = decoding.get("temperature", 0)
    if not isinstance(temperature, int | float) or isinstance(temperature, bool) or not 0 <= temperature <= 2:
        return f"decoding.temperature must be a number from 0 to 2, found {temperature!r}"
    return None
