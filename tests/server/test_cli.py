"""The command line, as a process: start, message of a taken port, signals."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start(tmp_path):
    """A function that starts ``python -m server`` and ends it after the test."""
    started = []

    def run(*arguments, **env):
        process = subprocess.Popen(
            [sys.executable, "-m", "server", *arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OLLAMA_HOST": "127.0.0.1:0", "OLLAMA_MODELS": str(tmp_path / "models"), **env},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def url_of(process):
    """The address that a server logs when it is ready."""
    seen = ""
    while True:
        ready, _, _ = select.select([process.stderr], [], [], 60)
        assert ready, seen
        line = process.stderr.readline()
        assert line, seen
        seen += line
        if found := re.search(r"listening on (http://\S+)", line):
            return found[1]


@pytest.mark.parametrize("arguments", [(), ("serve",)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_answers_and_ends_on_a_signal(start, arguments, number):
    process = start(*arguments)
    assert httpx.get(url_of(process)).text == "Ollama is running"
    process.send_signal(number)
    assert process.wait(120) == 0


def test_a_signal_lets_running_requests_end_and_a_second_one_does_not(start):
    process = start()
    host, port = url_of(process).removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        httpx.get(f"http://{host}:{port}/")  # by now the request above is running
        process.send_signal(signal.SIGTERM)
        while "stopping" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 130


def test_a_taken_port_is_a_message(start):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        process = start(OLLAMA_HOST=f"127.0.0.1:{port}")
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.startswith(f"error: cannot listen on 127.0.0.1:{port}")
    assert "Traceback" not in errors


def test_an_unusable_models_folder_is_a_message(start, tmp_path):
    (tmp_path / "file").write_text("x")
    process = start(OLLAMA_MODELS=str(tmp_path / "file"))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.startswith("error: ")
    assert "Traceback" not in errors


def test_version_and_help(start):
    out, _ = start("--version").communicate(timeout=120)
    assert re.match(r"ollamacore \S.*, Ollama API \d+\.\d+\.\d+", out)
    out, _ = start("serve", "--help").communicate(timeout=120)
    assert "OLLAMA_KEEP_ALIVE" in out


def test_an_unknown_command_is_refused(start):
    process = start("dance")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "dance" in errors
