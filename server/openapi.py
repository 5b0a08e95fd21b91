"""The OpenAPI document of a path table, made from the types that parse requests and shape answers."""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from ollamacore import SamplingOptions
from server.answers import ErrorAnswer
from server.context import OLLAMA_VERSION
from server.route import Route, Table
from server.schema import Message, body_schema

#: fields of SamplingOptions that requests set beside `options`
_NO_OPTIONS = frozenset(("shift", "logprobs", "top_logprobs"))
_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}


def document(table: Table) -> dict[str, Any]:
    """The table as an OpenAPI 3.1 document."""
    schemas: dict[str, Any] = {"Message": body_schema(Message), "Options": _options()}
    paths = {
        path: {method.lower(): _operation(method, path, route, schemas) for method, route in methods.items()}
        for path, methods in table.items()
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ollamacore",
            "summary": "Ollama's API on an engine of its own",
            "version": OLLAMA_VERSION,
        },
        "security": [{}, {"key": []}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _options() -> dict[str, Any]:
    """The sampling options that a request may set."""
    hints = get_type_hints(SamplingOptions)
    properties = {name: _schema(hint, {}) for name, hint in hints.items() if name not in _NO_OPTIONS}
    return {"type": "object", "description": "Options of a run; unknown ones are ignored", "properties": properties}


def _operation(method: str, path: str, route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": (route.handler.__doc__ or "").strip().split("\n")[0]}
    if "{" in path:
        name = path[path.index("{") + 1 : -1]
        operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]
    if route.takes is not None:
        schemas[route.takes.__name__] = body_schema(route.takes)
        operation["requestBody"] = _content("application/json", _reference(route.takes.__name__)) | {"required": True}
    elif route.uploads:
        operation["requestBody"] = _content("application/octet-stream", {})
    if method == "HEAD":
        operation["responses"] = {str(status): {"description": "Yes"} for status in route.status}
        operation["responses"]["default"] = {"description": "No"}
        return operation
    success = _success(route, schemas)
    failure = {"description": "What went wrong", **_content("application/json", _schema(ErrorAnswer, schemas))}
    operation["responses"] = {**{str(status): success for status in route.status}, "default": failure}
    return operation


def _success(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    if route.gives is None:
        return {"description": "Done"}
    if route.gives is str:
        return {"description": "Text", **_content("text/plain", {"type": "string"})}
    schema = _schema(route.gives, schemas)
    answer: dict[str, Any] = {"description": "The answer", **_content("application/json", schema)}
    if route.streams:
        answer["description"] = "Records, one a line, or with `stream: false` one answer"
        answer["content"] |= {"application/x-ndjson": {"schema": {"type": "string"}}}
    return answer


def _content(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {kind: {"schema": schema}}}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schema(hint: Any, schemas: dict[str, Any]) -> dict[str, Any]:  # noqa: C901  one line a kind of type
    """A type of an answer as JSON Schema; TypedDicts are gathered in `schemas`."""
    if hint is Any:
        return {}
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    if is_typeddict(hint):
        if hint.__name__ not in schemas:
            schemas[hint.__name__] = {}  # a type may hold itself
            schemas[hint.__name__] = _typed_dict(hint, schemas)
        return _reference(hint.__name__)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is NotRequired:
        return _schema(arguments[0], schemas)
    if origin is Annotated:
        return _schema(arguments[0], schemas) | dict(arguments[1:])
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (list, tuple):
        return {"type": "array", "items": _schema(arguments[0], schemas)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], schemas)}
    if origin in (Union, UnionType):
        return {"anyOf": [_schema(argument, schemas) for argument in arguments]}
    raise TypeError(f"{hint} has no JSON Schema")


def _typed_dict(cls: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {
        "type": "object",
        "description": (cls.__doc__ or "").strip(),
        "properties": {name: _schema(hint, schemas) for name, hint in hints.items()},
        "required": sorted(cls.__required_keys__),
        "additionalProperties": False,
    }

