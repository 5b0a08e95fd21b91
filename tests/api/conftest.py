"""The server that the official clients talk to."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.server.fake import FakeLoader, Script
from tests.server.live import LiveServer, write_gguf


@dataclass(frozen=True)
class Target:
    """A running server, the name of a chat model in its store, and the file that model was made from."""

    url: str
    model: str
    gguf: Path


@pytest.fixture
def live_server(tmp_path):
    """One server for each test, with one model. The clients' tests hold for any model that can chat."""
    gguf = write_gguf(tmp_path / "model.gguf")
    script = Script()
    script.pieces, script.pause_s = ["word "] * 2000, 0.001
    with LiveServer(tmp_path / "models", FakeLoader(script)) as server:
        server.add_model("chatty:1b", gguf)
        yield Target(server.url, "chatty:1b", gguf)
