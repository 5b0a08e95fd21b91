"""OLLAMA_DEBUG_LOG_REQUESTS keeps what is asked of models."""

import json
import subprocess
import tempfile

import httpx
import pytest

from server.config import Config
from tests.server.fake import FakeLoader
from tests.server.live import LiveServer


@pytest.fixture
def kept(tmp_path, script, tiny_gguf, monkeypatch):
    """A server that keeps requests, a client, and the folder that they are kept in."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with (
        LiveServer(tmp_path / "models", FakeLoader(script), log_requests=True) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        server.add_model("tiny", tiny_gguf)
        (folder,) = tmp_path.glob("ollamacore-request-logs-*")
        yield client, folder


def test_a_body_is_kept_with_a_script_that_repeats_it(kept):
    client, folder = kept
    body = {"model": "tiny", "prompt": "it's <me>", "stream": False}
    client.post("/api/generate", json=body)
    stored, script = sorted(folder.iterdir())
    assert json.loads(stored.read_text()) == body
    assert stored.name.endswith("_api_generate_body.json")
    assert [path.stat().st_mode & 0o777 for path in (folder, stored, script)] == [0o700, 0o600, 0o600]
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/sh"
    assert f"--url {client.base_url}/api/generate" in lines[1]
    # the same words, without a need for curl
    shown = subprocess.run(["sh", "-c", lines[1].replace("curl", "printf '%s\\n'").replace("$0", str(script))],
                           capture_output=True, text=True, check=True)  # fmt: skip
    assert shown.stdout.splitlines()[-1] == f"@{stored.name}"


def test_secrets_and_other_routes_are_not_kept(kept):
    client, folder = kept
    client.post("/api/show", json={"model": "tiny"})
    client.get("/api/tags")
    assert list(folder.iterdir()) == []
    headers = {"Authorization": "Bearer secret", "Content-Type": "text/plain; x='\"$(touch y)`"}
    client.post("/api/chat", content=b'{"model":"tiny"}', headers=headers)
    assert not any("secret" in path.read_text() for path in folder.iterdir())
    assert subprocess.run(["sh", "-n", *folder.glob("*.sh")], check=False).returncode == 0


@pytest.mark.parametrize(("text", "wanted"), [("", False), ("1", True), ("0", False)])
def test_it_is_off_unless_asked_for(text, wanted):
    assert Config.from_env({"OLLAMA_DEBUG_LOG_REQUESTS": text}).log_requests is wanted
