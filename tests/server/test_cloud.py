"""The routes of Ollama's cloud on a server that has none."""

import httpx
import pytest

from tests.server.fake import FakeLoader
from tests.server.live import LiveServer


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/api/status", 200, {"cloud": {"disabled": True, "source": "none"}}),
        ("POST", "/api/me", 503, {"error": "account unavailable"}),
        ("POST", "/api/signout", 401, {"error": "you are not currently signed in"}),
        ("DELETE", "/api/user/keys/c3NoLWVkMjU1MTk", 401, {"error": "you are not currently signed in"}),
        (
            "POST",
            "/api/experimental/web_search",
            403,
            {"error": "ollama cloud is disabled: web search is unavailable"},
        ),
        ("POST", "/api/experimental/web_fetch", 403, {"error": "ollama cloud is disabled: web fetch is unavailable"}),
        ("GET", "/api/experimental/model-recommendations", 200, {"recommendations": []}),
    ],
)
def test_cloud_routes_say_that_there_is_none(http, method, path, status, body):
    answer = http.request(method, path, json={"query": "anything"} if method == "POST" else None)
    assert (answer.status_code, answer.json()) == (status, body)


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/api/show"])
def test_cloud_models_are_refused(http, path):
    answer = http.post(path, json={"model": "big:cloud", "prompt": "x", "messages": [{"role": "user", "content": "x"}]})
    what = "remote model details are" if path == "/api/show" else "remote model is"
    assert (answer.status_code, answer.json()) == (403, {"error": f"ollama cloud is disabled: {what} unavailable"})


def test_status_says_that_the_environment_turned_it_off(tmp_path, script):
    with LiveServer(tmp_path / "models", FakeLoader(script), no_cloud=True) as server:
        answer = httpx.get(f"{server.url}/api/status").json()
    assert answer == {"cloud": {"disabled": True, "source": "env"}}
