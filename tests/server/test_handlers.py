"""Every native route over real HTTP with a scripted engine: fields in order, statuses, texts, headers."""

import hashlib
import json
import select
import socket
import threading
import time
from datetime import datetime

import httpx
import pytest

from ollamacore import EngineError, InvalidFileError, OutOfMemoryError
from tests.server.fake import BOS, END, FakeLoader
from tests.server.live import LiveServer, write_gguf

JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
METRICS = [
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
]


def lines(response):
    assert response.text.endswith("\n")
    return [json.loads(line) for line in response.text.split("\n")[:-1]]


def error(response, status, text=None):
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    if text is not None:
        assert response.json()["error"] == text
    return response


# ---- liveness, version ----


def test_root_and_version(http):
    answer = http.get("/")
    assert (answer.text, answer.headers["content-type"]) == ("Ollama is running", "text/plain; charset=utf-8")
    assert http.head("/").status_code == http.head("/api/version").status_code == 200
    answer = http.get("/api/version")
    assert answer.headers["content-type"] == JSON
    major, minor, _ = map(int, answer.json()["version"].split("."))
    assert (major, minor) >= (0, 6)


# ---- generate ----


def test_generate_streams_records_in_field_order(http, script):
    answer = http.post("/api/generate", json={"model": "Tiny", "prompt": "hi"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, NDJSON)
    assert answer.headers["transfer-encoding"] == "chunked"
    first, second, last = lines(answer)
    assert list(first) == ["model", "created_at", "response", "done"]
    assert (first["model"], first["response"], second["response"]) == ("Tiny", "Hel", "lo")
    assert datetime.fromisoformat(first["created_at"]).utcoffset().total_seconds() == 0
    assert list(last) == ["model", "created_at", "response", "done", "done_reason", "context", *METRICS]
    assert (last["response"], last["done"], last["done_reason"]) == ("", True, "stop")
    assert last["context"] == [*script.prompts[0], *b"Hello", END]
    assert last["prompt_eval_count"] == len(script.prompts[0])
    assert (last["eval_count"], last["eval_duration"], last["prompt_eval_duration"]) == (
        3,
        7_000_000,
        5_000_000,
    )
    assert last["total_duration"] >= last["load_duration"] > 0


def test_generate_without_stream_is_one_object(http, script):
    answer = http.post("/api/generate", json={"model": "tiny", "prompt": "hi", "stream": False})
    assert answer.headers["content-type"] == JSON
    assert "content-length" in answer.headers
    body = answer.json()
    assert list(body) == ["model", "created_at", "response", "done", "done_reason", "context", *METRICS]
    assert body["response"] == "Hello"


def test_generate_renders_system_and_prompt_by_the_chat_template(http, script):
    http.post("/api/generate", json={"model": "tiny", "prompt": "hi", "system": "be brief"})
    assert script.text() == "<system>be brief\n<user>hi\n<assistant>"
    assert script.prompts[0][0] == BOS


def test_generate_raw_takes_the_prompt_as_it_is_and_gives_no_context(http, script):
    answer = http.post("/api/generate", json={"model": "tiny", "prompt": "hi", "raw": True})
    assert script.text() == "hi"
    assert "context" not in lines(answer)[-1]


def test_generate_continues_a_context(http, script):
    first = lines(http.post("/api/generate", json={"model": "tiny", "prompt": "a"}))[-1]["context"]
    http.post("/api/generate", json={"model": "tiny", "prompt": "b", "context": first})
    assert script.prompts[1] == [*first, *b"<user>b\n<assistant>"]


def test_generate_refuses_a_context_of_another_vocabulary(http):
    answer = http.post("/api/generate", json={"model": "tiny", "prompt": "b", "context": [10**9], "stream": False})
    error(answer, 400)


def test_generate_overlays_options(live, http, script, tmp_path):
    live.add_model(
        "tuned",
        write_gguf(tmp_path / "t.gguf"),
        parameters={"temperature": 0.1, "stop": ["A"], "num_ctx": 64},
    )
    http.post(
        "/api/generate",
        json={"model": "tuned", "prompt": "b", "options": {"num_predict": 7, "seed": None, "zzz": 1}},
    )
    options = script.options[-1]
    assert (options.temperature, options.stop, options.num_ctx, options.num_predict) == (0.1, ("A",), 64, 7)
    http.post("/api/generate", json={"model": "tuned", "prompt": "b", "options": {"stop": ["B"], "num_ctx": 99999}})
    assert (script.options[-1].stop, script.options[-1].num_ctx) == (("B",), 2048)
    http.post("/api/generate", json={"model": "tiny", "prompt": "b"})
    assert (script.options[-1].temperature, script.options[-1].num_ctx) == (0.8, 2048)


def test_generate_with_a_wrong_option_is_a_500(http):
    answer = http.post("/api/generate", json={"model": "tiny", "prompt": "b", "options": {"temperature": "hot"}})
    error(answer, 500, 'option "temperature" must be of type float32')


def test_generate_gives_logprobs(http):
    body = {"model": "tiny", "prompt": "b", "logprobs": True, "top_logprobs": 2}
    first, _, last = lines(http.post("/api/generate", json=body))
    entry = {"token": "Hel", "logprob": -0.25, "bytes": [72, 101, 108]}
    assert first["logprobs"] == [{**entry, "top_logprobs": [entry, entry]}]
    assert list(first)[-1] == "logprobs"
    assert "logprobs" not in last
    whole = http.post("/api/generate", json={**body, "stream": False, "top_logprobs": 0}).json()
    assert whole["logprobs"] == [entry, {"token": "lo", "logprob": -0.25, "bytes": [108, 111]}]
    assert "logprobs" not in http.post("/api/generate", json={**body, "logprobs": False, "stream": False}).json()


def test_text_that_comes_with_the_end_is_a_record_of_its_own(http, script):
    script.tail = "!"
    *_, text, last = lines(http.post("/api/generate", json={"model": "tiny", "prompt": "b"}))
    assert (text["response"], text["done"], last["response"], last["done"]) == ("!", False, "", True)
    *_, text, last = lines(chat(http, ("user", "x")))
    assert (text["message"]["content"], last["message"]["content"]) == ("!", "")


def test_generate_loads_and_unloads(http, script):
    answer = http.post("/api/generate", json={"model": "tiny", "keep_alive": "1h"})
    assert answer.headers["content-type"] == JSON
    assert list(answer.json()) == ["model", "created_at", "response", "done", "done_reason"]
    assert (answer.json()["response"], answer.json()["done"], answer.json()["done_reason"]) == (
        "",
        True,
        "load",
    )
    assert len(http.get("/api/ps").json()["models"]) == 1
    answer = http.post("/api/generate", json={"model": "tiny", "keep_alive": 0})
    assert answer.json()["done_reason"] == "unload"
    assert http.get("/api/ps").json() == {"models": []}
    assert len(script.unloads) == 1
    assert http.post("/api/generate", json={"model": "tiny", "keep_alive": 0}).json()["done_reason"] == "unload"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 404, "model '' not found"),
        ({"model": "a b"}, 400, "invalid model name"),
        ({"model": "absent"}, 404, "model 'absent' not found"),
        ({"model": "absent:x"}, 404, "model 'absent:x' not found"),
        ({"model": "tiny", "top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
        ({"model": "tiny", "top_logprobs": -1}, 400, "top_logprobs must be between 0 and 20"),
        (
            {"model": "tiny", "prompt": "a", "raw": True, "system": "x"},
            400,
            "raw mode does not support template, system, or context",
        ),
        (
            {"model": "tiny", "prompt": "a", "raw": True, "context": [1]},
            400,
            "raw mode does not support template, system, or context",
        ),
        (
            {"model": "tiny", "prompt": "a", "suffix": "b"},
            400,
            "registry.ollama.ai/library/tiny:latest does not support insert",
        ),
        ({"model": "tiny", "prompt": "a", "think": True}, 400, '"tiny" does not support thinking'),
        ({"model": "tiny", "prompt": "a", "think": "high"}, 400, '"tiny" does not support thinking'),
        ({"model": "x:cloud", "prompt": "a"}, 403, "ollama cloud is disabled: remote model is unavailable"),
        ({"model": "x:cloud:local"}, 400, 'use either :local or :cloud, not both: "x:cloud:local"'),
    ],
)
def test_generate_refuses(http, body, status, text):
    answer = error(http.post("/api/generate", json=body), status, text)
    assert answer.headers["content-type"] == JSON


@pytest.mark.parametrize(
    ("extra", "status", "words"),
    [
        ({"format": "json"}, 400, "format"),
        ({"format": {"type": "object"}}, 400, "format"),
        ({"format": "yaml"}, 500, "invalid format"),
        ({"images": ["aGk="]}, 400, "images"),
    ],
)
def test_what_cannot_be_done_yet_is_refused_clearly(http, extra, status, words):
    answer = error(http.post("/api/generate", json={"model": "tiny", "prompt": "a", **extra}), status)
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    "extra", [{"format": ""}, {"format": None}, {"think": False}, {"images": []}, {"template": ""}]
)
def test_generate_takes_empty_forms_as_absent(http, extra):
    assert http.post("/api/generate", json={"model": "tiny", "prompt": "a", **extra}).status_code == 200


def test_generate_debug_shows_the_rendered_prompt(http, script):
    answer = http.post("/api/generate", json={"model": "tiny", "prompt": "a", "_debug_render_only": True})
    body = answer.json()
    assert body["_debug_info"] == {"rendered_template": "<user>a\n<assistant>"}
    assert body["done"] is False
    assert script.prompts == []


def test_generate_without_a_chat_template_takes_the_prompt(live, http, script, tmp_path):
    live.add_model("base", write_gguf(tmp_path / "b.gguf", template=None))
    http.post("/api/generate", json={"model": "base", "prompt": "once"})
    assert script.text() == "once"


def test_an_embedding_model_does_not_generate(live, http, tmp_path):
    live.add_model("vec", write_gguf(tmp_path / "v.gguf", embedding=True))
    error(
        http.post("/api/generate", json={"model": "vec", "prompt": "x"}),
        400,
        '"vec" does not support generate',
    )
    body = {"model": "vec", "messages": [{"role": "user", "content": "x"}]}
    error(http.post("/api/chat", json=body), 400, '"vec" does not support chat')


# ---- errors while running ----


def test_an_error_before_the_first_record_has_its_status(http, script):
    script.pieces, script.error = [], EngineError("it broke")
    answer = error(http.post("/api/generate", json={"model": "tiny", "prompt": "a"}), 500, "it broke")
    assert answer.headers["content-type"] == "application/json"
    error(http.post("/api/generate", json={"model": "tiny", "prompt": "a", "stream": False}), 500, "it broke")


def test_an_error_after_the_first_record_is_the_last_line(http, script):
    script.error = EngineError("it broke")
    answer = http.post("/api/generate", json={"model": "tiny", "prompt": "a"})
    assert answer.status_code == 200
    assert lines(answer)[-1] == {"error": "it broke"}
    error(http.post("/api/generate", json={"model": "tiny", "prompt": "a", "stream": False}), 500, "it broke")


def test_a_run_that_the_server_stopped_ends_in_an_error(http, script):
    script.done_reason = "cancelled"
    assert list(lines(http.post("/api/generate", json={"model": "tiny", "prompt": "a"}))[-1]) == ["error"]


def test_a_failed_load_is_an_error_and_the_next_request_tries_again(http, script):
    script.load_errors = [InvalidFileError("bad tensor")]
    error(http.post("/api/generate", json={"model": "tiny", "prompt": "a"}), 500, "bad tensor")
    assert http.post("/api/generate", json={"model": "tiny", "prompt": "a"}).status_code == 200
    assert len(script.loads) == 2


def test_a_defect_is_logged_and_says_no_more(http, script, caplog):
    script.load_errors = [ZeroDivisionError("secret")]
    answer = error(http.post("/api/generate", json={"model": "tiny", "prompt": "a"}), 500, "internal server error")
    assert "secret" not in answer.text
    assert "secret" in caplog.text


# ---- chat ----


def chat(http, *messages, **extra):
    turns = [{"role": role, "content": content} for role, content in messages]
    return http.post("/api/chat", json={"model": "tiny", "messages": turns, **extra})


def test_chat_streams_records_in_field_order(http, script):
    answer = chat(http, ("user", "hi"))
    assert answer.headers["content-type"] == NDJSON
    first, _, last = lines(answer)
    assert list(first) == ["model", "created_at", "message", "done"]
    assert first["message"] == {"role": "assistant", "content": "Hel"}
    assert list(last) == ["model", "created_at", "message", "done", "done_reason", *METRICS]
    assert last["message"] == {"role": "assistant", "content": ""}
    assert script.text() == "<user>hi\n<assistant>"


def test_chat_without_stream_is_one_object(http):
    body = chat(http, ("user", "hi"), stream=False).json()
    assert body["message"] == {"role": "assistant", "content": "Hello"}
    assert list(body) == ["model", "created_at", "message", "done", "done_reason", *METRICS]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "model is required"),
        ({"model": "absent"}, 404, "model 'absent' not found"),
        (
            {
                "model": "tiny",
                "messages": [{"role": "user", "content": "x"}],
                "tools": [{"function": {"name": "f"}}],
            },
            400,
            "registry.ollama.ai/library/tiny:latest does not support tools",
        ),
        (
            {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "think": True},
            400,
            '"tiny" does not support thinking',
        ),
    ],
)
def test_chat_refuses(http, body, status, text):
    error(http.post("/api/chat", json=body), status, text)


def test_chat_without_messages_loads_and_unloads(http):
    answer = http.post("/api/chat", json={"model": "tiny"}).json()
    assert list(answer) == ["model", "created_at", "message", "done", "done_reason"]
    assert answer["message"] == {"role": "assistant", "content": ""}
    assert answer["done_reason"] == "load"
    assert http.post("/api/chat", json={"model": "tiny", "keep_alive": 0}).json()["done_reason"] == "unload"
    assert http.get("/api/ps").json() == {"models": []}


def test_chat_uses_the_models_own_texts(live, http, script, tmp_path):
    live.add_model(
        "taught",
        write_gguf(tmp_path / "t.gguf"),
        system="be kind",
        messages=[{"role": "user", "content": "q"}],
    )
    chat(http, ("user", "x"), model="taught")
    assert script.text() == "<system>be kind\n<user>q\n<user>x\n<assistant>"
    chat(http, ("system", "be rude"), ("user", "x"), model="taught")
    assert script.text() == "<user>q\n<system>be rude\n<user>x\n<assistant>"
    http.post("/api/generate", json={"model": "taught", "prompt": "x"})
    assert script.text() == "<system>be kind\n<user>q\n<user>x\n<assistant>"
    http.post("/api/generate", json={"model": "taught", "prompt": "x", "context": [65]})
    assert script.text() == "A<system>be kind\n<user>x\n<assistant>"


def test_chat_passes_tools_and_thinking_to_a_template_that_knows_them(live, http, script, tmp_path):
    template = "{% if tools %}tools{% endif %}<think></think>"
    live.add_model("able", write_gguf(tmp_path / "a.gguf", template=template))
    tool = {"type": "function", "function": {"name": "f", "description": "d"}}
    chat(http, ("user", "x"), model="able", tools=[tool])
    assert script.rendered[-1][1] == {"tools": [tool], "think": True}
    chat(http, ("user", "x"), model="able", think=False)
    assert script.rendered[-1][1] == {"think": False}
    chat(http, ("user", "x"), model="able", think="high")
    assert script.rendered[-1][1] == {"think": "high"}


def truncated(answer):
    """The loss that a final record tells of: messages, prompt tokens, shifts."""
    *_, last = lines(answer)
    return tuple(last["truncated"].values()) if "truncated" in last else None


@pytest.mark.parametrize("context", [60, 80, 100, 130, 160, 190, 220])
def test_chat_drops_the_oldest_turns_that_do_not_fit(http, script, context):
    turns = [(("user", f"q{n}" + "x" * 10), ("assistant", f"a{n}" + "y" * 10)) for n in range(6)]
    answer = chat(http, ("system", "s"), *sum(turns, ()), ("user", "last"), options={"num_ctx": context})
    shown = ["".join(f"<{role}>{content}\n" for role, content in turn) for turn in turns]
    candidates = [f"<system>s\n{''.join(shown[n:])}<user>last\n<assistant>" for n in range(7)]
    fitting = [text for text in candidates if len(text) + 1 < context]  # with the BOS
    assert script.text() == fitting[0]
    lost = candidates.index(fitting[0])
    tokens = len(candidates[0]) - len(fitting[0])
    assert truncated(answer) == ((2 * lost, tokens, 0) if lost else None)


def test_chat_keeps_every_system_message_and_the_last_one(http, script):
    messages = [
        ("user", "x" * 50),
        ("system", "one"),
        ("assistant", "y" * 50),
        ("system", "two"),
        ("user", "last"),
    ]
    answer = chat(http, *messages, options={"num_ctx": 60})
    assert script.text() == "<system>one\n<system>two\n<user>last\n<assistant>"
    assert list(lines(answer)[-1]["truncated"]) == ["messages_dropped", "prompt_tokens_dropped", "context_shifts"]
    assert truncated(answer)[0] == 2


def test_a_prompt_that_cannot_be_shortened_by_turns_is_cropped(http, script):
    answer = chat(http, ("user", "x" * 500), options={"num_ctx": 100, "num_keep": 4})
    assert len(script.prompts[-1]) == 4 + 48
    assert script.text().endswith("x\n<assistant>")
    whole = len("<user>" + "x" * 500 + "\n<assistant>") + 1
    assert truncated(answer) == (0, whole - 52, 0)
    body = {"model": "tiny", "raw": True, "prompt": "x" * 500, "options": {"num_ctx": 100}, "stream": False}
    loss = http.post("/api/generate", json=body).json()["truncated"]
    assert loss == {"messages_dropped": 0, "prompt_tokens_dropped": 501 - 52, "context_shifts": 0}


def test_strict_context_refuses_what_would_be_dropped_and_never_shifts(tmp_path, script, tiny_gguf, http):
    turns = [("user", "x" * 50), ("assistant", "y" * 50), ("user", "last")]
    strict = {"num_ctx": 60, "strict_context": True}
    assert error(chat(http, *turns, options=strict), 400).json()["error"].startswith("the prompt is longer than")
    assert truncated(chat(http, *turns, options=strict | {"strict_context": False})) is not None
    assert chat(http, ("user", "x"), options=strict).status_code == 200
    assert not script.options[-1].shift
    answer = chat(http, ("user", "x"), options={"strict_context": 1})
    error(answer, 500, 'option "strict_context" must be of type boolean')
    with LiveServer(tmp_path / "strict", FakeLoader(script), strict_context=True) as live:
        live.add_model("tiny", tiny_gguf)
        with httpx.Client(base_url=live.url) as client:
            error(chat(client, *turns, options={"num_ctx": 60}), 400)
            assert chat(client, *turns, options=strict | {"strict_context": False}).status_code == 200


@pytest.mark.parametrize("extra", [{"truncate": False}, {"shift": False}])
@pytest.mark.parametrize("stream", [True, False])
def test_a_long_prompt_that_must_not_be_cut_is_refused(http, script, extra, stream):
    answer = chat(http, ("user", "x" * 500), options={"num_ctx": 100}, stream=stream, **extra)
    assert error(answer, 400).json()["error"].startswith("the prompt is longer than the context length currently")
    body = {"model": "tiny", "prompt": "x" * 500, "options": {"num_ctx": 100}, "stream": stream, **extra}
    error(http.post("/api/generate", json=body), 400)
    assert script.prompts == []


def test_chat_without_a_chat_template_joins_the_texts(live, http, script, tmp_path):
    live.add_model("base", write_gguf(tmp_path / "b.gguf", template=None))
    chat(http, ("system", "s"), ("user", "Once "), ("assistant", "upon"), ("user", " a"), model="base")
    assert script.text() == "Once upon a"


# ---- models in memory ----


def test_ps_lists_loaded_models(live, http, tmp_path):
    live.add_model("other", write_gguf(tmp_path / "o.gguf", salt="o"))
    http.post("/api/generate", json={"model": "tiny", "keep_alive": "10m", "options": {"num_ctx": 512}})
    http.post("/api/generate", json={"model": "other", "keep_alive": -1})
    other, tiny = http.get("/api/ps").json()["models"]
    assert list(tiny) == [
        "name",
        "model",
        "size",
        "digest",
        "details",
        "expires_at",
        "size_vram",
        "context_length",
    ]
    assert (other["name"], tiny["name"], tiny["model"]) == ("other:latest", "tiny:latest", "tiny:latest")
    assert (tiny["size"], tiny["size_vram"], tiny["context_length"]) == (1000, 0, 512)
    assert len(tiny["digest"]) == 64
    assert datetime.fromisoformat(other["expires_at"]).year >= 2318
    left = datetime.fromisoformat(tiny["expires_at"]).timestamp() - time.time()
    assert 590 < left <= 600
    assert tiny["details"]["family"] == "llama"


def test_keep_alive_zero_unloads_after_the_request(live, http, script):
    http.post("/api/generate", json={"model": "tiny", "prompt": "x", "keep_alive": 0})
    live.until(lambda: script.unloads)
    assert http.get("/api/ps").json() == {"models": []}


def test_a_request_without_keep_alive_leaves_it_as_it_is(http):
    http.post("/api/generate", json={"model": "tiny", "prompt": "x", "keep_alive": -1})
    http.post("/api/generate", json={"model": "tiny", "prompt": "x"})
    assert http.get("/api/ps").json()["models"][0]["expires_at"].startswith("231")


def test_other_requests_are_answered_while_one_runs(live, http, script):
    script.hold_prompt = live.event()
    with httpx.Client(base_url=live.url) as second:
        thread = threading.Thread(target=lambda: http.post("/api/generate", json={"model": "tiny", "prompt": "x"}))
        thread.start()
        live.run(script.started.wait())
        assert second.get("/api/version").status_code == 200
        assert second.get("/api/tags").json()["models"][0]["name"] == "tiny:latest"
        assert second.get("/api/ps").json()["models"][0]["name"] == "tiny:latest"
        live.call(script.hold_prompt.set)
        thread.join()


def test_a_full_queue_is_a_503(tmp_path, script, tiny_gguf):
    with LiveServer(tmp_path / "m", FakeLoader(script), max_queue=1, num_parallel=1) as live:
        live.add_model("tiny", tiny_gguf)
        script.hold_prompt = live.event()
        answers = []

        def ask():
            body = {"model": "tiny", "prompt": "x"}
            answers.append(httpx.post(f"{live.url}/api/generate", json=body, timeout=120).status_code)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        threads[0].start()
        live.run(script.started.wait())
        threads[1].start()
        live.until(lambda: live.context.models.state().waiting == 1)
        answer = httpx.post(f"{live.url}/api/generate", json={"model": "tiny", "prompt": "x"})
        error(answer, 503, "server busy, please try again.  maximum pending requests exceeded")
        live.call(script.hold_prompt.set)
        for thread in threads:
            thread.join()
        assert answers == [200, 200]


@pytest.mark.parametrize("route", ["generate", "chat"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("phase", ["load", "queue", "prompt", "decode"])
def test_a_client_that_leaves_stops_its_work(live, http, script, phase, route, stream):
    """In every phase: the generation is cancelled, the lease ends, and the model can be unloaded."""
    gate = live.event()
    if phase == "load":
        script.hold_load = gate
    elif phase == "decode":
        script.pieces, script.pause_s = ["x"] * 10_000, 0.01
    else:
        script.hold_prompt = gate
    if phase == "queue":
        live.context.models._parallel = 1
    body = {"model": "tiny", "stream": stream, "prompt": "x", "messages": [{"role": "user", "content": "x"}]}
    models = live.context.models
    with httpx.Client(base_url=live.url) as first, httpx.Client(base_url=live.url) as second:
        threads = []
        waiting = {"load": 1, "queue": 1, "prompt": 0, "decode": 0}[phase]
        clients = [first, second] if phase == "queue" else [first]
        for client in clients:
            threads.append(threading.Thread(target=ignore_errors, args=(client, f"/api/{route}", body)))
            threads[-1].start()
            if phase != "load":
                live.run(script.started.wait())
        live.until(lambda: models.state().waiting == waiting and (phase == "load") == (script.running == 0))
        for client in reversed(clients):
            abort(client)
        live.until(lambda: script.running == 0 and models.state().users == 0 and models.state().waiting == 0)
        assert script.cancelled == (0 if phase == "load" else 1)
        live.call(gate.set)
        for thread in threads:
            thread.join()
    script.hold_load = script.hold_prompt = None
    script.pieces, script.pause_s = ["x"], 0
    assert http.post("/api/generate", json={"model": "tiny", "prompt": "x"}).status_code == 200
    http.post("/api/generate", json={"model": "tiny", "keep_alive": 0})
    assert http.get("/api/ps").json() == {"models": []}


def ignore_errors(client, path, body):
    try:
        client.post(path, json=body, timeout=120)
    except httpx.HTTPError:
        return


def abort(client):
    """Close the sockets of a client while it waits for an answer."""
    for connection in client._transport._pool.connections:
        stream = connection._connection._network_stream
        stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


# ---- tags, show ----


def test_tags_lists_models_newest_first(live, http, tmp_path, tiny_gguf):
    live.add_model("zeta:v1", write_gguf(tmp_path / "z.gguf", salt="z"))
    newest, tiny = http.get("/api/tags").json()["models"]
    assert list(tiny) == ["name", "model", "modified_at", "size", "digest", "details", "capabilities"]
    assert (newest["name"], newest["model"]) == ("zeta:v1", "zeta:v1")
    assert tiny["details"] == {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "19K",
        "quantization_level": "F32",
        "context_length": 2048,
        "embedding_length": 64,
    }
    assert tiny["capabilities"] == ["completion"]
    assert len(tiny["digest"]) == 64
    assert tiny["size"] > tiny_gguf.stat().st_size
    assert datetime.fromisoformat(tiny["modified_at"]).tzinfo is not None
    assert http.head("/api/tags").status_code == 200


def test_tags_of_an_empty_store(tmp_path, script):
    with LiveServer(tmp_path, FakeLoader(script)) as live:
        assert httpx.get(f"{live.url}/api/tags").text == '{"models":[]}'


def test_show_describes_a_model(live, http, tmp_path):
    live.add_model(
        "full",
        write_gguf(tmp_path / "f.gguf"),
        system="be <kind>",
        license=["A", "B"],
        parameters={"stop": ["<|im_end|>"], "temperature": 0.5},
        messages=[{"role": "user", "content": "q"}],
    )
    answer = http.post("/api/show", json={"model": "FULL"})
    assert "\\u003ckind\\u003e" in answer.text
    body = answer.json()
    assert list(body) == [
        "license",
        "modelfile",
        "parameters",
        "template",
        "system",
        "details",
        "messages",
        "model_info",
        "tensors",
        "capabilities",
        "modified_at",
    ]
    assert body["license"] == "A\nB"
    assert body["parameters"].split("\n") == [
        'stop                           "<|im_end|>"',
        "temperature                    0.5",
    ]
    assert body["template"].startswith("{% for m in messages %}")
    assert body["model_info"]["general.architecture"] == "llama"
    assert body["model_info"]["general.parameter_count"] == 300 * 64
    assert "tokenizer.chat_template" not in body["model_info"]
    assert body["tensors"] == [{"name": "token_embd.weight", "type": "F32", "shape": [64, 300]}]
    assert body["capabilities"] == ["completion"]
    assert "# FROM full:latest" in body["modelfile"]
    other = http.post("/api/show", json={"name": "full", "system": "new", "options": {"temperature": 1}}).json()
    assert other["system"] == "new"
    assert other["parameters"].endswith(" 1")


def test_show_for_copilot_names_the_model_as_asked(http):
    answer = http.post("/api/show", json={"model": "tiny"}, headers={"User-Agent": "GitHubCopilotChat/1.0"})
    assert answer.json()["model_info"]["general.basename"] == "tiny"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "model is required"),
        ({"model": "foo"}, 404, "model 'foo:latest' not found"),
        ({"model": "../x"}, 400, "invalid model name"),
    ],
)
def test_show_refuses(http, body, status, text):
    error(http.post("/api/show", json=body), status, text)


# ---- blobs, create, copy, delete ----


def upload(http, data, **extra):
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return digest, http.post(f"/api/blobs/{digest}", content=data, **extra)


def test_blobs_are_uploaded_once(http):
    data = b"x" * (5 << 20)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert http.head(f"/api/blobs/{digest}").status_code == 404
    assert http.post(f"/api/blobs/{digest}", content=iter([data[:7], data[7:]])).status_code == 201
    assert http.head(f"/api/blobs/{digest}").status_code == 200
    assert http.post(f"/api/blobs/{digest}", content=data).status_code == 200
    assert http.head(f"/api/blobs/{digest.replace(':', '-')}").status_code == 200


def test_a_blob_that_is_there_is_taken_in_and_dropped(live, http):
    """A client that is still sending when the answer comes may lose it with the connection."""
    digest, _ = upload(http, b"z" * 1000)
    host, port = live.url.removeprefix("http://").split(":")
    head = f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        connection.sendall(f"{head}\r\n".encode() + b"z" * 999)
        assert select.select([connection], [], [], 0.3)[0] == []
        connection.sendall(b"z")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_blob_with_another_digest_is_refused(http):
    wrong = "sha256:" + "0" * 64
    got = hashlib.sha256(b"data").hexdigest()
    text = f'digest mismatch, expected "{wrong}", got "sha256:{got}"'
    error(http.post(f"/api/blobs/{wrong}", content=b"data"), 400, text)
    assert http.head(f"/api/blobs/{wrong}").status_code == 404
    assert http.head(f"/api/blobs/sha256:{got}").status_code == 404


@pytest.mark.parametrize("digest", ["sha256:xyz", "sha1:" + "0" * 64, "0" * 64, "sha256:" + "0" * 65])
def test_a_bad_digest_is_refused(http, digest):
    error(http.post(f"/api/blobs/{digest}", content=b"x"), 400, "invalid digest format")
    assert http.head(f"/api/blobs/{digest}").status_code == 400


def test_an_interrupted_upload_leaves_nothing(live, http, tmp_path):
    data = b"y" * 100_000
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"

    def broken():
        yield data[:1000]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), httpx.Client() as client:
        client.post(f"{live.url}/api/blobs/{digest}", content=broken())
    temporary = tmp_path / "models" / "ollamacore" / "tmp"
    live.until(lambda: not list(temporary.iterdir()))
    assert http.head(f"/api/blobs/{digest}").status_code == 404


def test_create_from_an_upload_streams_progress(http, tmp_path):
    digest, _ = upload(http, write_gguf(tmp_path / "n.gguf", salt="n").read_bytes())
    answer = http.post("/api/create", json={"model": "new", "files": {"n.gguf": digest}, "system": "s"})
    assert answer.headers["content-type"] == NDJSON
    statuses = [record["status"] for record in lines(answer)]
    assert statuses[-2:] == ["writing manifest", "success"]
    assert http.post("/api/show", json={"model": "new"}).json()["system"] == "s"


def test_create_without_stream_gives_the_last_record(http):
    answer = http.post(
        "/api/create", json={"name": "child", "from": "tiny", "stream": False, "parameters": {"seed": 3}}
    )
    assert (answer.text, answer.headers["content-type"]) == ('{"status":"success"}', "application/json")
    assert http.post("/api/show", json={"model": "child"}).json()["parameters"].split() == ["seed", "3"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"from": "tiny"}, "invalid model name"),
        ({"model": "a b", "from": "tiny"}, "invalid model name"),
        ({"model": "new"}, "neither 'from' or 'files' was specified"),
        ({"model": "new", "files": {"../x": "sha256:" + "0" * 64}}, "file path must be relative"),
        ({"model": "new", "files": {"x": "sha256:0"}}, "invalid digest format"),
        ({"model": "new", "from": "tiny", "remote_host": "x"}, "bad remote"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_create_refuses(http, body, text, stream):
    error(http.post("/api/create", json={**body, "stream": stream}), 400, text)


def test_copy_and_delete(http):
    answer = http.post("/api/copy", json={"source": "tiny", "destination": "twin"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert [model["name"] for model in http.get("/api/tags").json()["models"]] == [
        "twin:latest",
        "tiny:latest",
    ]
    answer = http.request("DELETE", "/api/delete", json={"model": "tiny"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert http.post("/api/generate", json={"model": "twin", "prompt": "x"}).status_code == 200
    assert http.request("DELETE", "/api/delete", json={"name": "twin"}).status_code == 200
    assert http.get("/api/tags").json() == {"models": []}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "/api/copy", {"source": "absent", "destination": "b"}, 404, 'model "absent" not found'),
        ("POST", "/api/copy", {"source": "a b", "destination": "b"}, 400, 'source "a b" is invalid'),
        (
            "POST",
            "/api/copy",
            {"source": "tiny", "destination": "../b"},
            400,
            'destination "../b" is invalid',
        ),
        ("POST", "/api/copy", {"source": "tiny"}, 400, 'destination "" is invalid'),
        ("DELETE", "/api/delete", {}, 400, "model is required"),
        ("DELETE", "/api/delete", {"model": "a b"}, 400, 'name "a b" is invalid'),
        ("DELETE", "/api/delete", {"model": "absent"}, 404, "model 'absent' not found"),
    ],
)
def test_copy_and_delete_refuse(http, method, path, body, status, text):
    error(http.request(method, path, json=body), status, text)


@pytest.mark.parametrize("path", ["generate", "chat", "show", "create", "copy"])
def test_an_empty_body_is_refused(http, path):
    error(http.post(f"/api/{path}"), 400, "missing request body")


def test_out_of_memory_unloads_idle_models_and_tries_again(live, http, script, tmp_path):
    live.add_model("other", write_gguf(tmp_path / "o.gguf", salt="o"))
    http.post("/api/generate", json={"model": "tiny", "prompt": "x"})
    script.load_errors = [OutOfMemoryError("no room")]
    assert http.post("/api/generate", json={"model": "other", "prompt": "x"}).status_code == 200
    assert len(script.unloads) == 1
    script.load_errors = [OutOfMemoryError("no room"), OutOfMemoryError("still no room")]
    http.post("/api/generate", json={"model": "other", "keep_alive": 0})
    error(http.post("/api/generate", json={"model": "tiny", "prompt": "x"}), 500, "no room")


# ---- embed, embeddings ----


def test_embed_of_one_text_has_fields_in_order(http, script):
    answer = http.post("/api/embed", json={"model": "Tiny", "input": "abc"})
    assert answer.headers["content-type"] == JSON
    assert list(answer.json()) == [
        "model",
        "embeddings",
        "total_duration",
        "load_duration",
        "prompt_eval_count",
    ]
    assert answer.json()["model"] == "Tiny"
    assert '"embeddings":[[0.6,0.8]]' in answer.text  # single precision, shortest form
    assert answer.json()["prompt_eval_count"] == 5
    assert script.embedded == [(["abc"], 2048, True, None, True)]


def test_embed_of_a_list_keeps_empty_texts(http, script):
    answer = http.post("/api/embed", json={"model": "tiny", "input": ["ab", ""], "dimensions": 7})
    assert len(answer.json()["embeddings"]) == 2
    assert answer.json()["prompt_eval_count"] == 6
    assert script.embedded == [(["ab", ""], 2048, True, 7, True)]


@pytest.mark.parametrize("body", [{}, {"input": ""}, {"input": []}, {"input": None}])
def test_embed_without_text_loads_the_model(http, script, body):
    answer = http.post("/api/embed", json={"model": "tiny", **body})
    assert answer.json() == {"model": "tiny", "embeddings": []}
    assert len(script.loads) == 1
    assert script.embedded == []


@pytest.mark.parametrize("value", [1, True, {"a": "b"}, ["a", 1], ["a", None], [["a"]]])
def test_embed_refuses_other_input(http, value):
    error(http.post("/api/embed", json={"model": "tiny", "input": value}), 400, "invalid input type")


def test_embed_of_a_long_text_without_truncate(http, script):
    body = {"model": "tiny", "input": ["a", "b" * 20], "truncate": False, "options": {"num_ctx": 16}}
    error(http.post("/api/embed", json=body), 400, "the input length exceeds the context length")
    assert script.embedded[0][1:3] == (16, False)
    assert http.post("/api/embed", json={**body, "truncate": True}).status_code == 200


def test_embed_of_no_model(http):
    error(http.post("/api/embed", json={"input": "a"}), 404, "model '' not found")
    text = 'model "nope" not found, try pulling it first'
    error(http.post("/api/embed", json={"model": "nope", "input": "a"}), 404, text)
    error(http.post("/api/embeddings", json={"model": "nope", "prompt": "a"}), 404, text)
    error(http.post("/api/embeddings", json={"prompt": "a"}), 400, "model is required")
    error(http.post("/api/embed", json={"model": "a b", "input": "a"}), 400, "invalid model name")


def test_embed_refuses_an_option_of_a_wrong_type(http):
    answer = http.post("/api/embed", json={"model": "tiny", "input": "a", "options": {"num_ctx": "x"}})
    assert answer.status_code == 500


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_embed_of_a_broken_model(http, script, scale):
    script.vector_scale = scale
    text = "embedding contains NaN or Inf values"
    error(http.post("/api/embed", json={"model": "tiny", "input": "a"}), 400, text)
    error(http.post("/api/embeddings", json={"model": "tiny", "prompt": "a"}), 500, text)


def test_embed_with_keep_alive_0_unloads(http, script, live):
    http.post("/api/embed", json={"model": "tiny", "input": "a", "keep_alive": 0})
    live.until(lambda: script.unloads != [])


def test_embeddings_of_a_prompt(http, script):
    answer = http.post("/api/embeddings", json={"model": "tiny", "prompt": "ab"})
    assert list(answer.json()) == ["embedding"]
    assert answer.text == '{"embedding":[0.6000000238418579,0.800000011920929]}'  # double precision
    assert script.embedded == [(["ab"], 2048, True, None, True)]


def test_embeddings_without_a_prompt_loads_the_model(http, script):
    assert http.post("/api/embeddings", json={"model": "tiny"}).json() == {"embedding": []}
    assert len(script.loads) == 1
