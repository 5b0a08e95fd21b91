"""Scripted models over HTTP: streams, split characters, stop strings and done reasons, to the character."""

import json

import httpx
import pytest

from server.models.engine import LocalLoader
from tests.generate.scripted import scripted_model
from tests.server.live import LiveServer

ANSWER = ["Hel", "lo", " <b>&", "\u2028", b"\xf0\x9f", b"\x98\x80", " bye", " bye"]
PIECES = ["Hel", "lo", " <b>&", "\u2028", "\U0001f600", " bye", " bye"]
TEXT = "".join(PIECES)
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripted")
    with LiveServer(folder / "models", LocalLoader(None)) as server:
        server.add_model("scripted:hello", scripted_model(folder / "hello.gguf", ANSWER))
        spm = scripted_model(folder / "spm.gguf", ["Gr", "\u00fc", "\u00dfe"], model="llama")
        server.add_model("scripted:spm", spm)
        server.add_model("scripted:endless", scripted_model(folder / "endless.gguf", ["tick ", "tock "], loop=True))
        with httpx.Client(base_url=server.url, timeout=60) as client:
            yield client


def records(client, path, **body):
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.content.endswith(b"\n")
    assert not {"\u2028", "\u2029", "\u0085"} & set(response.text), "clients split lines there"
    return [json.loads(line) for line in response.content.split(b"\n")[:-1]]


def test_chat_streams_whole_characters(client):
    *parts, last = records(client, "/api/chat", model="scripted:hello", messages=HI)
    assert [part["message"] for part in parts] == [{"role": "assistant", "content": piece} for piece in PIECES]
    assert not any(part["done"] for part in parts)
    assert last["message"] == {"role": "assistant", "content": ""}
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "stop", len(ANSWER) + 1)


def test_generate_streams_whole_characters(client):
    *parts, last = records(client, "/api/generate", model="scripted:hello", prompt="hi")
    assert [part["response"] for part in parts] == PIECES
    assert (last["response"], last["done_reason"]) == ("", "stop")
    assert len(last["context"]) == last["prompt_eval_count"] + len(ANSWER)


def test_sentencepiece_model_streams_its_text(client):
    *parts, _ = records(client, "/api/chat", model="scripted:spm", messages=HI)
    assert "".join(part["message"]["content"] for part in parts) == "Gr\u00fc\u00dfe"


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        ({}, TEXT, "stop"),
        ({"stop": ["lo <"]}, "Hel", "stop"),
        ({"stop": ["\U0001f600 b"]}, "Hello <b>&\u2028", "stop"),
        ({"stop": [" bye bye!"]}, TEXT, "stop"),
        ({"num_predict": 2}, "Hello", "length"),
        ({"num_predict": 5}, "Hello <b>&\u2028", "length"),
        ({"num_predict": 6}, "Hello <b>&\u2028\U0001f600", "length"),
        ({"temperature": 2.0, "top_k": 0, "top_p": 1.0, "seed": 1}, TEXT, "stop"),
        ({"repeat_penalty": 1.3, "presence_penalty": 1.0, "frequency_penalty": 1.0}, TEXT, "stop"),
    ],
)
def test_whole_answer_and_streamed_answer_agree(client, options, text, reason):
    body = {"model": "scripted:hello", "messages": HI, "options": options}
    whole = client.post("/api/chat", json={**body, "stream": False}).json()
    assert (whole["message"]["content"], whole["done_reason"]) == (text, reason)
    *parts, last = records(client, "/api/chat", **body)
    assert "".join(part["message"]["content"] for part in parts) == text
    assert last["done_reason"] == reason


def test_endless_answer_ends_where_the_context_does(client):
    body = {"model": "scripted:endless", "messages": HI, "stream": False, "shift": False, "options": {"num_ctx": 32}}
    answer = client.post("/api/chat", json=body).json()
    assert answer["done_reason"] == "length"
    assert answer["prompt_eval_count"] + answer["eval_count"] == 33
    assert answer["message"]["content"].startswith("tick tock tick")


def test_logprobs_give_the_bytes_of_every_token(client):
    body = {"model": "scripted:hello", "messages": HI, "stream": False, "logprobs": True, "top_logprobs": 1}
    answer = client.post("/api/chat", json=body).json()
    assert b"".join(bytes(entry["bytes"]) for entry in answer["logprobs"]) == TEXT.encode()
    assert all(entry["top_logprobs"][0]["bytes"] == entry["bytes"] for entry in answer["logprobs"])
