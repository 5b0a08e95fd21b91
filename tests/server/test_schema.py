"""Request bodies: Go's leniency, and its words for wrong types."""

import json

import pytest

from server.errors import ApiError
from server.schema import ChatRequest, CreateRequest, DeleteRequest, GenerateRequest, ShowRequest, parse
from server.times import FOREVER, SECOND


def error_of(cls, body):
    with pytest.raises(ApiError) as caught:
        parse(cls, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert caught.value.status == 400
    return caught.value.text


def test_parse_matches_keys_in_any_case_and_ignores_unknown_ones():
    wanted = parse(GenerateRequest, b'{"MODEL":"a","Prompt":"p","nonsense":{"x":1},"stream":null} trailing')
    assert (wanted.model, wanted.prompt, wanted.stream) == ("a", "p", True)


def test_parse_of_two_spellings_takes_the_later():
    assert parse(GenerateRequest, b'{"model":"a","Model":"b"}').model == "b"


@pytest.mark.parametrize("body", [b"", b"  \n"])
def test_parse_of_an_empty_body(body):
    assert error_of(GenerateRequest, body) == "missing request body"


def test_parse_of_null_is_an_empty_request():
    assert parse(ShowRequest, b"null") == ShowRequest()


@pytest.mark.parametrize(
    ("cls", "body", "text"),
    [
        (
            GenerateRequest,
            {"top_logprobs": "3"},
            "json: cannot unmarshal string into Go struct field GenerateRequest.top_logprobs of type int",
        ),
        (
            GenerateRequest,
            {"top_logprobs": 1.5},
            "json: cannot unmarshal number 1.5 into Go struct field GenerateRequest.top_logprobs of type int",
        ),
        (
            GenerateRequest,
            {"prompt": 3},
            "json: cannot unmarshal number into Go struct field GenerateRequest.prompt of type string",
        ),
        (
            GenerateRequest,
            {"raw": "yes"},
            "json: cannot unmarshal string into Go struct field GenerateRequest.raw of type bool",
        ),
        (
            GenerateRequest,
            {"context": [1, "x"]},
            "json: cannot unmarshal string into Go struct field GenerateRequest.context of type int",
        ),
        (
            GenerateRequest,
            {"context": {}},
            "json: cannot unmarshal object into Go struct field GenerateRequest.context of type []int",
        ),
        (
            GenerateRequest,
            {"options": []},
            "json: cannot unmarshal array into Go struct field GenerateRequest.options of type map[string]interface {}",
        ),
        (GenerateRequest, {"images": ["a!"]}, "illegal base64 data at input byte 1"),
        (GenerateRequest, {"images": ["abc"]}, "illegal base64 data at input byte 3"),
        (GenerateRequest, {"keep_alive": "300"}, 'time: missing unit in duration "300"'),
        (GenerateRequest, {"keep_alive": True}, "Unsupported type: 'bool'"),
        (
            GenerateRequest,
            {"think": "x"},
            'invalid think value: "x" (must be "high", "medium", "low", "max", true, or false)',
        ),
        (
            ChatRequest,
            {"messages": [{"role": "user", "content": ["a"]}]},
            "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string",
        ),
        (
            ChatRequest,
            {"messages": ["hi"]},
            "json: cannot unmarshal string into Go struct field ChatRequest.messages of type api.Message",
        ),
        (
            ChatRequest,
            {"messages": "hi"},
            "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message",
        ),
        (
            ChatRequest,
            {"messages": [{"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
            "json: cannot unmarshal string into Go struct field "
            "ChatRequest.messages.tool_calls.function.arguments of type map[string]interface {}",
        ),
        (ChatRequest, ["a"], "json: cannot unmarshal array into Go value of type api.ChatRequest"),
        (ChatRequest, b"x", "invalid character 'x' looking for beginning of value"),
        (ChatRequest, b'{"model":', "unexpected EOF"),
    ],
)
def test_parse_of_a_wrong_type_uses_gos_words(cls, body, text):
    assert error_of(cls, body) == text


@pytest.mark.parametrize(("value", "ns"), [(30, 30 * SECOND), ("1m", 60 * SECOND), (-1, FOREVER), (None, None)])
def test_keep_alive_of_a_request(value, ns):
    assert parse(GenerateRequest, json.dumps({"keep_alive": value}).encode()).keep_alive_ns == ns


def test_messages_are_read_and_shown_to_templates_without_absent_parts():
    call = {"id": "call_1", "function": {"name": "f", "arguments": {"b": 1, "a": 2}}}
    wanted = parse(
        ChatRequest,
        json.dumps(
            {
                "messages": [
                    {"role": "USER", "content": "hi", "images": None},
                    {"role": "assistant", "tool_calls": [call]},
                    {"role": "tool", "content": "3", "tool_name": "f"},
                ]
            }
        ).encode(),
    )
    shown = [message.for_template() for message in wanted.messages]
    assert shown[0] == {"role": "user", "content": "hi"}
    assert shown[1]["tool_calls"][0]["function"] == call["function"]
    assert list(shown[1]["tool_calls"][0]["function"]["arguments"]) == ["b", "a"]
    assert shown[2]["tool_name"] == shown[2]["name"] == "f"


def test_tools_keep_what_the_client_wrote():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"z": {}, "a": {}}}}}
    assert parse(ChatRequest, json.dumps({"tools": [tool]}).encode()).tools == (tool,)


def test_create_takes_one_licence_or_many_and_both_names_of_quantize():
    assert parse(CreateRequest, b'{"license":"x","quantization":"q4_0"}').license == ("x",)
    assert parse(CreateRequest, b'{"license":["x","y"]}').license == ("x", "y")
    assert parse(CreateRequest, b'{"quantization":"q4_0"}').quantize == "q4_0"


def test_delete_reads_model_and_name():
    assert parse(DeleteRequest, b'{"name":"a"}').name == "a"
