"""Tokens, gaps and progress over HTTP with real models and tiny ones."""

import json

import httpx
import numpy as np
import pytest

import ollamacore
from server.models.engine import LocalLoader
from tests.generate.bert import tiny_bert
from tests.generate.decoders import tiny_decoder
from tests.generate.encoders import ENCODERS, MEAN, RANK, tiny_encoder
from tests.generate.tiny import tiny_model
from tests.server.live import LiveServer


@pytest.fixture(scope="module")
def tiny_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    with LiveServer(folder, LocalLoader(2)) as server:
        server.gguf = tiny_model(folder / "tiny.gguf", "llama", context=4096)
        server.add_model("tiny", server.gguf)
        server.add_model("ranker", tiny_bert(folder / "ranker.gguf", pooling=4, labels=1))
        server.add_model("encoder", tiny_bert(folder / "encoder.gguf"))
        server.add_model("qwen3-reranker", tiny_decoder(folder / "qwen3.gguf", "qwen3", labels=(40, 70)))
        for name in ENCODERS:
            pooling = RANK if name.endswith("rank") else MEAN
            server.add_model(name, tiny_encoder(folder / f"{name}.gguf", name, pooling=pooling))
        yield server


@pytest.fixture
def http(tiny_server):
    with httpx.Client(base_url=tiny_server.url, timeout=60) as client:
        yield client


def test_tokens_are_the_same_without_and_with_the_weights(tiny_server, http):
    body = {"model": "tiny", "content": "the token, again and again", "add_special": True}
    without = http.post("/api/tokenize", json=body).json()
    assert http.get("/api/ps").json() == {"models": []}
    assert http.post("/api/generate", json={"model": "tiny", "keep_alive": -1}).json()["done_reason"] == "load"
    assert http.post("/api/tokenize", json=body).json() == without
    assert without["tokens"] == ollamacore.ModelText.open(tiny_server.gguf).tokenize(body["content"])
    back = http.post("/api/detokenize", json={"model": "tiny", "tokens": without["tokens"]}).json()
    assert back["content"].endswith(body["content"])


def test_a_token_that_is_none_is_refused(http):
    answer = http.post("/api/detokenize", json={"model": "tiny", "tokens": [10**6]})
    assert answer.status_code == 400
    assert "token ids must lie between" in answer.json()["error"]


def test_progress_of_a_long_prompt(http):
    body = {"model": "tiny", "prompt": "token " * 1500, "raw": True, "progress": True}
    body["options"] = {"num_predict": 1, "num_ctx": 4096}
    records = [json.loads(line) for line in http.post("/api/generate", json=body).text.splitlines()]
    steps = [record["progress"]["prompt_tokens_done"] for record in records if "progress" in record]
    assert steps[0] == 0
    assert len(steps) > 2
    assert steps == sorted(set(steps))
    assert {record["progress"]["prompt_tokens"] for record in records[: len(steps)]} == {
        records[-1]["prompt_eval_count"]
    }
    again = [json.loads(line) for line in http.post("/api/generate", json=body).text.splitlines()]
    assert again[0]["progress"]["prompt_tokens_done"] == again[-1]["prompt_eval_cached_count"] > 0


@pytest.mark.parametrize("name", [name for name in ENCODERS if not name.endswith("rank")])
def test_every_encoder_embeds(tiny_server, http, name):
    texts = ["a text", "another text, which is longer than the one in front of it", "a"]
    answer = http.post("/api/embed", json={"model": name, "input": texts, "keep_alive": 0}).json()
    with ollamacore.Model.load(tiny_server.gguf.with_name(f"{name}.gguf"), threads=2) as model:
        np.testing.assert_array_equal(np.array(answer["embeddings"], np.float32), model.embed(texts).vectors)


@pytest.mark.parametrize(
    "name", ["ranker", "qwen3-reranker", *(name for name in ENCODERS if name.endswith("rank"))]
)
def test_rerank(http, name):
    documents = ["a token", "running", "the tokenizer runs"]
    body = {"model": name, "query": "run?", "documents": documents, "keep_alive": 0}
    answer = http.post("/api/rerank", json=body).json()
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)


def test_other_models_do_not_rerank(http):
    documents = ["a token"]
    for model in ("tiny", "encoder"):
        refused = http.post("/api/rerank", json={"model": model, "query": "run?", "documents": documents})
        assert (refused.status_code, refused.json()["error"]) == (400, f'"{model}" does not support rerank')
    refused = http.post("/api/embed", json={"model": "ranker", "input": "x"})
    assert (refused.status_code, refused.json()["error"]) == (400, '"ranker" does not support embeddings')


def test_an_empty_text_of_a_model_that_adds_no_tokens_is_embedded(http):
    found = http.post("/api/embed", json={"model": "tiny", "input": ["x", ""]}).json()
    first, second = found["embeddings"]
    assert len(first) == len(second)
    assert first != second
    assert found["prompt_eval_count"] == 2  # the mark of a beginning stands for nothing


def test_metrics_of_a_model_that_ran(http):
    http.post("/api/generate", json={"model": "tiny", "prompt": "x", "options": {"num_predict": 2}})
    text = http.get("/metrics").text
    assert 'ollamacore_sequences_active{model="tiny:latest"} 0\n' in text
    for name in ("prompt_tokens_total", "generated_tokens_total", "kv_blocks_used"):
        sample = f'ollamacore_{name}{{model="tiny:latest"}} '
        [line] = [line for line in text.splitlines() if line.startswith(sample)]
        assert int(line.removeprefix(sample)) > 0


@pytest.mark.model
def test_insert_completes_a_function(tmp_path, qwen05_path):
    with LiveServer(tmp_path / "models", LocalLoader(2)) as server, httpx.Client(base_url=server.url) as http:
        server.add_model("coder", qwen05_path)
        shown = http.post("/api/show", json={"model": "coder"}).json()
        assert "insert" in shown["capabilities"]
        assert "<|fim_prefix|>{{ .Prompt }}<|fim_suffix|>{{ .Suffix }}<|fim_middle|>" in shown["template"]
        body = {
            "model": "coder",
            "prompt": "def fibonacci(n):\n    if n < 2:\n        return n\n    return ",
            "suffix": "\n\nprint(fibonacci(10))\n",
            "stream": False,
            "options": {"temperature": 0, "num_predict": 48},
        }
        answer = http.post("/api/generate", json=body, timeout=120).json()
    assert answer["done_reason"] == "stop"
    assert "fibonacci(n" in answer["response"]
    printed: list[int] = []
    exec(body["prompt"] + answer["response"] + body["suffix"], {"print": printed.append})
    assert printed[-1] == 55
