"""Responses as values: JSON escaping, heads, requests built by hand."""

import asyncio
import dataclasses
import json

import numpy
import pytest

from server.http import (
    Headers,
    HTTPError,
    Request,
    error_response,
    json_bytes,
    json_response,
    loggable,
    ndjson,
    text_response,
)
from server.http.response import encode_head


@dataclasses.dataclass
class Point:
    name: str
    x: int


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ({"a": "<b>&\u2028\u2029\u0085"}, rb'{"a":"\u003cb\u003e\u0026\u2028\u2029\u0085"}'),
        ({"<": 1}, rb'{"\u003c":1}'),
        ({"a": 'é"\\\n\x0b\x7f'}, '{"a":"é\\"\\\\\\n\\u000b\x7f"}'.encode()),
        # the bytes of U+0085 and U+2028 inside other characters stay as they are
        ("\u0142\u0445\U00020085 \u00e2\u0080\u00a8", '"\u0142\u0445\U00020085 \u00e2\u0080\u00a8"'.encode()),
        ({"a": "x\ud800y"}, '{"a":"x\ufffdy"}'.encode()),
        ({"\udc00": ["\udfff", ("\ud800\ud800",)]}, '{"\ufffd":["\ufffd",["\ufffd\ufffd"]]}'.encode()),
        ("\ud83d\ude00", '"😀"'.encode()),
        (Point("\ud800", 1), '{"name":"\ufffd","x":1}'.encode()),
        (numpy.array([0.1, 2], dtype=numpy.float32), b"[0.1,2.0]"),
        ([numpy.int64(3), None, True, 1.5], b"[3,null,true,1.5]"),
    ],
)
def test_json_is_compact_and_escaped_for_go_clients(obj, expected):
    assert json_bytes(obj) == expected


def test_ndjson_is_one_line_by_any_rule():
    text = "".join(chr(code) for code in range(0x2100))
    data = ndjson({"a": text, "b": text})
    assert data.endswith(b"\n")
    assert len(data.decode().splitlines()) == 1
    assert json.loads(data) == {"a": text, "b": text}


def test_json_of_an_unknown_type_is_an_error():
    with pytest.raises(TypeError):
        json_bytes({"a": object()})


def test_json_response_has_ollamas_content_type():
    response = json_response({"a": 1}, 201, [("X", "y")])
    assert (response.status, response.body) == (201, b'{"a":1}')
    assert list(response.headers) == [("Content-Type", "application/json; charset=utf-8"), ("X", "y")]


def test_text_response_is_utf8():
    response = text_response("é\ud800", 404)
    assert (response.status, response.body) == (404, b"\xc3\xa9?")
    assert list(response.headers) == [("Content-Type", "text/plain; charset=utf-8")]


def test_error_response_carries_text_and_headers():
    response = error_response(HTTPError(405, "no <such> method", [("Allow", "GET")]))
    assert (response.status, response.body) == (405, b'{"error":"no \\u003csuch\\u003e method"}')
    assert list(response.headers)[1:] == [("Allow", "GET")]


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, b"200 OK"),
        (431, b"431 Request Header Fields Too Large"),
        (499, b"499 Client Closed Request"),
        (413, b"413 Content Too Large"),
        (599, b"599 Unknown"),
    ],
)
def test_head_is_bytes_of_status_line_and_fields(status, line):
    head = encode_head(status, [("X", "\xe9\ty")], b"Content-Length: 1\r\n")
    assert head == b"HTTP/1.1 " + line + b"\r\nX: \xe9\ty\r\nContent-Length: 1\r\n\r\n"


@pytest.mark.parametrize(
    "field",
    [
        ("X", "a\r\nSet-Cookie: b"),
        ("X", "a\nb"),
        ("X", "a\x00"),
        ("X", "\u2028"),
        ("X:", "a"),
        ("", "a"),
        ("X\n", "a"),
        ("content-length", "3"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "close"),
        ("Date", "now"),
    ],
)
def test_head_refuses_split_responses_and_the_connections_own_fields(field):
    with pytest.raises(ValueError, match="not allowed"):
        encode_head(200, [field], b"")


def test_headers_compare_names_without_case_and_join_repeated_fields():
    headers = Headers([("Accept", "a"), ("x", "1"), ("ACCEPT", "b")])
    assert headers.get("accept") == "a, b"
    assert headers.getlist("Accept") == ["a", "b"]
    assert (headers.get("y"), headers.get("y", "z"), headers.getlist("y")) == (None, "z", [])
    assert "X" in headers
    assert "y" not in headers
    assert list(headers) == [("accept", "a"), ("accept", "b"), ("x", "1")]


def body_of(*chunks):
    left = [*chunks]

    async def receive():
        return left.pop(0) if left else b""

    return receive


def test_read_joins_the_body():
    request = Request("POST", "/", receive=body_of(b"ab", b"c"))
    assert asyncio.run(request.read(3)) == b"abc"
    assert asyncio.run(request.read(3)) == b""


@pytest.mark.parametrize("length", [None, 4])
def test_read_refuses_more_than_its_limit(length):
    request = Request("POST", "/", content_length=length, receive=body_of(b"ab", b"cd"))
    with pytest.raises(HTTPError) as caught:
        asyncio.run(request.read(3))
    assert caught.value.status == 413


def test_loggable_text_stays_on_its_line():
    assert loggable("/a\r\nb\x1b[0m\u2028\x85é") == "/a\\r\\nb\\x1b[0m\\u2028\\x85\\xe9"
