"""litellm, which speaks raw HTTP: `ollama/` goes to /api/generate, `ollama_chat/` to /api/chat."""

import asyncio

import litellm
import pytest
from target import DIMENSIONS, ENCODER, MODEL, OPTIONS, URL

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}]
FIELDS = {"api_base": URL, "max_tokens": OPTIONS["num_predict"], "temperature": 0.0, "seed": 1}


@pytest.fixture(params=["ollama", "ollama_chat"])
def call(request):
    return {"model": f"{request.param}/{MODEL}", "messages": MESSAGES, **FIELDS}


def text_of(parts) -> str:
    return "".join(part.choices[0].delta.content or "" for part in parts)


def test_completion(call):
    answer = litellm.completion(**call)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens > answer.usage.completion_tokens > 0


def test_stream_says_the_same(call):
    whole = litellm.completion(**call).choices[0].message.content
    parts = list(litellm.completion(**call, stream=True))
    assert text_of(parts) == whole
    assert parts[-1].choices[0].finish_reason in ("stop", "length")


def test_async(call):
    async def scenario():
        whole = (await litellm.acompletion(**call)).choices[0].message.content
        assert text_of([part async for part in await litellm.acompletion(**call, stream=True)]) == whole

    asyncio.run(scenario())


def test_a_missing_model_is_an_error(call):
    provider = call["model"].partition("/")[0]
    with pytest.raises(litellm.NotFoundError, match="not found"):
        litellm.completion(**{**call, "model": f"{provider}/absent"})


def test_json_mode(call):
    answer = litellm.completion(**call, response_format={"type": "json_object"})
    assert answer.choices[0].message.content.startswith("{")


def test_model_info_comes_from_show():
    assert litellm.get_model_info(f"ollama/{MODEL}", api_base=URL)["max_tokens"] > 1000


def test_embedding():
    texts = ["the sky is blue", "rain"]
    answer = litellm.embedding(model=f"ollama/{ENCODER}", input=texts, api_base=URL)
    assert [len(item["embedding"]) for item in answer.data] == [DIMENSIONS, DIMENSIONS]
    again = asyncio.run(litellm.aembedding(model=f"ollama/{ENCODER}", input=texts[1:], api_base=URL))
    assert again.data[0]["embedding"] == pytest.approx(answer.data[1]["embedding"], abs=1e-6)
