"""Thoughts and tool calls through the official Python client, from a model that says what it is told to."""

import asyncio

import httpx
import ollama
import pytest

import ollamacore
from tests.generate.scripted import AGENT_CALL, AGENT_THOUGHT, agent_model

ASK = [{"role": "user", "content": "Weather?"}]


def weather(city: str, days: int) -> str:
    """Tell the weather.

    Args:
      city: where
      days: how many
    """
    return f"11 degrees in {city} for {days} days"


@pytest.fixture
def client(agent):
    client = ollama.Client(host=agent.url)
    yield client
    client._client.close()


def called(message):
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]


def test_an_agent_thinks_calls_and_tells(client):
    answer = client.chat("agent", ASK, tools=[weather])
    assert (answer.message.thinking, answer.message.content) == (AGENT_THOUGHT, "I look.")
    assert called(answer.message) == [AGENT_CALL]
    assert answer.done_reason == "stop"
    [call] = answer.message.tool_calls
    result = weather(**call.function.arguments)
    messages = [*ASK, answer.message, {"role": "tool", "tool_name": "weather", "content": result}]
    assert client.chat("agent", messages, tools=[weather]).message.content == "11 degrees."


def test_a_stream_has_thoughts_then_content_then_calls(client):
    *parts, last = client.chat("agent", ASK, tools=[weather], stream=True)
    kinds = ["think" if p.message.thinking else "call" if p.message.tool_calls else "say" for p in parts]
    assert kinds == ["think", "think", "think", "say", "call"]
    assert [p.message.content for p in parts] == ["", "", "", "I look.", ""]
    assert "".join(p.message.thinking or "" for p in parts) == AGENT_THOUGHT
    assert called(parts[-1].message) == [AGENT_CALL]
    assert (last.done, last.done_reason, last.message.content) == (True, "stop", "")
    assert last.message.tool_calls is None
    assert last.eval_count == 18


def test_the_async_client_sees_the_same(agent):
    async def scenario():
        client = ollama.AsyncClient(host=agent.url)
        try:
            parts = [part async for part in await client.chat("agent", ASK, tools=[weather], stream=True)]
        finally:
            await client._client.aclose()
        return parts

    parts = asyncio.run(scenario())
    assert [call for part in parts for call in called(part.message)] == [AGENT_CALL]


def test_thinking_can_be_turned_off(client):
    answer = client.chat("agent", ASK, tools=[weather], think=False)
    assert (answer.message.thinking, answer.message.content) == (None, "No thoughts.")
    assert client.chat("agent", ASK, think="high").message.thinking == AGENT_THOUGHT
    whole = client.generate("agent", "Weather?")
    assert (whole.thinking, whole.response.split()[:2]) == (AGENT_THOUGHT, ["I", "look."])
    assert client.generate("agent", "Weather?", think=False).response == "No thoughts."


def test_without_tools_a_call_is_text_without_its_control_tokens(client):
    answer = client.chat("agent", ASK)
    assert answer.message.thinking == AGENT_THOUGHT
    assert answer.message.content.startswith('I look.\n\n{"name": "weather"')
    assert answer.message.tool_calls is None


def test_a_raw_prompt_has_a_raw_answer(client):
    raw = client.generate("agent", "x<|asked|>", raw=True)
    assert raw.thinking is None
    assert raw.response.startswith("\nI need the weather.\n\n\nI look.")
    assert client.generate("agent", "x<|asked|>", raw=True, think=True).thinking == AGENT_THOUGHT


def test_the_record_of_a_call_has_ollamas_fields(agent):
    tool = {"type": "function", "function": {"name": "weather"}}
    body = {"model": "agent", "messages": ASK, "tools": [tool], "stream": False}
    message = httpx.post(f"{agent.url}/api/chat", json=body, timeout=30).json()["message"]
    assert list(message) == ["role", "content", "thinking", "tool_calls"]
    [call] = message["tool_calls"]
    assert list(call) == ["id", "function"]
    assert len(call["id"]) == len("call_12345678")
    assert call["function"] == {"index": 0, "name": AGENT_CALL[0], "arguments": AGENT_CALL[1]}
    whole = httpx.post(f"{agent.url}/api/generate", json={"model": "agent", "prompt": "x", "stream": False}, timeout=30)
    assert list(whole.json())[2:5] == ["response", "thinking", "done"]


def test_logprobs_come_while_text_is_held_back(agent):
    tool = {"type": "function", "function": {"name": "weather"}}
    body = {"model": "agent", "messages": ASK, "tools": [tool], "logprobs": True}
    lines = httpx.post(f"{agent.url}/api/chat", json=body, timeout=30).text.splitlines()
    records = [httpx.Response(200, text=line).json() for line in lines]
    entries = [[entry["token"] for entry in record.get("logprobs", ())] for record in records]
    assert [len(found) for found in entries] == [1] * 17 + [0]
    assert entries[0] == ["<think>"]
    assert records[0]["message"] == {"role": "assistant", "content": ""}


def test_stop_strings_and_limits_hold_within_thoughts(client):
    cut = client.chat("agent", ASK, options={"stop": ["the weather"]})
    assert (cut.message.thinking, cut.message.content, cut.done_reason) == ("I need", "", "stop")
    short = client.chat("agent", ASK, options={"num_predict": 4})
    assert (short.message.thinking, short.done_reason) == ("I need the", "length")
    lost = client.chat("agent", ASK, tools=[weather], options={"num_predict": 13})
    assert lost.message.content == 'I look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Os'
    assert lost.message.tool_calls is None


def test_capabilities_say_what_is_parsed(client):
    assert client.show("agent").capabilities == ["completion", "tools", "thinking"]


def test_the_library_gives_thoughts_and_calls(tmp_path):
    tool = {"type": "function", "function": {"name": "weather"}}
    with ollamacore.load(agent_model(tmp_path / "a.gguf"), threads=1) as model:
        chunks = list(model.chat(ASK, tools=[tool]))
        assert "".join(chunk.thinking for chunk in chunks) == AGENT_THOUGHT
        assert "".join(chunk.text for chunk in chunks) == "I look."
        [call] = [chunk.tool_call for chunk in chunks if chunk.tool_call]
        assert (call.name, call.arguments, call.index) == (*AGENT_CALL, 0)
        assert [chunk.done_reason for chunk in chunks if chunk.done_reason] == ["stop"]
        assert chunks[-1].done_reason
        assert len([token for chunk in chunks for token in chunk.tokens]) == 17
        assert model.chat(ASK, think=False).text() == "No thoughts."
