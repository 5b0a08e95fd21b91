"""Libraries that speak Ollama's API, each in a virtual environment of its own against the one running server.

The checks are in clients/check_<library>.py; they run under a pytest of that environment. `make test` runs the light
libraries, `make test-clients` those that take longer to install (CLIENT_LIBRARIES names them).
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import pytest

from tests.fetch import QWEN05, fetch
from tests.generate.scripted import agent_model

pytestmark = [pytest.mark.client, pytest.mark.model]

CHECKS = Path(__file__).with_name("clients")
PYTEST = ("pytest==9.2.0", "pytest-timeout==2.4.0")
PACKAGES = {
    "langchain": ("langchain-ollama==1.1.0",),
    "llm": ("llm==0.32.1", "llm-ollama==0.16.2"),
    "litellm": ("litellm==1.106.2",),
    "llama_index": ("llama-index-llms-ollama==0.11.0", "llama-index-embeddings-ollama==0.10.0"),
}
#: seconds that an installation, or the checks of one library, may take on a machine that has other things to do
PATIENCE = 600
LIBRARIES = os.environ.get("CLIENT_LIBRARIES", "langchain llm").split()


def environment(library: str) -> Path:
    """The Python of an environment with the library; kept between runs."""
    packages = (*PYTEST, *PACKAGES[library])
    name = hashlib.sha256(" ".join((sys.version, sys.prefix, *packages)).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir(), f"ollamacore-test-{library}-{name}")
    folder.mkdir(exist_ok=True)
    python = folder / "bin" / "python"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            venv.create(folder, with_pip=False, symlinks=True)
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
            command = [*pip, "--disable-pip-version-check", "--no-compile", *packages]
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
            assert done.returncode == 0, done.stderr
            (folder / "installed").touch()
    return python


@pytest.fixture
def target(running_server, minilm_path, tmp_path):
    """The running server, and environment variables that tell of it and of its four models."""
    server, starter = running_server
    server.add_model("tools", fetch(QWEN05))
    server.add_model("encoder", minilm_path)
    server.add_model("agent", agent_model(tmp_path / "agent.gguf"))
    yield {
        "OLLAMA_HOST": starter.url,
        "CLIENT_MODELS": f"{starter.model} tools:latest encoder:latest agent:latest",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # or it is fetched from the network
    }
    server.keep_only(starter.model)


@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize("library", LIBRARIES)
def test_library(target, tmp_path, library):
    python = environment(library)
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("OLLAMA", "PYTEST"))}
    command = [str(python), "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(CHECKS), "--noconftest"]
    command += ["-p", "no:cacheprovider", "--timeout", "120", str(CHECKS / f"check_{library}.py")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=tmp_path,
        env={**variables, **target, "LLM_USER_PATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
