"""Fixtures that several test modules share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of third-party data, from EVALKIT_REAL_DATA; skips where it is unset."""
    folder = os.environ.get("EVALKIT_REAL_DATA")
    if not folder:
        pytest.skip("EVALKIT_REAL_DATA is not set: no third-party data at hand")
    return Path(folder)
