"""The server that the official clients talk to: all of it, with the starter model."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.models.engine import LocalLoader
from server.starter import NAME, cache_folder, fetch_starter
from tests.generate.scripted import agent_model
from tests.server.live import LiveServer


@dataclass(frozen=True)
class Target:
    """A running server, the name of a chat model in its store, and the file that model was made from."""

    url: str
    model: str
    gguf: Path


@pytest.fixture(scope="session")
def running_server(tmp_path_factory):
    gguf = fetch_starter(cache_folder(os.environ))
    with LiveServer(tmp_path_factory.mktemp("models"), LocalLoader(None)) as server:
        server.add_model(NAME, gguf)
        yield server, Target(server.url, NAME, gguf)


@pytest.fixture
def agent(running_server, tmp_path):
    """The server with one more model, which thinks and calls tools, and the name of that."""
    server, target = running_server
    server.add_model("agent", agent_model(tmp_path / "agent.gguf"))
    yield Target(target.url, "agent:latest", tmp_path / "agent.gguf")
    server.keep_only(target.model)


@pytest.fixture
def live_server(running_server):
    """The server with nothing but the starter model in its store. The tests hold for any model that can chat."""
    server, target = running_server
    yield target
    server.keep_only(target.model)
