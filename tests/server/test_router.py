"""What is decided before a handler runs: paths, methods, redirects, origins, hosts."""

import socket

import httpx
import pytest

from server.origins import Origins, host_is_allowed
from server.router import clean_path
from server.routes import find
from tests.server.fake import FakeLoader
from tests.server.live import LiveServer


@pytest.mark.parametrize("path", ["/nothing", "/api", "/api/blobs", "/api/blobs/a/b", "/api/generate/x", "/debug/vars"])
def test_an_unknown_path_is_a_plain_404(http, path):
    answer = http.get(path)
    assert (answer.status_code, answer.text) == (404, "404 page not found")
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/api/generate", "POST"),
        ("POST", "/api/tags", "GET, HEAD"),
        ("HEAD", "/api/ps", "GET"),
        ("GET", "/api/delete", "DELETE"),
        ("GET", "/api/blobs/sha256:0", "HEAD, POST"),
        ("DELETE", "/", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_a_plain_405_with_allow(http, method, path, allow):
    answer = http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    assert answer.text == ("" if method == "HEAD" else "405 method not allowed")


@pytest.mark.parametrize(
    ("method", "path", "status", "location"),
    [
        ("GET", "/api/tags/", 301, "/api/tags"),
        ("POST", "/api/generate/?a=1", 307, "/api/generate?a=1"),
        ("GET", "/api/../api/tags", 301, "/api/tags"),
        ("GET", "//api/tags", 301, "/api/tags"),
    ],
)
def test_a_path_in_another_spelling_is_redirected(live, method, path, status, location):
    host = live.url.removeprefix("http://")
    answer = raw(live, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n")
    assert f" {status} " in answer.split("\r\n")[0]
    assert f"\r\nLocation: {location}\r\n" in answer


def raw(live, text):
    host, port = live.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        connection.sendall(text.encode())
        return connection.recv(65536).decode()


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/", "/a/"),
        ("//a", "/a"),
        ("/a//b/", "/a/b/"),
        ("/a/./b", "/a/b"),
        ("/../../x", "/x"),
        ("/a/..", "/"),
        ("*", "*"),
    ],
)
def test_clean_path(path, clean):
    assert clean_path(path) == clean


def test_find_takes_one_segment_after_a_folder_route():
    name, methods = find("/api/blobs/x")
    assert (name, set(methods)) == ("/api/blobs/{digest}", {"HEAD", "POST"})
    assert find("/api/blobs/") is None


# ---- origins ----


def test_a_request_without_a_foreign_origin_gets_no_cors_headers(live, http):
    for headers in ({}, {"Origin": live.url}):
        answer = http.get("/api/version", headers=headers)
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/api/version", "/nothing"])
def test_a_foreign_origin_is_an_empty_403(http, path):
    answer = http.get(path, headers={"Origin": "http://evil.example"})
    assert (answer.status_code, answer.content) == (403, b"")


@pytest.mark.parametrize("path", ["/api/version", "/nothing"])
def test_an_allowed_origin_is_echoed(http, path):
    answer = http.get(path, headers={"Origin": "http://localhost:3000"})
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert answer.headers["vary"] == "Origin"


def test_an_allowed_origin_is_echoed_on_streams(http):
    body = {"model": "tiny", "prompt": "x"}
    answer = http.post("/api/generate", json=body, headers={"Origin": "app://obsidian.md"})
    assert answer.headers["access-control-allow-origin"] == "app://obsidian.md"
    assert answer.headers["content-type"] == "application/x-ndjson"


def test_a_preflight_of_an_allowed_origin_is_a_204(http):
    headers = {"Origin": "tauri://localhost", "Access-Control-Request-Method": "POST"}
    answer = http.options("/api/generate", headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-methods"] == "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
    allowed = answer.headers["access-control-allow-headers"].lower().split(",")
    assert {"authorization", "content-type", "openai-beta", "x-stainless-os"} <= set(allowed)
    assert "x-api-key" not in allowed
    assert sum(name.startswith("x-stainless-") for name in allowed) == 12
    assert answer.headers["access-control-max-age"] == "43200"
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost", True),
        ("https://localhost:8443", True),
        ("http://127.0.0.1:1", True),
        ("http://0.0.0.0", True),
        ("vscode-webview://abc", True),
        ("file://x", True),
        ("http://localhost.evil.example", False),
        ("null", False),
        ("http://127a0b0c1:80", False),
        ("https://my.site", True),
        ("https://a.wild.site", True),
        ("https://wild.site", False),
        ("chrome-extension://x", False),
    ],
)
def test_origins_match_patterns(origin, allowed):
    assert Origins(["https://my.site", "https://*.wild.site"]).allows(origin) is allowed


def test_a_star_allows_every_origin(tmp_path, script):
    with LiveServer(tmp_path, FakeLoader(script), origins=("*",)) as live:
        answer = httpx.get(f"{live.url}/api/version", headers={"Origin": "http://evil.example"})
        assert answer.headers["access-control-allow-origin"] == "*"


# ---- hosts ----


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("", True),
        ("localhost", True),
        ("LOCALHOST:11434", True),
        ("127.0.0.1:1", True),
        ("[::1]:11434", True),
        ("::1", False),
        ("a.localhost", True),
        ("nas.local", True),
        ("x.internal:80", True),
        ("192.168.1.5", True),
        ("0.0.0.0", True),
        ("evil.example", False),
        ("8.8.8.8", False),
        ("localhost.evil.example", False),
        ("notlocal", False),
        ("[::1", False),
        ("local", False),
        ("a:b:c", False),
    ],
)
def test_host_is_allowed(host, allowed):
    assert host_is_allowed(host) is allowed


def test_a_foreign_host_is_an_empty_403_on_a_loopback_listener(http):
    answer = http.get("/api/version", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.content) == (403, b"")
    assert http.options("/api/version", headers={"Host": "localhost"}).status_code == 204
    assert http.options("/api/version", headers={"Host": "evil.example"}).status_code == 403


def test_hosts_are_not_checked_on_an_open_listener(tmp_path, script):
    with LiveServer(tmp_path, FakeLoader(script), host="0.0.0.0") as live:
        url = live.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/api/version", headers={"Host": "nas.example"}).status_code == 200
