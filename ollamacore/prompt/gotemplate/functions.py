"""The functions of Go templates, and those that Ollama adds. FunctionError is what one of them complains of."""

import operator
import re
from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import quote_plus

from ollamacore.prompt.budget import comparable, current, measure
from ollamacore.prompt.gotemplate.printf import sprintf
from ollamacore.prompt.gotemplate.values import Record, json_text, printed, truth, type_name

_NO_ORDER = "invalid type for comparison"
_HTML = str.maketrans({'"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;", "\0": "\ufffd"})
_SCRIPT = {char: f"\\u{ord(char):04X}" for char in "<>&="} | {"\\": "\\\\", "'": "\\'", '"': '\\"'}
_NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f]|[<>&=\\'\"]|[^\x00-\x7f]")


class FunctionError(Exception):
    """A function cannot do what it is asked."""


class Function(NamedTuple):
    """A function and how many arguments it takes; `texts` of them, from the first, must be strings."""

    call: Callable[..., Any]
    least: int
    most: int | None
    texts: int = 0


def _kind(value: Any) -> str:
    """The kind of a value that can be compared."""
    if value is None or isinstance(value, list | dict):
        return ""
    return type_name(value)


def _incompatible(first: Any, second: Any) -> str:
    return f"incompatible types for comparison: {type_name(first)} and {type_name(second)}"


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise FunctionError("missing argument for comparison")
    for other in others:
        if _kind(first) != _kind(other):
            if first is not None and other is not None:
                raise FunctionError(_incompatible(first, other))
        elif first is None or other is None:
            if first is other:
                return True
        elif not _kind(first):
            raise FunctionError(f"non-comparable type {printed(first)}: {type_name(first)}")
        elif comparable(first) == other:
            return True
    return False


def _not_equal(first: Any, second: Any) -> bool:
    return not _equal(first, second)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def run(first: Any, second: Any) -> bool:
        kinds = (_kind(first), _kind(second))
        if not all(kinds):
            raise FunctionError(_NO_ORDER)
        if kinds[0] != kinds[1]:
            raise FunctionError(_incompatible(first, second))
        if kinds[0] == "bool":
            raise FunctionError(_NO_ORDER)
        return compare(first, second)

    return run


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode(errors="replace"))
    if isinstance(value, list) or (isinstance(value, dict) and not isinstance(value, Record)):
        return len(value)
    if value is None:
        raise FunctionError("len of nil pointer")
    raise FunctionError(f"len of type {type_name(value)}")


def _position(index: Any, length: int) -> int:
    """An index into a list or string of a length, which may be that length itself."""
    if index is None:
        raise FunctionError("cannot index slice/array with nil")
    if isinstance(index, bool) or not isinstance(index, int):
        raise FunctionError(f"cannot index slice/array with type {type_name(index)}")
    if not 0 <= index <= length:
        raise FunctionError(f"index out of range: {index}")
    return index


def _index(value: Any, *indices: Any) -> Any:
    if value is None:
        raise FunctionError("index of untyped nil")
    for index in indices:
        if value is None:
            raise FunctionError("index of nil pointer")
        if isinstance(value, str | list):
            items: Any = value.encode(errors="replace") if isinstance(value, str) else value
            at = _position(index, len(items))
            if at == len(items):
                raise FunctionError(f"index out of range: {at}")
            value = items[at]
        elif isinstance(value, dict) and not isinstance(value, Record):
            if not isinstance(index, str):
                raise FunctionError(_wrong_key(index))
            value = value.get(index)
        else:
            raise FunctionError(f"can't index item of type {type_name(value)}")
    return value


def _wrong_key(index: Any) -> str:
    if index is None:
        return "value is nil; should be of type string"
    return f"value has type {type_name(index)}; should be string"


def _slice(value: Any, *indices: Any) -> Any:
    if value is None:
        raise FunctionError("slice of untyped nil")
    if len(indices) > 3:
        raise FunctionError(f"too many slice indexes: {len(indices)}")
    if isinstance(value, str) and len(indices) == 3:
        raise FunctionError("cannot 3-index slice a string")
    if not isinstance(value, str | list):
        raise FunctionError(f"can't slice item of type {type_name(value)}")
    items: Any = value.encode(errors="replace") if isinstance(value, str) else value
    bounds = [_position(index, len(items)) for index in indices]
    start, end = [*bounds, *(0, len(items))[len(bounds) :]][:2]
    for low, high in pairwise(bounds):
        if low > high:
            raise FunctionError(f"invalid slice index: {low} > {high}")
    found = items[start:end]
    return current().charge(found.decode(errors="replace") if isinstance(value, str) else found)


def _print(*values: Any) -> str:
    """The values, with a space between two of which neither is a string."""
    pieces: list[str] = []
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            pieces.append(" ")
        pieces.append(printed(value))
        current().room(sum(map(len, pieces[-2:])))
    return current().charge("".join(pieces))


def _print_line(*values: Any) -> str:
    pieces = [printed(value) for value in values]
    return current().charge(" ".join(pieces) + "\n")


def _text(values: tuple[Any, ...]) -> str:
    """The text that html, js and urlquery escape."""
    text = values[0] if len(values) == 1 and isinstance(values[0], str) else _print(*values)
    current().room(6 * len(text))
    return text


def _html(*values: Any) -> str:
    return current().charge(_text(values).translate(_HTML))


def _script(*values: Any) -> str:
    def escaped(match: re.Match[str]) -> str:
        char = match.group()
        if char.isprintable() and char not in _SCRIPT:
            return char
        return _SCRIPT.get(char, f"\\u{ord(char):04X}")

    return current().charge(_NOT_PRINTED.sub(escaped, _text(values)))


def _url(*values: Any) -> str:
    return current().charge(quote_plus(_text(values), safe="", errors="replace"))


def _json(value: Any) -> str:
    return current().charge(json_text(value))


def _today(*_: str) -> str:
    return date.today().isoformat()


def _yesterday(*_: str) -> str:
    return (date.today() - timedelta(days=1)).isoformat()


_TYPESCRIPT = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
    "array": "any[]",
    "object": "Record<string, any>",
}


def _typescript(value: Any) -> str:
    """The TypeScript type of a tool's parameter; "any" for what is none."""
    if not isinstance(value, Record) or "AnyOf" not in value:
        return "any"
    measure(value)
    return _type_of(value)


def _type_of(value: Any) -> str:
    if value["AnyOf"]:
        return " | ".join(map(_type_of, value["AnyOf"]))
    kinds = value["Type"] if isinstance(value["Type"], list) else [value["Type"]]
    return " | ".join(_TYPESCRIPT.get(kind, "any") for kind in kinds) or "any"


#: and, or and call are no functions in this sense (execute.py).
FUNCTIONS: dict[str, Function] = {
    "not": Function(lambda value: not truth(value), 1, 1),
    "eq": Function(_equal, 1, None),
    "ne": Function(_not_equal, 2, 2),
    "lt": Function(_ordered(operator.lt), 2, 2),
    "le": Function(_ordered(operator.le), 2, 2),
    "gt": Function(_ordered(operator.gt), 2, 2),
    "ge": Function(_ordered(operator.ge), 2, 2),
    "len": Function(_length, 1, 1),
    "index": Function(_index, 1, None),
    "slice": Function(_slice, 1, None),
    "print": Function(_print, 0, None),
    "println": Function(_print_line, 0, None),
    "printf": Function(lambda pattern, *values: sprintf(pattern, values), 1, None, texts=1),
    "html": Function(_html, 0, None),
    "js": Function(_script, 0, None),
    "urlquery": Function(_url, 0, None),
    "json": Function(_json, 1, 1),
    "currentDate": Function(_today, 0, None, texts=99),
    "yesterdayDate": Function(_yesterday, 0, None, texts=99),
    "toTypeScriptType": Function(_typescript, 1, 1),
}
