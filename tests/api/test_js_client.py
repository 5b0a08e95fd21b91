"""The official JavaScript client under node: its builds for node and for browsers.

Without node there is nothing to test; with it, the install must work.
"""

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path

import ollama
import pytest

pytestmark = [pytest.mark.client, pytest.mark.model]

PACKAGE = "ollama@0.6.4"
SCRIPT = Path(__file__).with_name("client.mjs")


@pytest.fixture(scope="session")
def js_folder():
    """A folder with the client installed; kept between runs."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    folder = Path(tempfile.gettempdir(), f"ollamacore-test-{PACKAGE}")
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), PACKAGE]
            done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
            assert done.returncode == 0, done.stderr
            (folder / "installed").touch()
    return folder


@pytest.mark.parametrize("build", ["ollama", "ollama/browser"])
def test_javascript_client(live_server, js_folder, tmp_path, build):
    client = ollama.Client(host=live_server.url)
    digest = client.create_blob(live_server.gguf)  # the JavaScript client cannot upload
    client._client.close()
    script = tmp_path / SCRIPT.name
    shutil.copy(SCRIPT, script)
    (tmp_path / "node_modules").symlink_to(js_folder / "node_modules")
    command = ["node", str(script), build, live_server.url, live_server.model, digest]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout) == (0, "all good\n"), done.stderr
