"""Responses as values, JSON as Ollama's clients expect it, and the bytes of a response head.

Owns no connection: what depends on the request (HEAD, HTTP/1.0, keep-alive) is decided in `connection`.
JSON is written by orjson and then escaped as Go's encoder does; U+0085 is escaped too, because clients that
split a stream by the rules of `str.splitlines` would break a line there.
"""

import dataclasses
import re
from collections.abc import AsyncIterator, Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import orjson

Header = tuple[str, str]

JSON_TYPE = "application/json; charset=utf-8"
TEXT_TYPE = "text/plain; charset=utf-8"

#: the standard library's phrases, brought up to RFC 9110, and Ollama's status for a client that left
REASONS = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
    499: "Client Closed Request",
}

_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
    ("\u0085".encode(), b"\\u0085"),
)
_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
#: fields that only the connection may write
_OWN_FIELDS = frozenset({"connection", "content-length", "date", "transfer-encoding"})


class HTTPError(Exception):
    """Ends a request with an error status; the text becomes the body `{"error": text}`."""

    def __init__(self, status: int, text: str, headers: Iterable[Header] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = tuple(headers)


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """A whole answer; the connection adds Content-Length."""

    status: int = 200
    body: bytes = b""
    headers: Iterable[Header] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class StreamResponse:
    """An answer of unknown length: each item of `chunks` is sent at once as one HTTP chunk.

    The head goes out with the first item, so an exception before it still gives an error status. The
    iterator is closed (`aclose`) whenever the answer ends early: client gone, server stopping, HEAD
    request. A generator that never started runs none of its body then, so what it must release is to be
    acquired inside it.
    """

    chunks: AsyncIterator[bytes]
    status: int = 200
    headers: Iterable[Header] = ()


def json_bytes(obj: object) -> bytes:
    """Compact JSON with Go's escapes; takes numpy arrays and dataclasses; lone surrogates become U+FFFD."""
    try:
        data = orjson.dumps(obj, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:  # orjson's text for lone surrogates names UTF-8; else it is the caller's bug
        if "UTF-8" not in str(error):
            raise
        data = orjson.dumps(_without_surrogates(obj), option=orjson.OPT_SERIALIZE_NUMPY)
    for raw, escaped in _ESCAPES:
        data = data.replace(raw, escaped)
    return data


def ndjson(obj: object) -> bytes:
    """One line of a stream: JSON and a line feed."""
    return json_bytes(obj) + b"\n"


def json_response(obj: object, status: int = 200, headers: Iterable[Header] = ()) -> Response:
    """A JSON answer; `headers` come after Content-Type."""
    return Response(status, json_bytes(obj), (("Content-Type", JSON_TYPE), *headers))


def text_response(text: str, status: int = 200, headers: Iterable[Header] = ()) -> Response:
    """A plain text answer; `headers` come after Content-Type."""
    return Response(status, text.encode("utf-8", "replace"), (("Content-Type", TEXT_TYPE), *headers))


def error_response(error: HTTPError) -> Response:
    """The answer to a request that failed with `error`."""
    return json_response({"error": error.text}, error.status, error.headers)


def encode_head(status: int, headers: Iterable[Header], own: bytes) -> bytes:
    """A whole head: `headers` may hold no control characters and no field that is in `own`, the connection's lines."""
    return b"%b%b\r\n" % (_head_start(status, tuple(headers)), own)


@lru_cache(maxsize=64)
def _head_start(status: int, headers: tuple[Header, ...]) -> bytes:
    """Status line and an application's fields; many answers have the same ones."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}\r\n"]
    lines += [_field_line(name, value) for name, value in headers]
    return "".join(lines).encode("latin-1")


@lru_cache(maxsize=64)
def _field_line(name: str, value: str) -> str:
    """A field of an application's choice, checked; most are the same for every answer."""
    well_formed = _FIELD_NAME.fullmatch(name) and _FIELD_VALUE.fullmatch(value)
    if not well_formed or name.lower() in _OWN_FIELDS:
        raise ValueError(f"response field not allowed: {name!r}: {value!r}")
    return f"{name}: {value}\r\n"


def _without_surrogates(obj: Any) -> Any:
    """A copy of `obj` in which surrogate pairs are joined and lone surrogates replaced."""
    if isinstance(obj, str):
        return obj.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(obj, dict):
        return {_without_surrogates(key): _without_surrogates(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_without_surrogates(item) for item in obj]
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {f.name: _without_surrogates(getattr(obj, f.name)) for f in dataclasses.fields(obj)}
    return obj
