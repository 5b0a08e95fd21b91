"""Request bodies as typed objects, read with the leniency of Go's JSON decoder.

Keys match in any case, ``null`` is the same as absent, unknown keys are ignored. A value of the wrong type is
a 400 with the text of Go's decoder, because clients and their users search the web for exactly that text.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from server.errors import ApiError
from server.gojson import JSONError, loads
from server.times import DurationError, keep_alive_of

T = TypeVar("T")
_Reader = Callable[[Any, str], Any]

_MAX_INT = 2**63 - 1
_THINK_LEVELS = ("high", "medium", "low", "max")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")


def parse(cls: type[T], body: bytes) -> T:
    """Decode a request body into one of the dataclasses below, or raise the 400 that says why not."""
    try:
        value = loads(body)
    except EOFError:
        raise ApiError(400, "missing request body") from None
    except JSONError as error:
        raise ApiError(400, str(error)) from None
    if value is None:
        return cls()
    if not isinstance(value, dict):
        kind = _kind(value)
        raise ApiError(400, f"json: cannot unmarshal {kind} into Go value of type api.{cls.__name__}")
    return _struct(cls, value, cls.__name__)


def _struct(cls: type[T], value: Mapping[str, Any], path: str) -> T:
    """Fill a dataclass from a JSON object; of two keys that differ only in case the later wins."""
    readers: dict[str, tuple[str, _Reader]] = {}
    for item in fields(cls):  # type: ignore[arg-type]
        for key in item.metadata["keys"]:
            readers[key] = (item.name, item.metadata["read"])
    found: dict[str, Any] = {}
    for key, content in value.items():
        known = readers.get(key) or readers.get(key.lower())
        if known is None or content is None:
            continue
        name, read = known
        found[name] = read(content, f"{path}.{key.lower()}")
    return cls(**found)


def _kind(value: object) -> str:
    """What Go calls a JSON value in an error."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "array"
    return "object" if isinstance(value, dict) else "number"


def _mismatch(value: object, path: str, go_type: str) -> ApiError:
    """The error for a value of the wrong type."""
    kind = _kind(value)
    if kind == "number" and go_type == "int":
        kind = f"number {value}"
    return ApiError(400, f"json: cannot unmarshal {kind} into Go struct field {path} of type {go_type}")


def _string(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise _mismatch(value, path, "string")
    return value


def _bool(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise _mismatch(value, path, "bool")
    return value


def _int(value: object, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -_MAX_INT <= value <= _MAX_INT:
        raise _mismatch(value, path, "int")
    return value


def _list(value: object, path: str, go_type: str, item: _Reader) -> tuple[Any, ...]:
    """A JSON array; a ``null`` inside becomes the reader's idea of nothing, as in Go, and is left out."""
    if not isinstance(value, list):
        raise _mismatch(value, path, go_type)
    return tuple(item(element, path) for element in value if element is not None)


def _ints(value: object, path: str) -> tuple[int, ...]:
    return _list(value, path, "[]int", _int)


def _map(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _mismatch(value, path, "map[string]interface {}")
    return value


def _options(value: object, path: str) -> dict[str, Any]:
    return _map(value, path)


def _string_map(value: object, path: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _mismatch(value, path, "map[string]string")
    return {key: _string(item, path) for key, item in value.items() if item is not None}


def _any(value: object, path: str) -> object:
    return value


def _input(value: object, path: str) -> object:
    return value


def _image(value: object, path: str) -> bytes:
    """One base64 image or sound, decoded."""
    data = _string(value, path).encode("utf-8", "replace")
    text = data.replace(b"\r", b"").replace(b"\n", b"")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        body = text.rstrip(b"=")
        bad = _NOT_BASE64.search(body)
        at = bad.start() if bad else len(body)
        raise ApiError(400, f"illegal base64 data at input byte {at}") from None


def _images(value: object, path: str) -> tuple[bytes, ...]:
    return _list(value, path, "[]api.ImageData", _image)


def _keep_alive(value: object, path: str) -> int:
    try:
        return keep_alive_of(value)
    except DurationError as error:
        raise ApiError(400, str(error)) from None


def _think(value: object, path: str) -> bool | str:
    allowed = '"high", "medium", "low", "max", true, or false'
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise ApiError(400, f"think must be a boolean or string ({allowed})")
    if value not in _THINK_LEVELS:
        raise ApiError(400, f'invalid think value: "{value}" (must be {allowed})')
    return value


def _tool_call(value: object, path: str) -> dict[str, Any]:
    """One earlier tool call; its arguments must be an object, as templates read them by key."""
    call = _object(value, path, "api.ToolCall")
    function = _object(call.get("function") or {}, f"{path}.function", "api.ToolCallFunction")
    name = _string(function.get("name") or "", f"{path}.function.name")
    arguments = function.get("arguments") or {}
    if not isinstance(arguments, dict):
        raise _mismatch(arguments, f"{path}.function.arguments", "map[string]interface {}")
    read: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
    if isinstance(call.get("id"), str):
        read = {"id": call["id"], **read}
    return read


def _tool(value: object, path: str) -> dict[str, Any]:
    """One tool definition, passed to templates as the client wrote it."""
    tool = _object(value, path, "api.Tool")
    function = _object(tool.get("function") or {}, f"{path}.function", "api.ToolFunction")
    _string(function.get("name") or "", f"{path}.function.name")
    return {**tool, "type": tool.get("type") or "function", "function": function}


def _object(value: object, path: str, go_type: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _mismatch(value, path, go_type)
    return value


def _tool_calls(value: object, path: str) -> tuple[dict[str, Any], ...]:
    return _list(value, path, "[]api.ToolCall", _tool_call)


def _tools(value: object, path: str) -> tuple[dict[str, Any], ...]:
    return _list(value, path, "api.Tools", _tool)


def _role(value: object, path: str) -> str:
    return _string(value, path).lower()


def _strings(value: object, path: str) -> tuple[str, ...]:
    """A string or an array of strings, as licences come."""
    return (value,) if isinstance(value, str) else _list(value, path, "[]string", _string)


def _documents(value: object, path: str) -> tuple[str, ...]:
    """An array of strings; a ``null`` inside is an empty one, so that indices stay those of the client."""
    if not isinstance(value, list):
        raise _mismatch(value, path, "[]string")
    return tuple("" if item is None else _string(item, path) for item in value)


#: what a reader accepts, as JSON Schema; `null` is the same as absent everywhere and is not mentioned
_ACCEPTS: dict[_Reader, dict[str, Any]] = {
    _string: {"type": "string"},
    _role: {"type": "string"},
    _bool: {"type": "boolean"},
    _int: {"type": "integer", "minimum": -_MAX_INT, "maximum": _MAX_INT},
    _ints: {"type": "array", "items": {"type": "integer", "minimum": -_MAX_INT, "maximum": _MAX_INT}},
    _map: {"type": "object"},
    _options: {"$ref": "#/components/schemas/Options"},
    _string_map: {"type": "object", "additionalProperties": {"type": "string"}},
    _any: {},
    _input: {"type": ["string", "array"], "items": {"type": "string"}},
    _images: {"type": "array", "items": {"type": "string", "contentEncoding": "base64"}},
    _keep_alive: {"type": ["number", "string"], "description": "seconds, or a duration such as 5m; negative: for ever"},
    _think: {"enum": [True, False, *_THINK_LEVELS]},
    _documents: {"type": "array", "items": {"type": "string"}},
    _strings: {"type": ["string", "array"], "items": {"type": "string"}},
    _tools: {"type": "array", "items": {"type": "object"}},
    _tool_calls: {"type": "array", "items": {"type": "object"}},
}


def _key(read: _Reader, *keys: str, default: Any = None) -> Any:
    """A dataclass field that is read from one of these JSON keys."""
    return field(default=default, metadata={"keys": keys, "read": read})


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: str = _key(_role, "role", default="")
    content: str = _key(_string, "content", default="")
    thinking: str = _key(_string, "thinking", default="")
    images: tuple[bytes, ...] = _key(_images, "images", default=())
    tool_calls: tuple[dict[str, Any], ...] = _key(_tool_calls, "tool_calls", default=())
    tool_name: str = _key(_string, "tool_name", default="")
    tool_call_id: str = _key(_string, "tool_call_id", default="")

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates see it: without the parts that are absent."""
        shown: dict[str, Any] = {"role": self.role, "content": self.content}
        for name in ("thinking", "tool_name", "tool_call_id"):
            if getattr(self, name):
                shown[name] = getattr(self, name)
        if self.thinking:
            shown["reasoning_content"] = self.thinking
        if self.tool_name:
            shown["name"] = self.tool_name
        if self.tool_calls:
            shown["tool_calls"] = [{"type": "function", **call} for call in self.tool_calls]
        return shown

    def for_store(self) -> dict[str, Any]:
        """The message as a model keeps it."""
        return {"role": self.role, "content": self.content}


def _messages(value: object, path: str) -> tuple[Message, ...]:
    def read(item: object, inside: str) -> Message:
        return _struct(Message, _object(item, inside, "api.Message"), inside)

    return _list(value, path, "[]api.Message", read)


_ACCEPTS[_messages] = {"type": "array", "items": {"$ref": "#/components/schemas/Message"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What generate and chat have in common."""

    model: str = _key(_string, "model", default="")
    stream: bool = _key(_bool, "stream", default=True)
    format: object = _key(_any, "format")
    keep_alive_ns: int | None = _key(_keep_alive, "keep_alive")
    options: Mapping[str, Any] | None = _key(_options, "options")
    think: bool | str | None = _key(_think, "think")
    truncate: bool | None = _key(_bool, "truncate")
    shift: bool | None = _key(_bool, "shift")
    debug_render_only: bool = _key(_bool, "_debug_render_only", default=False)
    logprobs: bool = _key(_bool, "logprobs", default=False)
    top_logprobs: int = _key(_int, "top_logprobs", default=0)
    progress: bool = _key(_bool, "progress", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest(RunRequest):
    """POST /api/generate."""

    prompt: str = _key(_string, "prompt", default="")
    suffix: str = _key(_string, "suffix", default="")
    system: str = _key(_string, "system", default="")
    template: str = _key(_string, "template", default="")
    context: tuple[int, ...] = _key(_ints, "context", default=())
    raw: bool = _key(_bool, "raw", default=False)
    images: tuple[bytes, ...] = _key(_images, "images", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest(RunRequest):
    """POST /api/chat."""

    messages: tuple[Message, ...] = _key(_messages, "messages", default=())
    tools: tuple[dict[str, Any], ...] = _key(_tools, "tools", default=())


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """POST /api/embed."""

    model: str = _key(_string, "model", default="")
    input: object = _key(_input, "input")
    truncate: bool | None = _key(_bool, "truncate")
    dimensions: int = _key(_int, "dimensions", default=0)
    keep_alive_ns: int | None = _key(_keep_alive, "keep_alive")
    options: Mapping[str, Any] | None = _key(_options, "options")


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """POST /api/embeddings."""

    model: str = _key(_string, "model", default="")
    prompt: str = _key(_string, "prompt", default="")
    keep_alive_ns: int | None = _key(_keep_alive, "keep_alive")
    options: Mapping[str, Any] | None = _key(_options, "options")


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """POST /api/tokenize."""

    model: str = _key(_string, "model", default="")
    content: str = _key(_string, "content", default="")
    messages: tuple[Message, ...] = _key(_messages, "messages", default=())
    tools: tuple[dict[str, Any], ...] = _key(_tools, "tools", default=())
    think: bool | str | None = _key(_think, "think")
    add_special: bool = _key(_bool, "add_special", default=False)
    keep_alive_ns: int | None = _key(_keep_alive, "keep_alive")
    options: Mapping[str, Any] | None = _key(_options, "options")


@dataclass(frozen=True, slots=True)
class DetokenizeRequest:
    """POST /api/detokenize."""

    model: str = _key(_string, "model", default="")
    tokens: tuple[int, ...] = _key(_ints, "tokens", default=())
    keep_alive_ns: int | None = _key(_keep_alive, "keep_alive")
    options: Mapping[str, Any] | None = _key(_options, "options")


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """POST /api/rerank."""

    model: str = _key(_string, "model", default="")
    query: str = _key(_string, "query", default="")
    documents: tuple[str, ...] = _key(_documents, "documents", default=())
    top_n: int = _key(_int, "top_n", default=0)
    return_documents: bool = _key(_bool, "return_documents", default=False)
    keep_alive_ns: int | None = _key(_keep_alive, "keep_alive")
    options: Mapping[str, Any] | None = _key(_options, "options")


@dataclass(frozen=True, slots=True)
class ShowRequest:
    """POST /api/show."""

    model: str = _key(_string, "model", default="")
    name: str = _key(_string, "name", default="")
    verbose: bool = _key(_bool, "verbose", default=False)
    system: str = _key(_string, "system", default="")
    options: Mapping[str, Any] | None = _key(_options, "options")


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """POST /api/copy."""

    source: str = _key(_string, "source", default="")
    destination: str = _key(_string, "destination", default="")


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    """DELETE /api/delete."""

    model: str = _key(_string, "model", default="")
    name: str = _key(_string, "name", default="")


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """POST /api/create."""

    model: str = _key(_string, "model", default="")
    name: str = _key(_string, "name", default="")
    stream: bool = _key(_bool, "stream", default=True)
    from_: str = _key(_string, "from", default="")
    files: Mapping[str, str] | None = _key(_string_map, "files")
    adapters: Mapping[str, str] | None = _key(_string_map, "adapters")
    draft_files: Mapping[str, str] | None = _key(_string_map, "draft_files")
    draft_quantize: str = _key(_string, "draft_quantize", default="")
    quantize: str = _key(_string, "quantize", "quantization", default="")
    template: str = _key(_string, "template", default="")
    system: str = _key(_string, "system", default="")
    license: tuple[str, ...] = _key(_strings, "license", default=())
    parameters: Mapping[str, Any] | None = _key(_map, "parameters")
    messages: tuple[Message, ...] = _key(_messages, "messages", default=())
    renderer: str = _key(_string, "renderer", default="")
    parser: str = _key(_string, "parser", default="")
    requires: str = _key(_string, "requires", default="")
    remote_host: str = _key(_string, "remote_host", default="")
    info: Mapping[str, Any] | None = _key(_map, "info")


def body_schema(cls: type) -> dict[str, Any]:
    """A request dataclass as JSON Schema; other dataclasses stand in it as `#/components/schemas/<name>`."""
    properties: dict[str, Any] = {}
    for item in fields(cls):
        schema = {**_ACCEPTS[item.metadata["read"]]}
        if item.default not in (None, "", ()):
            schema["default"] = item.default
        properties |= dict.fromkeys(item.metadata["keys"], schema)
    return {"type": "object", "description": (cls.__doc__ or "").strip(), "properties": properties}
