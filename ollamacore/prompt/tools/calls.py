"""A call, the schemas of the tools that may be called, and values as they may leave in JSON."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

#: Lists and objects in each other.
MAX_DEPTH = 64
_SURROGATE = re.compile("[\ud800-\udfff]")
#: JSON's integers as far as every reader has them; larger numbers are floats, as in Go.
_MAX_INT = 2**63 - 1

#: name of a tool -> its parameters -> the JSON schema of each
Schemas: TypeAlias = Mapping[str, Mapping[str, Any]]


class IncompleteError(ValueError):
    """A call that more text may complete."""


class OpenStringError(IncompleteError):
    """A call that ends within a string: what looks like its closing tag may be a part of that."""


class MalformedError(ValueError):
    """Text that is no call, whatever follows."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a model wants to have called."""

    name: str
    arguments: dict[str, Any]


#: Reads the calls that a text begins with, and says where they end; IncompleteError, or another ValueError.
Reader: TypeAlias = Callable[[str, Schemas], tuple[list[Call], int]]


def tool_schemas(tools: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The parameters of each tool, by its name; what a client left out or wrote otherwise has none."""
    found: dict[str, Mapping[str, Any]] = {}
    for tool in tools:
        function = _mapping(tool.get("function"))
        name = function.get("name")
        if isinstance(name, str) and name:
            found[name] = _mapping(_mapping(function.get("parameters")).get("properties"))
    return found


def call_of(name: object, arguments: object) -> Call:
    """A call whose parts have been read; MalformedError if they are none."""
    if not isinstance(name, str) or not name.strip():
        raise MalformedError("a call without a name")
    if isinstance(arguments, str):
        arguments = decoded(arguments) if arguments.strip() else {}
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise MalformedError("arguments that are no object")
    return Call(_plain(name.strip()), clean(arguments))


def decoded(text: str) -> Any:
    """A JSON text as a value; ValueError."""
    value, end = decode_prefix(text)
    if text[end:].strip():
        raise MalformedError("more than one value")
    return value


def decode_prefix(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at `start` or behind white space, and where it ends; ValueError."""
    start += len(text[start:]) - len(text[start:].lstrip())
    try:
        return _DECODER.raw_decode(text, start)
    except RecursionError:
        raise MalformedError("nested too deeply") from None


def typed(text: str, schema: object) -> Any:
    """An argument that is written without quotes, as what its schema says; text where it can be nothing else."""
    kinds = _kinds(schema)
    if kinds != {"string"} and text.strip().lower() in ("null", "none" if "null" in kinds else "null"):
        return None
    for kind in ("boolean", "integer", "number", "array", "object"):
        if kind in kinds:
            value = _as(kind, text)
            if value is not None:
                return value
    return text


def clean(value: Any, depth: int = 0) -> Any:
    """A decoded value without what cannot be written as JSON: lone surrogates become U+FFFD. MalformedError for
    what is nested too deeply and for numbers that are none."""
    if depth > MAX_DEPTH:
        raise MalformedError("nested too deeply")
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, dict):
        return {_plain(key): clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [clean(item, depth + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise MalformedError("a number that is none")
    return value


def integer(text: str) -> int | float:
    """An integer, as a float where it is too large for most readers; ValueError."""
    number = int(text)
    return number if -_MAX_INT <= number <= _MAX_INT else float(text)


def _plain(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _kinds(schema: object) -> set[str]:
    """The types that a schema allows."""
    given = _mapping(schema)
    kind = given.get("type")
    found = {kind} if isinstance(kind, str) else {item for item in kind or () if isinstance(item, str)}
    for name in ("anyOf", "oneOf"):
        options = given.get(name)
        if isinstance(options, list | tuple):
            found = found.union(*map(_kinds, options))
    return found


def _as(kind: str, text: str) -> Any:
    """A text as a value of this type, None if it is none."""
    plain = text.strip()
    if kind == "boolean":
        return {"true": True, "false": False}.get(plain.lower())
    try:
        value = clean(decoded(plain))
    except ValueError:
        return None
    if isinstance(value, bool):
        return None
    wanted: dict[str, tuple[type, ...]]
    wanted = {"integer": (int,), "number": (int, float), "array": (list,), "object": (dict,)}
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return integer(str(int(value)))
    return value if isinstance(value, wanted[kind]) else None


def _refuse(text: str) -> None:
    raise MalformedError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(strict=False, parse_int=integer, parse_constant=_refuse)
