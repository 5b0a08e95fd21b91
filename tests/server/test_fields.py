"""Request fields on the wire, and the table in docs/api.md that names a test for each of them."""

import re
from dataclasses import fields
from itertools import chain
from pathlib import Path

import gguf
import numpy as np
import pytest

from server.routes import ROUTES
from server.schema import Message, RunRequest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "api.md").read_text()
QUESTION = [{"role": "user", "content": "q"}]


def section(title):
    """The rows of the table below a heading, as lists of cells."""
    text = DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def named(cell):
    """Paths and functions of the tests that a cell names; one that begins with :: is in the file before it."""
    found, file = [], ""
    for name in re.findall(r"`([^`]+)`", cell):
        path, _, test = name.partition("::")
        file = path or file
        found.append((file, test))
    return found


FIELDS, BEHAVIOURS = section("Every field and its test"), section("What clients rely on, and its test")


def test_every_field_has_a_row():
    taken = {
        route.takes.__name__: route.takes
        for methods in ROUTES.values()
        for route in methods.values()
        if route.takes is not None
    }
    taken["Message"] = Message
    wanted = {
        (name, key) for name, request in taken.items() for item in fields(request) for key in item.metadata["keys"]
    }
    common = {key for item in fields(RunRequest) for key in item.metadata["keys"]}
    assert {key for name, key in wanted if name == "ChatRequest"} >= common
    listed = [
        (name, key)
        for names, keys, _ in FIELDS
        for name in re.findall(r"\w+", names)
        for key in re.findall(r"\w+", keys)
    ]
    assert set(listed) == wanted
    assert len(listed) == len(set(listed))


def test_every_behaviour_has_a_row():
    assert [int(row[0]) for row in BEHAVIOURS] == list(range(1, 31))


@pytest.mark.parametrize(
    ("file", "test"), sorted(set(chain.from_iterable(named(row[-1]) for row in FIELDS + BEHAVIOURS)))
)
def test_every_test_that_is_named_exists(file, test):
    text = (ROOT / "tests" / file).read_text()
    assert not test or re.search(rf"^(async )?def {test}\(", text, re.MULTILINE)


@pytest.mark.parametrize("row", FIELDS + BEHAVIOURS, ids=lambda row: f"{row[0]}:{row[1][:20]}")
def test_every_row_names_a_test(row):
    assert named(row[-1]) or row[-1].startswith("not yet:")


# ---- fields that no other test sends


def test_verbose_shows_long_arrays(live, http, tmp_path):
    path = tmp_path / "long.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list(["t"] * 1025)
    writer.add_tensor("token_embd.weight", np.ones((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    live.add_model("long", path)
    info = [
        http.post("/api/show", json={"model": "long", "verbose": verbose}).json()["model_info"]
        for verbose in (False, True)
    ]
    assert info[0]["tokenizer.ggml.tokens"] is None
    assert info[1]["tokenizer.ggml.tokens"] == ["t"] * 1025


def test_create_keeps_the_texts_of_a_model(http):
    texts = {"template": "T", "system": "S", "license": ["L1", "L2"], "renderer": "r", "parser": "p"}
    body = {"model": "new", "from": "tiny", "requires": "0.1.0", "messages": QUESTION, "stream": False}
    assert http.post("/api/create", json={**body, **texts}).json() == {"status": "success"}
    shown = http.post("/api/show", json={"model": "new"}).json()
    assert (shown["system"], shown["license"], shown["messages"]) == ("S", "L1\nL2", QUESTION)
    for line in ("TEMPLATE T", "SYSTEM S", "RENDERER r", "PARSER p", "LICENSE L1", "MESSAGE user q"):
        assert line in shown["modelfile"].split("\n")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"adapters": {"a": f"sha256:{'0' * 64}"}}, "adapters are not supported"),
        ({"quantize": "q4_K_M"}, "quantization is not supported"),
        ({"quantization": "q4_K_M"}, "quantization is not supported"),
        ({"draft_quantize": "q8_0"}, "--draft-quantize requires a DRAFT model"),
        ({"draft_files": {"d": f"sha256:{'0' * 64}"}}, "draft models are not supported"),
        ({"draft_files": {"/d": f"sha256:{'0' * 64}"}}, "file path must be relative"),
    ],
)
def test_create_refuses_what_it_cannot_do(http, extra, words):
    answer = http.post("/api/create", json={"model": "new", "from": "tiny", "stream": False, **extra})
    assert answer.status_code in (400, 500)
    assert words in answer.json()["error"]


def test_create_says_of_a_model_what_it_is_told(http):
    info = {"model_family": "mine", "base_name": "b", "quantization_level": "Q9", "parameter_size": "3B"}
    info |= {"context_length": 77, "embedding_length": 5, "capabilities": ["vision", 3]}
    body = {"model": "told", "from": "tiny", "info": info, "stream": False}
    assert http.post("/api/create", json=body).json() == {"status": "success"}
    shown = http.post("/api/show", json={"model": "told"}).json()
    details = shown["details"]
    assert (details["family"], details["families"]) == ("mine", ["mine"])
    assert (details["quantization_level"], details["parameter_size"]) == ("Q9", "3B")
    assert (details["context_length"], details["embedding_length"]) == (77, 5)
    assert shown["capabilities"] == ["completion", "vision"]


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"base_name": 3}, 'info field "base_name" must be a string'),
        ({"context_length": "3"}, 'info field "context_length" must be a number'),
        ({"embedding_length": -1}, 'info field "embedding_length" must be a non-negative integer'),
        ({"context_length": 1.5}, 'info field "context_length" must be a non-negative integer'),
    ],
)
def test_create_refuses_what_info_may_not_be(http, info, words):
    answer = http.post("/api/create", json={"model": "new", "from": "tiny", "info": info})
    assert (answer.status_code, answer.json()) == (400, {"error": words})


@pytest.mark.parametrize(
    ("message", "extra", "words"),
    [
        ({"images": ["aGk="]}, {}, "images"),
        ({}, {"think": True}, "does not support thinking"),
        ({}, {"top_logprobs": 21}, "top_logprobs must be between 0 and 20"),
    ],
)
def test_chat_refuses_what_the_model_cannot_do(http, message, extra, words):
    body = {"model": "tiny", "messages": [{**QUESTION[0], **message}], **extra}
    answer = http.post("/api/chat", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_messages_reach_the_template_with_all_their_parts(http, script):
    call = {"id": "c1", "function": {"name": "f", "arguments": {"x": 1}}}
    messages = [
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call]},
        {"role": "tool", "content": "11", "tool_name": "f", "tool_call_id": "c1"},
    ]
    assert http.post("/api/chat", json={"model": "tiny", "messages": messages}).status_code == 200
    asked, result = script.rendered[-1][0]
    assert asked["thinking"] == "hm"
    assert asked["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}
    assert (result["role"], result["content"], result["tool_name"], result["tool_call_id"]) == ("tool", "11", "f", "c1")


def test_chat_gives_logprobs(http):
    body = {"model": "tiny", "messages": QUESTION, "stream": False, "logprobs": True, "top_logprobs": 1}
    entries = http.post("/api/chat", json=body).json()["logprobs"]
    assert [len(entry["top_logprobs"]) for entry in entries] == [1, 1]


def test_chat_debug_shows_the_rendered_prompt(http, script):
    answer = http.post("/api/chat", json={"model": "tiny", "messages": QUESTION, "_debug_render_only": True}).json()
    assert answer["_debug_info"] == {"rendered_template": "<user>q\n<assistant>"}
    assert script.prompts == []


def test_generate_without_shift_ends_with_a_full_context(http, script):
    http.post("/api/generate", json={"model": "tiny", "prompt": "a", "shift": False})
    http.post("/api/generate", json={"model": "tiny", "prompt": "a"})
    assert [options.shift for options in script.options] == [False, True]


def test_embedding_options_set_the_context(http, script):
    http.post("/api/embed", json={"model": "tiny", "input": "a", "options": {"num_ctx": 64, "seed": None}})
    http.post("/api/embeddings", json={"model": "tiny", "prompt": "a", "options": {"num_ctx": 32}})
    assert [num_ctx for _, num_ctx, *_ in script.embedded] == [64, 32]


def test_embeddings_with_keep_alive_0_unloads(live, http, script):
    assert http.post("/api/embeddings", json={"model": "tiny", "prompt": "a", "keep_alive": 0}).status_code == 200
    live.until(lambda: len(script.unloads) == 1)


def test_options_of_null_and_unknown_ones_are_ignored(http, script):
    given = dict.fromkeys(("temperature", "top_k", "stop", "num_ctx", "seed"))
    given |= {"numa": False, "tfs_z": 1.0, "num_gqa": 8, "zzz": {"a": 1}}
    answer = http.post("/api/chat", json={"model": "tiny", "messages": QUESTION, "options": given})
    assert answer.status_code == 200
    assert (script.options[-1].temperature, script.options[-1].top_k) == (0.8, 40)
