"""API keys, read-only mode, TLS and Unix sockets, through real connections."""

import socket
import ssl

import httpx
import ollama
import pytest
import trustme

from server.app import StartError
from server.config import Config, ConfigError
from tests.server.fake import FakeLoader, Script
from tests.server.live import LiveServer


def start(tmp_path, **settings):
    return LiveServer(tmp_path / "models", FakeLoader(Script()), **settings)


@pytest.fixture
def guarded(tmp_path, tiny_gguf):
    with start(tmp_path, api_keys=("first key", "second")) as server:
        server.add_model("tiny", tiny_gguf)
        yield server


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer second"}, 200),
        ({"Authorization": "bearer  first key"}, 200),
        ({"x-api-key": "second"}, 200),
        ({"Authorization": "Bearer secon"}, 401),
        ({"Authorization": "Bearer second2"}, 401),
        ({"Authorization": "Basic second"}, 401),
        ({"Authorization": "second"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"x-api-key": ""}, 401),
    ],
)
def test_a_key_opens_the_server(guarded, headers, status):
    answer = httpx.get(f"{guarded.url}/api/tags", headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert answer.json() == {"error": "unauthorized"}
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/", "/api/version"])
def test_life_signs_need_no_key(guarded, path):
    assert httpx.get(guarded.url + path).status_code == 200


def test_unknown_paths_tell_nothing_without_a_key(guarded):
    assert httpx.get(f"{guarded.url}/api/nothing").status_code == 401


def test_the_body_of_a_stranger_is_not_read(guarded):
    answer = httpx.post(f"{guarded.url}/api/blobs/sha256:{'0' * 64}", content=b"x" * 100_000)
    assert answer.status_code == 401


def test_the_official_client_brings_its_key(guarded, monkeypatch):
    monkeypatch.setenv("OLLAMA_API_KEY", "second")
    with ollama.Client(guarded.url) as client:
        assert [model.model for model in client.list().models] == ["tiny:latest"]
    monkeypatch.setenv("OLLAMA_API_KEY", "wrong")
    with ollama.Client(guarded.url) as client, pytest.raises(ollama.ResponseError, match="unauthorized"):
        client.list()


def test_read_only_refuses_what_changes_the_store(tmp_path, tiny_gguf):
    with start(tmp_path, read_only=True) as server, ollama.Client(server.url) as client:
        server.add_model("tiny", tiny_gguf)
        for change in (
            lambda: client.delete("tiny"),
            lambda: client.copy("tiny", "other"),
            lambda: client.create("other", from_="tiny"),
            lambda: client.create_blob(tiny_gguf),
        ):
            with pytest.raises(ollama.ResponseError, match="read-only") as refused:
                change()
            assert refused.value.status_code == 403
        assert [model.model for model in client.list().models] == ["tiny:latest"]
        assert client.generate("tiny", "hello").response


def test_https_with_a_certificate(tmp_path, tiny_gguf):
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with start(tmp_path, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem") as server:
        server.add_model("tiny", tiny_gguf)
        url = server.url.replace("http://", "https://")
        with httpx.Client(base_url=url, verify=trust) as client:
            assert client.get("/").text == "Ollama is running"
            with client.stream("POST", "/api/generate", json={"model": "tiny", "prompt": "hello"}) as answer:
                lines = list(answer.iter_lines())
        assert '"done":true' in lines[-1]
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)  # a client that does not know the authority


@pytest.mark.parametrize("settings", [{"tls_cert": "cert.pem"}, {"tls_key": "key.pem"}])
def test_a_certificate_that_cannot_be_used_stops_the_start(tmp_path, settings):
    server = start(tmp_path, **{name: tmp_path / value for name, value in settings.items()})
    with pytest.raises(StartError, match=r"cert\.pem|OLLAMACORE_TLS_CERT"):
        server.__enter__()
    server.stop_loop()


def test_a_unix_socket(tmp_path, tiny_gguf):
    path = tmp_path / "o.sock"
    for _ in range(2):  # the second server finds no trace of the first
        with start(tmp_path, socket=path) as server:
            server.add_model("tiny", tiny_gguf)
            assert path.stat().st_mode & 0o777 == 0o660
            transport = httpx.HTTPTransport(uds=str(path))
            with httpx.Client(base_url="http://any-name", transport=transport) as client:
                answer = client.post("/api/generate", json={"model": "tiny", "prompt": "hello", "stream": False})
                assert answer.json()["done"] is True
        assert not path.exists()


def test_a_socket_that_a_dead_server_left_is_replaced(tmp_path):
    path = tmp_path / "o.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with start(tmp_path, socket=path):
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(base_url="http://localhost", transport=transport) as client:
            assert client.get("/").status_code == 200
        second = start(tmp_path, socket=path)
        with pytest.raises(StartError, match="another server"):
            second.__enter__()
        second.stop_loop()


def test_a_file_in_the_socket_s_place_stays(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("keep me")
    server = start(tmp_path, socket=path)
    with pytest.raises(StartError, match="no socket"):
        server.__enter__()
    server.stop_loop()
    assert path.read_text() == "keep me"


@pytest.mark.parametrize(
    ("text", "path"),
    [("unix:/run/o.sock", "/run/o.sock"), ("unix:///run/o.sock", "/run/o.sock"), ("http://unix:80", None), ("", None)],
)
def test_ollama_host_may_name_a_unix_socket(text, path):
    socket = Config.from_env({"OLLAMA_HOST": text}).socket
    assert (str(socket) if socket else None) == path


def test_api_keys_come_from_the_variable_or_a_file(tmp_path):
    assert Config.from_env({"OLLAMACORE_API_KEYS": " a, b ,,"}).api_keys == ("a", "b")
    (tmp_path / "keys").write_text("# team\none\n\n two \n")
    assert Config.from_env({"OLLAMACORE_API_KEYS": f"@{tmp_path}/keys"}).api_keys == ("one", "two")
    assert "my secret" not in repr(Config.from_env({"OLLAMACORE_API_KEYS": "my secret"}))


@pytest.mark.parametrize("text", ["@/no/such/file", ",", "@/dev/null"])
def test_keys_that_cannot_be_had_stop_the_start(text):
    with pytest.raises(ConfigError, match="OLLAMACORE_API_KEYS"):
        Config.from_env({"OLLAMACORE_API_KEYS": text})
