"""Calls that are JSON: objects with a name and arguments, alone, in lists, or behind the name of their tool."""

import json
import re
from typing import Any

from ollamacore.prompt.tools.calls import (
    Call,
    IncompleteError,
    MalformedError,
    OpenStringError,
    Reader,
    Schemas,
    call_of,
    decode_prefix,
)

_NAMES = ("name", "tool_name")
_ARGUMENTS = ("arguments", "parameters")
#: what stands between two calls
BETWEEN = " \t\r\n,;"
#: the first key of an object, alone or in a list
_FIRST_KEY = re.compile(r'\s*(?:\[\s*)?\{+\s*"((?:[^"\\]|\\.)*)"')
#: what may still become such a beginning
_BEGINNING = re.compile(r'\s*(?:\[\s*)?(?:\{+\s*(?:"(?:[^"\\]|\\.)*\\?)?)?\Z')
#: braces that are written twice, as templates have shown them to Qwen 2.5
_DOUBLED = re.compile(r'\s*(\{+)(?=\{\s*")')
_CALL_KEYS = frozenset((*_NAMES, *_ARGUMENTS, "function", "type", "id", "tool_call_id"))
#: tags within a section of calls
DEEPSEEK_CALL, DEEPSEEK_SEPARATOR, DEEPSEEK_END = (
    f"<\uff5ctool\u2581{name}\uff5c>" for name in ("call\u2581begin", "sep", "call\u2581end")
)
_MISTRAL = re.compile(r"\s*([\w.\-/:]+?)\s*(?:\[CALL_ID\][^\[{]*)?(?:\[ARGS\]\s*)?(?=\{)")


def read_objects(text: str, schemas: Schemas) -> tuple[list[Call], int]:
    """The calls that a text begins with."""
    return _read_all(read_object, text, schemas)


def read_all_named(text: str, schemas: Schemas) -> tuple[list[Call], int]:
    """The calls in any words that a text begins with."""
    return _read_all(read_named, text, schemas)


def _read_all(read: Reader, text: str, schemas: Schemas) -> tuple[list[Call], int]:
    """One call after the other, up to text that is none."""
    calls: list[Call] = []
    end = 0
    while text[end:].strip(BETWEEN):
        rest = text[end:].lstrip(BETWEEN)
        try:
            found, size = read(rest, schemas)
        except OpenStringError:
            raise
        except ValueError:
            break
        calls += found
        end = len(text) - len(rest) + size
    if not calls:
        raise MalformedError("no call")
    return calls, end


def read_object(text: str, schemas: Schemas) -> tuple[list[Call], int]:
    """The calls of one JSON value, an object or a list of them, and where it ends."""
    value, end = _value(text, 0)
    values = value if isinstance(value, list) else [value]
    if not values:
        raise MalformedError("no call")
    return [_call(item) for item in values], end


def read_known_object(text: str, schemas: Schemas) -> tuple[list[Call], int]:
    """The same for answers that may be JSON for another reason: only calls of tools that there are count."""
    first = _FIRST_KEY.match(text)
    if not (first and (first[1] in _CALL_KEYS or first[1] in schemas)) and (first or not _BEGINNING.match(text)):
        raise MalformedError("an object that is no call")
    value, end = _value(text, 0)
    values = value if isinstance(value, list) else [value]
    calls = [_known(item, schemas) for item in values]
    if not calls:
        raise MalformedError("no call")
    return calls, end


def read_named(text: str, schemas: Schemas) -> tuple[list[Call], int]:
    """A call in any words: JSON, or the name of a tool and, somewhere behind it, an object."""
    if text.lstrip()[:1] in ("{", "["):
        return read_known_object(text, schemas)
    places = [(at, -len(name), name) for name in schemas if (at := text.find(name)) >= 0]
    brace = text.find("{")
    if not places or brace < 0:
        raise IncompleteError("no name yet" if brace < 0 else "no tool of this name")
    at, _, name = min(places)
    brace = text.find("{", at)
    if brace < 0:
        raise IncompleteError("no arguments yet")
    value, end = _value(text, brace)
    return [_inner(name, value)], end


def read_mistral(text: str, schemas: Schemas) -> tuple[list[Call], int]:
    """A list of objects, or a name, perhaps an id, and the arguments."""
    if text.lstrip()[:1] in ("[", "{") and not text.lstrip().startswith(("[ARGS]", "[CALL_ID]")):
        return read_object(text, schemas)
    if "{" not in text:
        raise IncompleteError("no arguments yet")
    head = _MISTRAL.match(text)
    if head is None:
        raise MalformedError("no name")
    value, end = _value(text, head.end())
    return [call_of(head[1], value)], end


def read_deepseek(text: str, schemas: Schemas) -> tuple[list[Call], int]:
    """Calls of a whole section: name, separator, arguments, in the order of either version."""
    parts = re.split("|".join((DEEPSEEK_CALL, DEEPSEEK_END)), text)
    calls = [_deepseek(part) for part in parts if part.strip()]
    if not calls:
        raise MalformedError("nothing")
    return calls, len(text)


def _deepseek(part: str) -> Call:
    head, separator, tail = part.partition(DEEPSEEK_SEPARATOR)
    brace = tail.find("{")
    if not separator or brace < 0:
        raise MalformedError("no arguments")
    name = tail[:brace].replace("```json", "").strip() or head
    value, _ = _value(tail, brace)
    return call_of(name, value)


def _value(text: str, start: int) -> tuple[Any, int]:
    """A JSON value. One that does not decode may lack its end; where it ends within a string, it does."""
    doubled = _DOUBLED.match(text, start)
    try:
        if doubled is None:
            return decode_prefix(text, start)
        value, end = decode_prefix(text, doubled.end())
    except json.JSONDecodeError as error:
        kind = OpenStringError if error.msg.startswith("Unterminated string") else IncompleteError
        raise kind(error.msg) from None
    wanted = "}" * len(doubled[1])
    if not text.startswith(wanted, end) and wanted.startswith(text[end:]):
        raise IncompleteError("a brace is missing")
    return value, end + len(wanted) * text.startswith(wanted, end)


def _call(value: object) -> Call:
    """An object with name and arguments."""
    if not isinstance(value, dict):
        raise MalformedError("no object")
    inner = value.get("function")
    if isinstance(inner, dict):
        value = inner
    name = next((value[key] for key in _NAMES if key in value), inner)
    return call_of(name, next((value[key] for key in _ARGUMENTS if key in value), None))


def _known(value: object, schemas: Schemas) -> Call:
    """An object with name and arguments, or with the arguments under the name of the tool."""
    if isinstance(value, dict):
        for name in schemas:
            if isinstance(value.get(name), dict) and not any(key in value for key in _NAMES):
                return call_of(name, value[name])
    call = _call(value)
    if call.name not in schemas:
        raise MalformedError("no tool of this name")
    return call


def _inner(name: str, value: Any) -> Call:
    """A call whose name stood before the object."""
    for key in (*_ARGUMENTS, name):
        if isinstance(value, dict) and isinstance(value.get(key), dict | str):
            return call_of(name, value[key])
    return call_of(name, value)
