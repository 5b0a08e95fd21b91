"""Go's Printf for the values of templates. A verb that does not fit its value prints as Go's error does."""

import re
from collections.abc import Sequence
from typing import Any

from ollamacore.prompt.budget import BudgetError, current, measure
from ollamacore.prompt.gotemplate.lexer import quoted
from ollamacore.prompt.gotemplate.values import JsonList, JsonMap, Record, printed, type_name

MAX_WIDTH = 4096
_VERB = re.compile(r"%([+\-# 0]*)(\*|[0-9]+)?(\.(?:\*|[0-9]+)?)?(.?)", re.S)
_BASES = {"d": "d", "x": "x", "X": "X", "o": "o", "b": "b", "v": "d"}


def sprintf(pattern: str, arguments: Sequence[Any]) -> str:
    """The text of a format with its arguments."""
    size = len(pattern) + sum(_size(value) for value in arguments)
    current().room(size)
    pieces: list[str] = []
    rest = list(arguments)
    at = 0
    for match in _VERB.finditer(pattern):
        pieces.append(pattern[at : match.start()])
        piece = _formatted(match, rest)
        current().spend(len(piece))
        pieces.append(piece)
        at = match.end()
    pieces.append(pattern[at:])
    if rest:
        extra = ", ".join(f"{type_name(v)}={printed(v)}" if v is not None else "<nil>" for v in rest)
        pieces.append(f"%!(EXTRA {extra})")
    return current().charge("".join(pieces))


def _size(value: Any) -> int:
    """Characters that a value may come to."""
    weight = measure((value,))
    return 10 * weight.characters + 8 * weight.nodes


def _formatted(match: re.Match[str], rest: list[Any]) -> str:
    flags, width_text, precision_text, verb = match.groups()
    if verb == "%":
        return "%"
    width = _count(width_text, rest)
    precision = None if precision_text is None else _count(precision_text[1:], rest) or 0
    if not verb:
        return "%!(NOVERB)"
    if not rest:
        return f"%!{verb}(MISSING)"
    value = rest.pop(0)
    body, numeric = _body(verb, value, flags, precision)
    if body is None:
        shown = _padded(printed(value), width or 0, flags, numeric)
        return f"%!{verb}({type_name(value)}={shown})"
    return _padded(body, width or 0, flags, numeric)


def _count(text: str | None, rest: list[Any]) -> int | None:
    """A width or precision, perhaps the next argument."""
    if not text:
        return None
    found = rest.pop(0) if text == "*" and rest else text
    if text == "*" and (isinstance(found, bool) or not isinstance(found, int)):
        return None
    count = int(found) if len(str(found)) < 6 else MAX_WIDTH + 1
    if abs(count) > MAX_WIDTH:
        raise BudgetError(f"the template asks for a width of more than {MAX_WIDTH}")
    return count


def _padded(body: str, width: int, flags: str, numeric: bool) -> str:
    missing = abs(width) - len(body)
    if missing <= 0:
        return body
    if "-" in flags or width < 0:
        return body + " " * missing
    if "0" in flags:
        sign = body[:1] if numeric and body[:1] in "+-" else ""
        return sign + "0" * missing + body[len(sign) :]
    return " " * missing + body


def _body(verb: str, value: Any, flags: str, precision: int | None) -> tuple[str | None, bool]:
    """A value without padding, None if the verb does not fit it; and whether it is a number."""
    if verb == "T":
        return (type_name(value) if value is not None else "<nil>"), False
    if value is None or (isinstance(value, list | dict) and verb == "v"):
        return (printed(value) if verb == "v" else f"%!{verb}(<nil>)"), False
    if isinstance(value, list | dict) and not isinstance(value, Record | JsonMap | JsonList):
        return _each(verb, value, flags, precision), False
    return _of_kind(verb, value, flags, precision), isinstance(value, int | float)


def _each(verb: str, value: Any, flags: str, precision: int | None) -> str:
    """A list or map whose parts are formatted one by one."""

    def part(inner: Any) -> str:
        body = "<nil>" if inner is None else _body(verb, inner, flags, precision)[0]
        return f"%!{verb}({type_name(inner)}={printed(inner)})" if body is None else body

    if isinstance(value, list):
        return "[" + " ".join(map(part, value)) + "]"
    return "map[" + " ".join(f"{part(key)}:{part(value[key])}" for key in sorted(value)) + "]"


def _of_kind(verb: str, value: Any, flags: str, precision: int | None) -> str | None:
    if isinstance(value, bool):
        return printed(value) if verb in "tv" else None
    if isinstance(value, int):
        return _integer(verb, value, flags)
    if isinstance(value, float):
        return _float(verb, value, flags, precision)
    if isinstance(value, str):
        return _string(verb, value, flags, precision)
    return _string(verb, printed(value), flags, precision)


def _integer(verb: str, value: int, flags: str) -> str | None:
    plus = "+" if "+" in flags and value >= 0 else " " if " " in flags and value >= 0 else ""
    if verb in _BASES:
        prefix = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(verb, "") if "#" in flags else ""
        return ("-" if value < 0 else plus) + prefix + format(abs(value), _BASES[verb])
    valid = 0 <= value < 0x110000 and not 0xD800 <= value < 0xE000
    if verb == "c":
        return chr(value) if valid else "\ufffd"
    if verb == "U":
        return f"U+{value:04X}"
    if verb == "q":
        char = chr(value) if valid else "\ufffd"
        return "'" + ("\\'" if char == "'" else '"' if char == '"' else quoted(char)[1:-1]) + "'"
    return None


def _float(verb: str, value: float, flags: str, precision: int | None) -> str | None:
    plus = "+" if "+" in flags and value >= 0 else ""
    if verb in "vgG" and precision is None:
        text = printed(value).removeprefix("+")
        return plus + (text.upper() if verb == "G" else text)
    if verb in "eEfFgG":
        return plus + format(value, f".{6 if precision is None else precision}{verb}")
    return None


def _string(verb: str, value: str, flags: str, precision: int | None) -> str | None:
    cut = value if precision is None else value[:precision]
    if verb in "sv" and "#" not in flags:
        return cut
    if verb in "qv":
        return f"`{cut}`" if "#" in flags and verb == "q" and "`" not in cut else quoted(cut)
    if verb in "xX":
        return cut.encode(errors="replace").hex() if verb == "x" else cut.encode(errors="replace").hex().upper()
    return None
