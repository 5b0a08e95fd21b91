"""Schemas that must all hold, made one: `allOf`, a `$ref` with other keywords beside it, `anyOf` with such."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ollamacore.errors import InvalidFormatError

#: alternatives that two lists of them may give together
MAX_WAYS = 256

#: keywords that say nothing about what is valid
ANNOTATIONS = frozenset(
    (
        "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment",
        "$schema", "$id", "$anchor", "$defs", "definitions", "discriminator", "contentEncoding", "contentMediaType",
        "xml", "externalDocs",
    )
)  # fmt: skip


class ImpossibleError(Exception):
    """No value is valid by both of two schemas."""


def merged(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """A schema whose values are valid by both."""
    found = dict(a)
    for key, value in b.items():
        if key not in found or key in ANNOTATIONS:
            found.setdefault(key, value)
        elif found[key] != value or isinstance(found[key], bool) != isinstance(value, bool):
            found[key] = _both_of(key, found[key], value)
    return found


def both(a: Any, b: Any) -> Any:
    """A schema that says both, as a keyword of another one."""
    if a is True or a == b:
        return b
    return a if b is True else {"allOf": [a, b]}


def _both_of(key: str, a: Any, b: Any) -> Any:
    combine = _COMBINE.get(key)
    if combine is None:
        if key in _UNKNOWABLE:
            raise InvalidFormatError(f"two schemas that must both hold differ in {key!r}")
        return a  # not looked at anyway
    try:
        return combine(a, b)
    except InvalidFormatError:
        raise
    except (TypeError, AttributeError, ValueError) as error:
        raise InvalidFormatError(f"{key!r} has a wrong type") from error


def _properties(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    return {name: both(a.get(name, True), b.get(name, True)) for name in [*a, *(name for name in b if name not in a)]}


def _required(a: list[str], b: list[str]) -> list[str]:
    return list(dict.fromkeys([*a, *b]))


def _types(a: Any, b: Any) -> list[str]:
    left, right = ([one] if isinstance(one, str) else list(one) for one in (a, b))
    found = [name for name in left if name in right or (name == "integer" and "number" in right)]
    found += [name for name in right if name == "integer" and "number" in left and name not in found]
    if not found:
        raise ImpossibleError
    return found


def _values(a: list[Any], b: list[Any]) -> list[Any]:
    found = [value for value in a if any(value == other and type(value) is type(other) for other in b)]
    if not found:
        raise ImpossibleError
    return found


def _ways(a: list[Any], b: list[Any]) -> list[Any]:
    if len(a) * len(b) > MAX_WAYS:
        raise InvalidFormatError("it has too many alternatives that must hold together")
    return [both(one, other) for one in a for other in b]


def _impossible(a: Any, b: Any) -> Any:
    raise ImpossibleError


_COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "properties": _properties,
    "patternProperties": _properties,
    "required": _required,
    "type": _types,
    "enum": _values,
    "const": _impossible,
    "anyOf": _ways,
    "oneOf": _ways,
    "items": both,
    "additionalProperties": both,
    "propertyNames": both,
    "nullable": lambda a, b: a and b,
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}

#: keywords that are kept to, and of which one schema can have one only
_UNKNOWABLE = ("pattern", "format", "prefixItems")
