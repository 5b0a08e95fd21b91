"""langchain-ollama: ChatOllama, OllamaLLM and OllamaEmbeddings."""

import asyncio
from typing import Any

import ollama
import pytest
from langchain_core.messages import AIMessageChunk, ToolMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from pydantic import BaseModel
from target import AGENT, DIMENSIONS, ENCODER, MODEL, OPTIONS, TOOLS_MODEL, URL, weather

QUESTION = "Say hello."


def chat_model(model: str = MODEL, **fields: Any) -> ChatOllama:
    return ChatOllama(model=model, base_url=URL, **OPTIONS, **fields)


def test_chat_invoke_gives_text_and_usage():
    answer = chat_model(validate_model_on_init=True).invoke([("system", "Be brief."), ("user", QUESTION)])
    assert answer.content
    assert answer.response_metadata["done_reason"] in ("stop", "length")
    usage = answer.usage_metadata
    assert usage["input_tokens"] > usage["output_tokens"] > 0
    assert answer.response_metadata["eval_duration"] > 0


def test_chat_streams_and_async_say_the_same():
    whole = chat_model().invoke(QUESTION).content
    parts = list(chat_model().stream(QUESTION))
    assert "".join(part.content for part in parts) == whole
    assert len(parts) > 2
    assert sum(part.usage_metadata["output_tokens"] for part in parts if part.usage_metadata) > 0

    async def scenario():
        assert "".join([part.content async for part in chat_model().astream(QUESTION)]) == whole
        assert (await chat_model().ainvoke(QUESTION)).content == whole

    asyncio.run(scenario())


def test_a_missing_model_is_named():
    with pytest.raises(ollama.ResponseError, match="not found"):
        chat_model("absent").invoke(QUESTION)
    with pytest.raises(ValueError, match="absent"):
        chat_model("absent", validate_model_on_init=True)


def test_tools_reach_a_model_that_knows_them():
    plain = chat_model(TOOLS_MODEL).invoke("Weather in Oslo?")
    bound = chat_model(TOOLS_MODEL).bind_tools([weather]).invoke("Weather in Oslo?")
    assert bound.content or bound.tool_calls
    assert bound.usage_metadata["input_tokens"] > plain.usage_metadata["input_tokens"] + 50


def test_an_agent_calls_a_tool_and_tells_what_it_said():
    model = ChatOllama(model=AGENT, base_url=URL, reasoning=True).bind_tools([weather])
    answer = model.invoke("Weather in Oslo?")
    [call] = answer.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Oslo", "days": 2})
    assert (answer.content, answer.additional_kwargs["reasoning_content"]) == ("I look.", "I need the weather.")
    streamed = sum(model.stream("Weather in Oslo?"), AIMessageChunk(""))
    assert [call["args"] for call in streamed.tool_calls] == [{"city": "Oslo", "days": 2}]
    result = ToolMessage(weather("Oslo"), tool_call_id=call["id"])
    assert model.invoke([("user", "Weather in Oslo?"), answer, result]).content == "11 degrees."


def test_tools_are_refused_where_the_model_has_none():
    with pytest.raises(ollama.ResponseError, match="does not support tools") as caught:
        chat_model().bind_tools([weather]).invoke("Weather in Oslo?")
    assert caught.value.status_code == 400


def test_a_schema_is_refused_in_words():
    class City(BaseModel):
        name: str

    structured = chat_model().with_structured_output(City, method="json_schema")
    with pytest.raises(ollama.ResponseError, match="format is not supported by this server") as caught:
        structured.invoke("Name a city.")
    assert caught.value.status_code == 400


def test_completion_model():
    model = OllamaLLM(model=MODEL, base_url=URL, keep_alive=300, **OPTIONS)
    whole = model.invoke(QUESTION)
    assert whole
    assert "".join(model.stream(QUESTION)) == whole
    assert asyncio.run(model.ainvoke(QUESTION)) == whole


def test_embeddings():
    model = OllamaEmbeddings(model=ENCODER, base_url=URL)
    vectors = model.embed_documents(["the sky is blue", "rain"])
    assert [len(vector) for vector in vectors] == [DIMENSIONS, DIMENSIONS]
    assert model.embed_query("rain") == pytest.approx(vectors[1], abs=1e-6)
    assert asyncio.run(model.aembed_query("rain")) == pytest.approx(vectors[1], abs=1e-6)
