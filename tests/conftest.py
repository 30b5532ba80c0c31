"""Fixtures that several test modules share."""

import os
from pathlib import Path

import pytest
from remote_fixture import grid_data, s3, s3_proxy, s3_server  # noqa: F401  # fixtures


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of third-party data, from EVALKIT_REAL_DATA; skips where it is unset."""
    folder = os.environ.get("EVALKIT_REAL_DATA")
    if not folder:
        pytest.skip("EVALKIT_REAL_DATA is not set: no third-party data at hand")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory) -> Path:
    """A cache folder that holds the tiny checkpoints of both local families; skips without torch."""
    pytest.importorskip("torch", reason="the `local` extra is not installed")
    pytest.importorskip("transformers", reason="the `local` extra is not installed")
    from model_adapters.tiny import TINY_FAMILIES, tiny_checkpoint

    cache = tmp_path_factory.mktemp("cache")
    for family in TINY_FAMILIES:
        tiny_checkpoint(family, cache)
    return cache


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch) -> None:
    """No test speaks to a provider with the keys of whoever runs it."""
    for name in (
        "OPENAI_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "OPENAI_BASE_URL",
        "GOOGLE_GEMINI_BASE_URL",
    ):
        monkeypatch.delenv(name, raising=False)
