"""llama-index: its LLM asks /api/show for the context window, its embedding model /api/embed."""

import asyncio

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.embeddings.ollama import OllamaEmbedding
from llama_index.llms.ollama import Ollama
from target import DIMENSIONS, ENCODER, MODEL, OPTIONS, URL

MESSAGES = [ChatMessage(role="user", content="Say hello.")]


def made(**fields) -> Ollama:
    options = {"num_predict": OPTIONS["num_predict"], "seed": OPTIONS["seed"]}
    return Ollama(model=MODEL, base_url=URL, request_timeout=60, temperature=0, additional_kwargs=options, **fields)


def test_context_window_comes_from_show():
    assert made().metadata.context_window > 1000


def test_chat_streamed_or_not():
    model = made()
    answer = model.chat(MESSAGES)
    assert answer.message.role == "assistant"
    *_, last = model.stream_chat(MESSAGES)
    assert last.message.content == answer.message.content
    assert answer.raw["usage"]["completion_tokens"] > 0


def test_chat_async():
    async def scenario():
        model = made()
        answer = await model.achat(MESSAGES)
        parts = [part.delta async for part in await model.astream_chat(MESSAGES)]
        assert "".join(part or "" for part in parts) == answer.message.content

    asyncio.run(scenario())


def test_complete():
    model = made()
    text = model.complete("Say hello.").text
    assert text
    assert [part.text for part in model.stream_complete("Say hello.")][-1] == text


def test_json_mode():
    assert made(json_mode=True).chat(MESSAGES).message.content.startswith("{")


def test_embeddings():
    model = OllamaEmbedding(model_name=ENCODER, base_url=URL)
    vectors = model.get_text_embedding_batch(["the sky is blue", "rain"])
    assert [len(vector) for vector in vectors] == [DIMENSIONS, DIMENSIONS]
    assert model.get_query_embedding("rain") == pytest.approx(vectors[1], abs=1e-6)
    assert asyncio.run(model.aget_query_embedding("rain")) == pytest.approx(vectors[1], abs=1e-6)
