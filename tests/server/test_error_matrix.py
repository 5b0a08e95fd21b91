"""The error matrix of Ollama's native API, row by row on the wire: status, text and form of every refusal."""

import contextlib
import threading

import httpx
import pytest

from ollamacore import EngineError, InvalidFileError
from server.errors import PROMPT_TOO_LONG
from tests.server.fake import FakeLoader
from tests.server.live import LiveServer, write_gguf

BUSY = "server busy, please try again.  maximum pending requests exceeded"
#: route -> a body that would do something, but for the model
BODIES = {
    "generate": {"prompt": "x"},
    "chat": {"messages": [{"role": "user", "content": "x"}]},
    "embed": {"input": "x"},
    "embeddings": {"prompt": "x"},
    "show": {},
    "delete": {},
}
RUNS = ("generate", "chat", "embed", "embeddings")


def ask(client, route, body=None, content=None, **extra):
    """One request of a route of the matrix; without a body of its own it gets one that is right."""
    method = "DELETE" if route == "delete" else "POST"
    if content is not None:
        return client.request(method, f"/api/{route}", content=content)
    return client.request(method, f"/api/{route}", json={**BODIES[route], **(body or {}), **extra})


def refused(answer, status, text):
    """Whether an answer is the error: its status, one key, its words, and a type that clients read as JSON."""
    assert (answer.status_code, answer.json()) == (status, {"error": text})
    assert answer.headers["content-type"].split(";")[0] == "application/json"


@pytest.mark.parametrize("content", [b"", b" \n"])
@pytest.mark.parametrize("route", BODIES)
def test_empty_body(http, route, content):
    refused(ask(http, route, content=content), 400, "missing request body")


@pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": None}])
@pytest.mark.parametrize(
    ("route", "status", "text"),
    [
        ("generate", 404, "model '' not found"),
        ("chat", 400, "model is required"),
        ("embed", 404, "model '' not found"),
        ("embeddings", 400, "model is required"),
        ("show", 400, "model is required"),
        ("delete", 400, "model is required"),
    ],
)
def test_model_empty(http, route, status, text, body):
    refused(ask(http, route, body), status, text)


@pytest.mark.parametrize("name", ["a b", "../x", "a/b/c/d/e", "-x", "x" * 400])
@pytest.mark.parametrize("route", BODIES)
def test_malformed_name(http, route, name):
    text = f'name "{name}" is invalid' if route == "delete" else "invalid model name"
    refused(ask(http, route, model=name), 400, text)


@pytest.mark.parametrize(
    ("route", "text"),
    [
        ("generate", "model 'Absent' not found"),
        ("chat", "model 'Absent' not found"),
        ("embed", 'model "Absent" not found, try pulling it first'),
        ("embeddings", 'model "Absent" not found, try pulling it first'),
        ("show", "model 'Absent:latest' not found"),
        ("delete", "model 'Absent' not found"),
    ],
)
def test_model_not_present(http, route, text):
    refused(ask(http, route, model="Absent"), 404, text)


@pytest.mark.parametrize(
    ("route", "extra", "text"),
    [
        ("generate", {"model": "vec"}, '"vec" does not support generate'),
        ("chat", {"model": "vec"}, '"vec" does not support chat'),
        (
            "chat",
            {"model": "tiny", "tools": [{"type": "function", "function": {"name": "f"}}]},
            "registry.ollama.ai/library/tiny:latest does not support tools",
        ),
        ("generate", {"model": "tiny", "think": True}, '"tiny" does not support thinking'),
        ("chat", {"model": "tiny", "think": "low"}, '"tiny" does not support thinking'),
        (
            "generate",
            {"model": "tiny", "suffix": "x"},
            "registry.ollama.ai/library/tiny:latest does not support insert",
        ),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_wrong_capability(live, http, tmp_path, route, extra, text, stream):
    live.add_model("vec", write_gguf(tmp_path / "v.gguf", embedding=True))
    refused(ask(http, route, extra, stream=stream), 400, text)


def test_queue_full(tmp_path, script, tiny_gguf):
    with LiveServer(tmp_path / "models", FakeLoader(script), max_queue=1) as server:
        server.add_model("tiny", tiny_gguf)
        server.add_model("other", write_gguf(tmp_path / "o.gguf", salt="o"))
        script.hold_load = server.event()
        with httpx.Client(base_url=server.url, timeout=120) as client:
            first = threading.Thread(target=ask, args=(client, "generate", {"model": "tiny"}))
            first.start()
            server.until(lambda: server.context.models.state().waiting == 1)
            for route in RUNS:
                refused(ask(client, route, model="other"), 503, BUSY)
            server.call(script.hold_load.set)
            first.join()


@pytest.mark.parametrize("route", RUNS)
def test_client_gone_while_queued(live, script, route):
    script.hold_load = live.event()
    patience = httpx.Timeout(120, read=0.2)  # the request is sent, however long that takes
    with httpx.Client(base_url=live.url, timeout=patience) as client, contextlib.suppress(httpx.ReadTimeout):
        ask(client, route, model="tiny")
    live.until(lambda: bool(live.context.metrics.requests))
    live.call(script.hold_load.set)
    assert list(live.context.metrics.requests) == [(f"/api/{route}", "POST", 499)]


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("temperature", "hot", "type float32"),
        ("top_k", "x", "type integer"),
        ("num_gpu", "x", "type integer"),
        ("use_mmap", "x", "type boolean"),
        ("stop", "x", "type array"),
        ("stop", [1], "an array of strings"),
    ],
)
@pytest.mark.parametrize("route", RUNS)
def test_bad_option_type(http, route, option, value, kind):
    answer = ask(http, route, model="tiny", options={option: value})
    refused(answer, 500, f'option "{option}" must be of {kind}')


@pytest.mark.parametrize("options", [{"mirostat": 3}, {"logit_bias": {"-1": 1}}])
def test_an_option_value_that_means_nothing(http, options):
    answer = ask(http, "generate", model="tiny", options=options)
    assert answer.status_code == 400
    assert f'option "{next(iter(options))}" must ' in answer.json()["error"]


@pytest.mark.parametrize(
    ("route", "extra", "text"),
    [
        ("generate", {"prompt": "x" * 99, "shift": False}, PROMPT_TOO_LONG),
        ("chat", {"messages": [{"role": "user", "content": "x" * 99}], "shift": False}, PROMPT_TOO_LONG),
        ("embed", {"input": "x" * 99, "truncate": False}, "the input length exceeds the context length"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_prompt_longer_than_the_context(http, route, extra, text, stream):
    refused(ask(http, route, extra, model="tiny", stream=stream, options={"num_ctx": 32}), 400, text)


@pytest.mark.parametrize("route", ["generate", "chat"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_run_that_fails(http, script, route, stream):
    script.pieces, script.error = [], EngineError("the engine failed")
    refused(ask(http, route, model="tiny", stream=stream), 500, "the engine failed")


@pytest.mark.parametrize("route", RUNS)
def test_a_load_that_fails(http, script, route):
    script.load_errors = [InvalidFileError("the file is damaged")]
    refused(ask(http, route, model="tiny"), 500, "the file is damaged")


@pytest.mark.parametrize("route", RUNS)
def test_a_load_that_hangs(tmp_path, script, tiny_gguf, route):
    with LiveServer(tmp_path / "models", FakeLoader(script), load_timeout_s=0.05) as server:
        server.add_model("tiny", tiny_gguf)
        script.hold_load = server.event()
        with httpx.Client(base_url=server.url, timeout=120) as client:
            answer = ask(client, route, model="tiny")
        server.call(script.hold_load.set)
    assert answer.status_code == 500
    assert answer.json()["error"].startswith("timed out waiting for the model to load")


# ---- JSON as Go reads it, on every route ----


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b'{"model":', "unexpected EOF"),
        (b'{"model" "x"}', "invalid character '\"' after object key"),
        (b"{'model'}", r"invalid character '\'' looking for beginning of object key string"),
    ],
)
@pytest.mark.parametrize("route", BODIES)
def test_broken_json(http, route, content, text):
    refused(ask(http, route, content=content), 400, text)


@pytest.mark.parametrize("route", BODIES)
def test_a_model_that_is_no_string(http, route):
    name = {"embeddings": "EmbeddingRequest"}.get(route, f"{route.title()}Request")
    text = f"json: cannot unmarshal number into Go struct field {name}.model of type string"
    refused(ask(http, route, model=1), 400, text)


@pytest.mark.parametrize(
    "content",
    [
        b'{"MODEL":"tiny","Prompt":"x","STREAM":false} trailing {',
        b'{"model":"tiny","prompt":"x","stream":false,"options":null,"system":null,"images":null}',
        b'{"model":"tiny","prompt":"\\ud800 x","stream":false}',
        b'{"model":"tiny","prompt":"x\xff","stream":false}',
        b'{"model":"tiny","model":"tiny","prompt":"x","stream":false,"no such field":[{}]}',
    ],
)
def test_lenient_json(http, content):
    answer = http.post("/api/generate", content=content, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (answer.status_code, answer.json()["response"]) == (200, "Hello")


def test_separators_inside_a_line_are_escaped(http, script):
    script.pieces = ["a\u2028b\u2029c\u0085d", "<&>"]
    answer = ask(http, "generate", model="tiny")
    assert not any(mark in answer.text for mark in "\u2028\u2029\u0085<&>")
    assert len(answer.text.splitlines()) == 3
    assert "\\u003c\\u0026\\u003e" in answer.text
