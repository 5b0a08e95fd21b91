"""The routes of Ollama's cloud on a server that has none."""

import pytest


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/api/status", 200, {"cloud": {"disabled": True, "source": "none"}}),
        ("POST", "/api/me", 401, {"error": "unauthorized"}),
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
    assert answer.status_code == 403
    assert answer.json()["error"].startswith("ollama cloud is disabled: remote model")
