"""Fixtures that several folders share: real models, fetched on first use. Without one the proof is incomplete, so its
absence is an error."""

import pytest
from hypothesis import settings

from tests.fetch import GEMMA3, QWEN05, SMOLLM2, fetch, fetch_minilm

# The same examples in every run: a failure is the change's, never the day's. `--hypothesis-profile=default` explores.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")


@pytest.fixture(scope="session")
def smollm2_path():
    """SmolLM2-135M-Instruct Q4_1."""
    return fetch(SMOLLM2)


@pytest.fixture(scope="session")
def gemma3_path():
    """Gemma-3-270M Q4_K_M."""
    return fetch(GEMMA3)


@pytest.fixture(scope="session")
def qwen05_path():
    """Qwen2.5-Coder-0.5B-Instruct Q4_K_M."""
    return fetch(QWEN05)


@pytest.fixture(scope="session")
def minilm_path():
    """all-MiniLM-L6-v2 F16."""
    return fetch_minilm()
