"""Fixtures: a live server whose engine is scripted, with one model in its store."""

import httpx
import pytest

from tests.server.fake import FakeLoader, Script
from tests.server.live import LiveServer, write_gguf


@pytest.fixture
def script():
    return Script()


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def live(tmp_path, script, tiny_gguf):
    with LiveServer(tmp_path / "models", FakeLoader(script)) as server:
        server.add_model("tiny", tiny_gguf)
        yield server


@pytest.fixture
def http(live):
    with httpx.Client(base_url=live.url, timeout=120, verify=False) as client:
        yield client
