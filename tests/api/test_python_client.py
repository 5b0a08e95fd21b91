"""The official Python client, sync and async, against the whole server."""

import asyncio
import hashlib
import json

import ollama
import pytest
from pydantic import BaseModel, Field

pytestmark = [pytest.mark.client, pytest.mark.model]

QUESTION = [{"role": "user", "content": "Say hello."}]
SHORT = {"num_predict": 8, "temperature": 0, "seed": 1}


@pytest.fixture
def client(live_server):
    made = ollama.Client(host=live_server.url)
    yield made
    made._client.close()


def check_metrics(last):
    assert last.done is True
    assert last.done_reason in ("stop", "length")
    assert last.prompt_eval_count > 0
    assert 0 < last.eval_count <= SHORT["num_predict"]
    assert last.total_duration >= last.load_duration > 0


def test_generate(client, live_server):
    answer = client.generate(model=live_server.model, prompt="Say hello.", options=SHORT)
    assert answer.response
    check_metrics(answer)
    again = client.generate(model=live_server.model, prompt="More.", context=answer.context, options=SHORT)
    assert again.context[: len(answer.context)] == answer.context


def test_generate_streamed_equals_generate_in_one_piece(client, live_server):
    whole = client.generate(model=live_server.model, prompt="Say hello.", options=SHORT)
    parts = list(client.generate(model=live_server.model, prompt="Say hello.", options=SHORT, stream=True))
    assert "".join(part.response for part in parts) == whole.response
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    check_metrics(parts[-1])


class Color(BaseModel):
    name: str = Field(max_length=12)
    red: int = Field(ge=0, le=255)
    tags: list[str] = Field(max_length=2)
    parent: "Color | None" = None


def test_format_is_a_pydantic_schema(client, live_server):
    options = {**SHORT, "num_predict": 200}
    call = {"model": live_server.model, "format": Color.model_json_schema(), "options": options}
    question = "Describe the color crimson as JSON, with a name of one word and short tags."
    whole = client.generate(prompt=question, **call)
    assert whole.done_reason == "stop"
    Color.model_validate_json(whole.response)
    parts = list(client.chat(messages=[{"role": "user", "content": question}], stream=True, **call))
    Color.model_validate_json("".join(part.message.content for part in parts))


def test_format_json_is_an_object(client, live_server):
    call = {"model": live_server.model, "format": "json", "options": {**SHORT, "num_predict": 40}}
    answer = client.chat(messages=[{"role": "user", "content": "Say {} as JSON."}], logprobs=True, **call)
    assert answer.message.content.startswith("{")
    assert answer.done_reason == "length" or isinstance(json.loads(answer.message.content), dict)


def test_bad_schema_is_a_400_and_the_next_request_works(client, live_server):
    for schema in ({"type": "strange"}, {"$ref": "#/$defs/absent"}, {"type": "string", "pattern": "(" * 5000}):
        for stream in (False, True):
            with pytest.raises(ollama.ResponseError, match="invalid JSON schema in format: ") as caught:
                list(client.generate(model=live_server.model, prompt="a", format=schema, stream=stream))
            assert caught.value.status_code == 400
    answer = client.generate(model=live_server.model, prompt="a", format={"enum": ["a", "b"]}, options=SHORT)
    assert json.loads(answer.response) in ("a", "b")


def test_chat(client, live_server):
    answer = client.chat(model=live_server.model, messages=QUESTION, options=SHORT)
    assert answer.message.role == "assistant"
    assert answer.message.content
    check_metrics(answer)


def test_chat_streamed_equals_chat_in_one_piece(client, live_server):
    whole = client.chat(model=live_server.model, messages=QUESTION, options=SHORT)
    parts = list(client.chat(model=live_server.model, messages=QUESTION, options=SHORT, stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content
    assert {part.message.role for part in parts} == {"assistant"}
    check_metrics(parts[-1])


def test_logprobs(client, live_server):
    answer = client.generate(
        model=live_server.model, prompt="Hi", options=SHORT, logprobs=True, top_logprobs=2
    )
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 2 for entry in answer.logprobs)


def test_load_and_unload(client, live_server):
    assert client.generate(model=live_server.model, keep_alive=-1).done_reason == "load"
    assert [model.name for model in client.ps().models] == [live_server.model]
    assert client.generate(model=live_server.model, keep_alive=0).done_reason == "unload"
    assert client.ps().models == []


def test_list(client, live_server):
    (model,) = client.list().models
    assert model.model == live_server.model
    assert model.size >= live_server.gguf.stat().st_size
    assert len(model.digest) == 64
    assert model.modified_at.tzinfo is not None
    assert model.details.format == "gguf"


def test_show(client, live_server):
    shown = client.show(live_server.model)
    assert "completion" in shown.capabilities
    assert shown.modelinfo["general.architecture"] == shown.details.family
    assert shown.modelfile.startswith("# Modelfile")
    assert shown.template


def test_ps(client, live_server):
    client.chat(model=live_server.model, messages=QUESTION, options=SHORT, keep_alive="5m")
    (running,) = client.ps().models
    assert running.model == live_server.model
    assert running.size > 0
    assert running.size_vram == 0
    assert running.context_length > 0
    assert running.expires_at.tzinfo is not None


def test_blob_and_create(client, live_server):
    digest = client.create_blob(live_server.gguf)
    assert digest == f"sha256:{hashlib.sha256(live_server.gguf.read_bytes()).hexdigest()}"
    assert client.create_blob(live_server.gguf) == digest
    steps = list(client.create(model="made", files={"model.gguf": digest}, system="Be brief.", stream=True))
    assert steps[-1].status == "success"
    assert "SYSTEM Be brief." in client.show("made").modelfile
    assert client.generate(model="made", prompt="Hi", options=SHORT).response
    made = client.create(model="child", from_="made", parameters={"temperature": 0.25})
    assert made.status == "success"
    assert client.show("child").parameters.split() == ["temperature", "0.25"]


def test_copy_and_delete(client, live_server):
    assert client.copy(live_server.model, "twin:x").status == "success"
    assert {model.model for model in client.list().models} == {live_server.model, "twin:x"}
    assert client.delete("twin:x").status == "success"
    assert [model.model for model in client.list().models] == [live_server.model]


@pytest.mark.parametrize("name", ["chat", "generate", "show", "delete"])
def test_a_missing_model_is_a_404(client, name):
    with pytest.raises(ollama.ResponseError, match="not found") as caught:
        getattr(client, name)(model="absent")
    assert caught.value.status_code == 404


def test_leaving_a_stream_frees_the_model(client, live_server):
    stream = client.generate(model=live_server.model, prompt="Count.", stream=True)
    next(stream)
    stream.close()
    assert client.generate(model=live_server.model, prompt="Hi", options=SHORT).done


def test_everything_with_the_async_client(live_server):
    async def scenario():
        client = ollama.AsyncClient(host=live_server.url)
        answer = await client.chat(model=live_server.model, messages=QUESTION, options=SHORT)
        check_metrics(answer)
        text = ""
        async for part in await client.chat(
            model=live_server.model, messages=QUESTION, options=SHORT, stream=True
        ):
            text += part.message.content
        assert text == answer.message.content
        several = [
            client.generate(model=live_server.model, prompt=f"Number {n}", options=SHORT) for n in range(6)
        ]
        for found in await asyncio.gather(*several):
            check_metrics(found)
        assert (await client.list()).models[0].model == live_server.model
        assert (await client.ps()).models[0].model == live_server.model
        assert (await client.show(live_server.model)).capabilities
        digest = await client.create_blob(live_server.gguf)
        statuses = [
            step.status
            async for step in await client.create(model="made", files={"m.gguf": digest}, stream=True)
        ]
        assert statuses[-1] == "success"
        await client.copy("made", "twin")
        await client.delete("made")
        assert {model.model for model in (await client.list()).models} == {live_server.model, "twin:latest"}
        with pytest.raises(ollama.ResponseError):
            await client.chat(model="absent", messages=QUESTION)
        await client._client.aclose()

    asyncio.run(scenario())
