"""Values as a Go template sees them: their types, their truth, and what they print as.

Python's own values stand for Go's: str, bool, int, float, list, and dict for a map[string]any. None is a nil
inside an interface, ABSENT no value at all, as a missing key is once it has gone through a pipeline. Two kinds
of dict are more: a Record is a struct, and a JsonMap, like a JsonList, prints as JSON.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from ollamacore.prompt.budget import current, measure


class _Absent:
    """No value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


class Field(NamedTuple):
    """A field of a struct: its name in Go and in JSON, and whether JSON leaves an empty one out."""

    name: str
    key: str
    optional: bool = False


class RecordType(NamedTuple):
    """A struct type."""

    name: str
    fields: tuple[Field, ...]


class Record(dict[str, Any]):
    """A struct: every field of its type by its name in Go. Another name is an error, not an empty value."""

    def __init__(self, kind: RecordType, values: Sequence[Any]) -> None:
        super().__init__(zip((field.name for field in kind.fields), values, strict=True))
        self.kind = kind


class JsonMap(dict[str, Any]):
    """A map that prints as JSON."""


class JsonList(list[Any]):
    """A list that prints as JSON."""


def type_name(value: Any) -> str:
    """The name of a value's type in Go."""
    if isinstance(value, Record):
        return value.kind.name
    for kind, name in _TYPE_NAMES:
        if isinstance(value, kind):
            return name
    return "interface {}"


_TYPE_NAMES: tuple[tuple[type, str], ...] = (
    (str, "string"),
    (bool, "bool"),
    (int, "int"),
    (float, "float64"),
    (list, "[]interface {}"),
    (dict, "map[string]interface {}"),
)


def truth(value: Any) -> bool:
    """Whether if and with take a value: it is not empty, zero, false or nil."""
    if isinstance(value, Record):
        return True
    return value is not ABSENT and bool(value)


def text_of(value: Any) -> str:
    """What an action writes."""
    if type(value) is str:
        return value
    if value is ABSENT:
        return "<no value>"
    return printed(value)


def printed(value: Any) -> str:
    """A value as Go's %v prints it."""
    if isinstance(value, list | dict):
        weight = measure(value)
        current().room(weight.characters + 8 * weight.nodes)
    return _printed(value)


def _printed(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return float_text(value, -4, 6)
    if isinstance(value, Record | JsonMap | JsonList):
        return _json(value)
    if isinstance(value, list):
        return "[" + " ".join(map(_printed, value)) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_printed(value[key])}" for key in sorted(value)) + "]"
    return "<nil>" if value is None or value is ABSENT else str(value)


def json_text(value: Any) -> str:
    """A value as Go's encoding/json writes it: compact, keys of maps sorted, safe inside HTML."""
    if isinstance(value, list | dict | str):
        weight = measure((value,))
        current().room(6 * weight.characters + 8 * weight.nodes)
    return _json(value)


_UNSAFE = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


def _json(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).translate(_UNSAFE)
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""  # Ollama's json drops the error of what JSON cannot say
        return float_text(value, -6, 21).replace("e-0", "e-")
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    if isinstance(value, Record):
        shown = ((field.key, value[field.name]) for field in value.kind.fields if _shown(field, value[field.name]))
        return _object(shown)
    if isinstance(value, dict):
        return _object(sorted(value.items()))
    if value is None or value is ABSENT:
        return "null"
    return json.dumps(value)


def _shown(field: Field, value: Any) -> bool:
    return not field.optional or truth(value)


def _object(pairs: Iterable[tuple[str, Any]]) -> str:
    return "{" + ",".join(f"{_json(key)}:{_json(value)}" for key, value in pairs) + "}"


def float_text(value: float, least: int, most: int) -> str:
    """The shortest text of a float; with an exponent if that is below `least`, or `most` and above."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    sign, digits, power = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(power, int)
    exponent = len(digits) - 1 + power
    minus = "-" if sign else ""
    figures = "".join(map(str, digits))
    if exponent < least or exponent >= most:
        point = "." if len(figures) > 1 else ""
        return f"{minus}{figures[0]}{point}{figures[1:]}e{exponent:+03d}"
    if power >= 0:
        return minus + figures + "0" * power
    if exponent < 0:
        return f"{minus}0.{'0' * (-exponent - 1)}{figures}"
    return f"{minus}{figures[: exponent + 1]}.{figures[exponent + 1 :]}"


def from_json(value: Any) -> Any:
    """A decoded JSON value as Go decodes it into an interface: every number is a float."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return float(value) if abs(value) < 1e308 else math.copysign(math.inf, value)
    if isinstance(value, Mapping):
        return {str(key): from_json(inner) for key, inner in value.items()}
    return [from_json(inner) for inner in value]
