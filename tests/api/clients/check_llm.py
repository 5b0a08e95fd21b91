"""llm with llm-ollama, which finds its models by /api/tags and /api/show."""

import asyncio
import json

import llm
import pytest
from target import DIMENSIONS, ENCODER, MODEL, OPTIONS

QUESTION = "Say hello."


def test_every_model_is_listed_once_for_what_it_does():
    chat_models = {name.model.model_id for name in llm.get_models_with_aliases()}
    assert MODEL in chat_models
    assert ENCODER not in chat_models
    assert llm.get_embedding_model(ENCODER)


def test_prompt_streamed_or_not():
    model = llm.get_model(MODEL)
    answer = model.prompt(QUESTION, stream=False, **OPTIONS)
    assert answer.text()
    assert answer.usage().input > answer.usage().output > 0
    assert "".join(model.prompt(QUESTION, stream=True, **OPTIONS)) == answer.text()


def test_conversation_sends_its_history():
    talk = llm.get_model(MODEL).conversation()
    first = talk.prompt(QUESTION, system="Be brief.", stream=False, **OPTIONS)
    assert first.text()  # a response runs when it is read
    second = talk.prompt("Again.", stream=False, **OPTIONS)
    assert second.text()
    assert second.usage().input > first.usage().input


def test_async_prompt():
    async def scenario():
        return await llm.get_async_model(MODEL).prompt(QUESTION, **OPTIONS).text()

    assert asyncio.run(scenario()) == llm.get_model(MODEL).prompt(QUESTION, **OPTIONS).text()


def test_schema():
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}}, "required": ["name"]}
    answer = llm.get_model(MODEL).prompt("Name a city.", schema=schema, stream=False, **OPTIONS | {"num_predict": 60})
    assert json.loads(answer.text()).keys() == {"name"}


def test_embeddings():
    model = llm.get_embedding_model(ENCODER)
    vectors = list(model.embed_batch(["the sky is blue", "rain"]))
    assert [len(vector) for vector in vectors] == [DIMENSIONS, DIMENSIONS]
    assert model.embed("rain") == pytest.approx(vectors[1], abs=1e-6)
