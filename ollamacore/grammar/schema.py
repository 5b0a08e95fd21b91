"""JSON and JSON Schema as grammars.

Every schema within a schema is a rule; rules wait in a queue, so depth costs no recursion and a schema may refer to
itself. Keys come in the order of `properties`, then additional ones. What Ollama does not look at (`not`, `if`,
`uniqueItems`, `contains`, `multipleOf`, formats but four, ...) is not looked at here either.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from ollamacore._core import Grammar
from ollamacore.errors import InvalidFormatError
from ollamacore.grammar.merge import ANNOTATIONS, ImpossibleError, merged
from ollamacore.grammar.numerals import Bound, number
from ollamacore.grammar.pattern import FORMATS, other_characters, pattern
from ollamacore.grammar.rules import END, Rules

#: schemas, lists and values within each other
MAX_DEPTH = 128
#: values in a schema
MAX_VALUES = 50_000
#: schemas that refer on to each other before one says something
MAX_PARTS = 200
#: keywords and properties that are copied where schemas are made one
MAX_WORK = 500_000
#: a count such as maxItems
MAX_COUNT = 1 << 31

_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_QUOTE, _COMMA, _COLON = b'"', b",", b":"

#: what a schema without a type speaks of
_HINTS = {
    "object": ("properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties",
               "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}  # fmt: skip


def json_grammar() -> Grammar:
    """Any JSON object."""
    compiler = _Compiler({})
    return compiler.grammar(compiler.any_object())


def schema_grammar(schema: Mapping[str, Any]) -> Grammar:
    """The JSON values that a schema describes; InvalidFormatError if it is none, or describes none."""
    check_size(schema)
    compiler = _Compiler(schema)
    return compiler.grammar(compiler.rule(schema))


def check_size(schema: Any) -> None:
    """Refuse a schema that is nested too deeply or has too many parts."""
    count, waiting = 0, [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH:
            raise InvalidFormatError(f"it is nested more than {MAX_DEPTH} deep")
        if count > MAX_VALUES:
            raise InvalidFormatError("it is too large")
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                raise InvalidFormatError("a key is no string")
            waiting += [(part, depth + 1) for part in value.values()]
        elif isinstance(value, (list, tuple)):
            waiting += [(part, depth + 1) for part in value]


class _Compiler:
    """Makes a grammar of a schema."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._rules = Rules()
        self._entries: dict[int, tuple[Any, int]] = {}  # by the identity of a schema, which stays alive here
        self._queue: deque[tuple[Any, int]] = deque()
        self._shared: dict[str, int] = {}
        self._work = 0

    def grammar(self, root: int) -> Grammar:
        """The grammar that begins with a rule."""
        while self._queue:
            schema, entry = self._queue.popleft()
            self._rules.fill(entry, self._define(schema))
        try:
            return self._rules.grammar(root)
        except ValueError as error:
            raise InvalidFormatError(str(error)) from error

    def rule(self, schema: Any) -> int:
        """The rule of a schema."""
        if id(schema) not in self._entries:
            entry = self._rules.reserve()
            self._entries[id(schema)] = schema, entry
            self._queue.append((schema, entry))
        return self._entries[id(schema)][1]

    def _once(self, name: str, make: Callable[[], int]) -> int:
        """A rule that many have in common."""
        if name not in self._shared:
            self._shared[name] = make()
        return self._shared[name]

    # ---- any JSON ----

    def any_value(self) -> int:
        """Any JSON value."""
        if "value" not in self._shared:
            rules, entry = self._rules, self._rules.reserve()
            self._shared["value"] = entry
            nested = [rules.call(rule, END, deep=False) for rule in (self.any_object(), self._any_array())]
            rules.fill(entry, *nested, *(self._plain(name) for name in ("string", "number", "boolean", "null")))
        return self._shared["value"]

    def any_object(self) -> int:
        """Any JSON object."""
        return self._once("object", lambda: self._object_of([], (self._plain("string"), self.any_value())))

    def _any_array(self) -> int:
        return self._once("array", lambda: self._array_of([], self.any_value(), 0, None))

    def _plain(self, type_: str) -> int:
        """Any value of a type that is not nested."""
        rules = self._rules
        make: dict[str, Callable[[], int]] = {
            "string": lambda: self._quoted(rules.text(0, None, self._end_quote())),
            "number": lambda: number(rules, None, None, whole=False),
            "integer": lambda: number(rules, None, None, whole=True),
            "boolean": lambda: rules.literals([b"true", b"false"], END),
            "null": lambda: rules.literal(b"null", END),
        }
        return self._once(type_, make[type_])

    def _end_quote(self) -> int:
        return self._once("quote", lambda: self._rules.literal(_QUOTE, END))

    def _quoted(self, inside: int) -> int:
        return self._rules.literal(_QUOTE, inside)

    # ---- schemas ----

    def _define(self, schema: Any) -> int:
        """The nodes of a rule."""
        if schema is True:
            return self.any_value()
        if schema is False:
            return self._rules.fork([])
        if not isinstance(schema, Mapping):
            raise InvalidFormatError(f"{_shown(schema)} is no schema")
        meaning = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
        if meaning.keys() == {"$ref"}:
            return self.rule(self._target(meaning["$ref"]))
        try:
            whole = self._flat(meaning)
            return self._rules.fork([]) if whole is None else self._defined(whole)
        except ImpossibleError:
            return self._rules.fork([])

    def _defined(self, schema: Mapping[str, Any]) -> int:
        """The nodes of a schema without references to others that must hold too."""
        for key in ("anyOf", "oneOf"):
            if key in schema:
                rest = {name: value for name, value in schema.items() if name != key}
                ways = _list(schema, key)
                if not ways:
                    raise InvalidFormatError(f"{key!r} is empty")
                return self._rules.fork([self._alternative(way, rest) for way in ways])
        ways = [self._typed(name, schema) for name in self._types(schema)]
        if schema.get("nullable") is True and "enum" not in schema and "const" not in schema:
            ways.append(self._plain("null"))
        return self._rules.fork(ways)

    def _alternative(self, way: Any, rest: Mapping[str, Any]) -> int:
        if not rest:
            return self.rule(way)
        return self.rule({"allOf": [rest, way]})

    def _flat(self, schema: Mapping[str, Any]) -> dict[str, Any] | None:
        """One schema of all that must hold; None where nothing can."""
        whole: dict[str, Any] = {}
        waiting: list[Any] = [schema]
        for _ in range(MAX_PARTS):
            if not waiting:
                return whole
            part = waiting.pop()
            if part is False:
                return None
            if part is True:
                continue
            if not isinstance(part, Mapping):
                raise InvalidFormatError(f"{_shown(part)} is no schema")
            if "allOf" in part:
                waiting += reversed(_list(part, "allOf"))
            if "$ref" in part:
                waiting.append(self._target(part["$ref"]))
            rest = {k: v for k, v in part.items() if k not in ANNOTATIONS and k not in ("allOf", "$ref")}
            whole = merged(whole, rest)
            self._work += len(whole) + sum(len(v) for v in whole.values() if isinstance(v, (Mapping, list)))
            if self._work > MAX_WORK:
                raise InvalidFormatError("it is too large")
        raise InvalidFormatError("references lead from one to the next without end")

    def _target(self, reference: Any) -> Any:
        """The schema that a reference names, within the whole one."""
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise InvalidFormatError(f"the reference {_shown(reference)} does not lead into the schema")
        at: Any = self._root
        for step in reference.split("/")[1:]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(at, Mapping) and name in at:
                at = at[name]
            elif isinstance(at, (list, tuple)) and name.isdecimal() and int(name) < len(at):
                at = at[int(name)]
            else:
                raise InvalidFormatError(f"the reference {_shown(reference)} leads nowhere")
        return at

    def _types(self, schema: Mapping[str, Any]) -> list[str]:
        """The types of a schema, a "value" for any and "values" for listed ones."""
        given = schema.get("type")
        names = [given] if isinstance(given, str) else given if isinstance(given, (list, tuple)) else []
        if given is not None and (not names or not all(name in _TYPES for name in names)):
            raise InvalidFormatError(f"the type {_shown(given)} is unknown")
        if "enum" in schema or "const" in schema:
            return ["values"]
        if names:
            return [name for name in dict.fromkeys(names) if name != "integer" or "number" not in names]
        return [name for name, keys in _HINTS.items() if any(key in schema for key in keys)] or ["value"]

    def _typed(self, name: str, schema: Mapping[str, Any]) -> int:
        makers: dict[str, Callable[[Mapping[str, Any]], int]] = {
            "values": self._values,
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "number": self._number,
            "integer": self._number,
        }
        if name == "value":
            return self.any_value()
        make = makers.get(name)
        return self._plain(name) if make is None else make({**schema, "type": name} if name != "values" else schema)

    # ---- values ----

    def _values(self, schema: Mapping[str, Any]) -> int:
        values = [schema["const"]] if "const" in schema else _list(schema, "enum")
        if "const" in schema and "enum" in schema:
            values = [value for value in values if value in _list(schema, "enum")]
        given = schema.get("type")
        names = ([given] if isinstance(given, str) else list(given)) if given is not None else _TYPES
        if schema.get("nullable") is True:
            names = [*names, "null"]
        texts = [_written(value) for value in values if any(_is_of(value, name) for name in names)]
        if not texts:
            raise ImpossibleError
        return self._rules.literals(texts, END)

    def _number(self, schema: Mapping[str, Any]) -> int:
        low, high = _bound(schema, "minimum", max), _bound(schema, "maximum", min)
        name = schema["type"]
        if low is None and high is None:
            return self._plain(name)
        return number(self._rules, low, high, whole=name == "integer")

    def _string(self, schema: Mapping[str, Any]) -> int:
        wanted, known = schema.get("pattern"), schema.get("format")
        if wanted is not None and not isinstance(wanted, str):
            raise InvalidFormatError("'pattern' is no string")
        if wanted is None and isinstance(known, str):
            wanted = FORMATS.get(known)
        if wanted is not None:
            inside = self._once(f"pattern {wanted}", lambda: pattern(self._rules, wanted))
            return self._quoted(self._rules.call(inside, self._end_quote()))
        least, most = _limits(schema, "minLength", "maxLength")
        if not least and most is None:
            return self._plain("string")
        return self._quoted(self._rules.text(least, most, self._end_quote()))

    # ---- arrays ----

    def _array(self, schema: Mapping[str, Any]) -> int:
        items, prefix = schema.get("items"), schema.get("prefixItems")
        if isinstance(items, (list, tuple)):  # as drafts before 2020 wrote it
            items, prefix = schema.get("additionalItems"), items
        first = [self.rule(part) for part in _list({"prefixItems": [] if prefix is None else prefix}, "prefixItems")]
        least, most = _limits(schema, "minItems", "maxItems")
        if "minItems" not in schema and first:
            least = len(first) if most is None else min(len(first), most)
        if items is None and (not first or least > len(first)):
            items = True
        rest = None if items is None or items is False else self.rule(items) if items is not True else self.any_value()
        return self._array_of(first, rest, least, most)

    def _array_of(self, first: list[int], rest: int | None, least: int, most: int | None) -> int:
        """An array whose first items have rules of their own; no further ones where `rest` is None."""
        rules = self._rules
        if most is not None:
            first = first[:most]
            rest = rest if most > len(first) else None
        close = rules.space(rules.literal(b"]", END))
        done = len(first)
        if rest is None:
            after = close if done >= least else rules.fork([])
        else:
            more = rules.literal(_COMMA, rules.space(rules.call(rest, END)))
            done = max(done, 1)
            after = rules.repeat(more, max(0, least - done), None if most is None else most - done, close)
        if not first and rest is not None:
            first = [rest]
        for at in range(len(first) - 1, -1, -1):
            node = rules.call(first[at], after)
            if at:
                node = rules.literal(_COMMA, rules.space(node))
            ways = [node]
            if at >= least:
                ways.append(close if at else rules.literal(b"]", END))
            after = rules.fork(ways)
        if not first:
            after = rules.literal(b"]", END) if least == 0 else rules.fork([])
        return rules.literal(b"[", rules.space(after))

    # ---- objects ----

    def _object(self, schema: Mapping[str, Any]) -> int:
        known = schema.get("properties", {})
        if not isinstance(known, Mapping):
            raise InvalidFormatError("'properties' is no object")
        required = _list(schema, "required") if "required" in schema else []
        if not all(isinstance(name, str) for name in required):
            raise InvalidFormatError("'required' is no list of strings")
        unknown = [name for name in dict.fromkeys(required) if name not in known]
        if unknown and schema.get("additionalProperties") is False:
            raise ImpossibleError
        wanted = set(required)
        members = [(self._pair(name, part), name in wanted) for name, part in known.items()]
        other = schema.get("additionalProperties", True)
        members += [(self._pair(name, other), True) for name in unknown]
        least, most = _limits(schema, "minProperties", "maxProperties")
        extra = self._extra(schema, [*known, *unknown])
        return self._object_of(members, extra, not_empty=least > 0, most=None if members else most)

    def _pair(self, name: str, schema: Any) -> int:
        rules = self._rules
        value = self.any_value() if schema is True else self.rule(schema)
        return rules.literal(_written(name) + _COLON, rules.space(rules.call(value, END)))

    def _extra(self, schema: Mapping[str, Any], names: Iterable[str]) -> tuple[int, int] | int | None:
        """Keys and values beyond those that are listed, or a rule for both; None: there are none."""
        names = list(names)
        other = schema.get("additionalProperties", "properties" not in schema and "patternProperties" not in schema)
        patterns = schema.get("patternProperties")
        if patterns is not None and not names:
            return self._by_pattern(patterns)
        if other is False:
            return None
        keys = schema.get("propertyNames", True)
        if keys is not True and names:
            return None
        value = self.any_value() if other is True else self.rule(other)
        if keys is not True:
            return self.rule({"allOf": [{"type": "string"}, keys]}), value
        return (self._other_key(names) if names else self._plain("string")), value

    def _by_pattern(self, patterns: Any) -> int:
        if not isinstance(patterns, Mapping):
            raise InvalidFormatError("'patternProperties' is no object")
        pairs = []
        for text, value in patterns.items():
            key = self._string({"pattern": text})
            pairs.append(self._key_and_value(key, self.rule(value)))
        return self._rules.fork(pairs)

    def _key_and_value(self, key: int, value: int) -> int:
        rules = self._rules
        return rules.call(key, rules.literal(_COLON, rules.space(rules.call(value, END))))

    def _other_key(self, names: Iterable[str]) -> int:
        """A string that is none of these: along their tree, off it at any character, or ending where none ends."""
        rules = self._rules
        rest = rules.text(0, None, self._end_quote())
        tree: list[dict[int, int]] = [{}]
        ends = set()
        for name in names:
            at = 0
            for char in name:
                at = tree[at].setdefault(ord(char), len(tree))
                if at == len(tree):
                    tree.append({})
            ends.add(at)
        made = [END] * len(tree)
        for at in range(len(tree) - 1, -1, -1):
            ways = [rules.characters([(code, code)], made[child]) for code, child in tree[at].items()]
            ways.append(rules.characters(other_characters([(code, code) for code in tree[at]]), rest))
            made[at] = rules.fork(ways if at in ends else [*ways, self._end_quote()])
        return self._quoted(made[0])

    def _object_of(
        self,
        members: list[tuple[int, bool]],
        extra: tuple[int, int] | int | None,
        *,
        not_empty: bool = False,
        most: int | None = None,
    ) -> int:
        """An object: pairs in order, each required or not, and then any number of others."""
        rules = self._rules
        close = rules.literal(b"}", END)
        after = rules.space(close)
        first = [] if not_empty else [close]
        if extra is not None and most != 0:
            pair = extra if isinstance(extra, int) else self._key_and_value(*extra)
            more = rules.literal(_COMMA, rules.space(rules.call(pair, END)))
            after = rules.repeat(more, 0, None if most is None else most - 1, after)
            first.append(rules.call(pair, after))
        opening = rules.fork(first)
        for pair, is_required in reversed(members):
            alone = rules.call(pair, after)
            further = rules.literal(_COMMA, rules.space(rules.call(pair, after)))
            opening, after = (
                (alone, further) if is_required else (rules.fork([alone, opening]), rules.fork([further, after]))
            )
        return rules.literal(b"{", rules.space(opening))


# ---- keywords ----


def _shown(value: Any) -> str:
    return repr(value)[:80]


def _list(schema: Mapping[str, Any], key: str) -> list[Any]:
    value = schema[key]
    if not isinstance(value, (list, tuple)):
        raise InvalidFormatError(f"{key!r} is no list")
    return list(value)


def _limits(schema: Mapping[str, Any], low: str, high: str) -> tuple[int, int | None]:
    """A least and a most count."""
    least, most = (_count(schema, key) for key in (low, high))
    if most is not None and (least or 0) > most:
        raise ImpossibleError
    return least or 0, most


def _count(schema: Mapping[str, Any], key: str) -> int | None:
    value = schema.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1 or value < 0:
        raise InvalidFormatError(f"{key!r} is no count")
    if value > MAX_COUNT:
        raise InvalidFormatError(f"{key!r} is too large")
    return int(value)


def _bound(schema: Mapping[str, Any], key: str, tighter: Callable[..., Bound]) -> Bound | None:
    """The tighter of minimum and exclusiveMinimum, or of their counterparts."""
    exclusive = f"exclusive{key.capitalize()}"
    found = []
    for name in (key, exclusive):
        value = schema.get(name)
        if value is None or isinstance(value, bool):
            continue
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InvalidFormatError(f"{name!r} is no number")
        is_open = name == exclusive or schema.get(exclusive) is True
        found.append(Bound(Decimal(str(value)), is_open))
    sign = 1 if key == "minimum" else -1
    return max(found, key=lambda bound: (sign * bound.value, bound.is_open), default=None)


def _is_of(value: Any, name: str) -> bool:
    """Whether a value is of a type."""
    if isinstance(value, bool):
        return name == "boolean"
    kinds: dict[str, Any] = {
        "object": Mapping,
        "array": (list, tuple),
        "string": str,
        "number": (int, float),
        "integer": int,
        "null": type(None),
    }
    is_whole = name == "integer" and isinstance(value, float) and value.is_integer()
    return is_whole or (name in kinds and isinstance(value, kinds[name]))


def _written(value: Any) -> bytes:
    """A value as the answer must have it."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:  # UnicodeEncodeError too: half a character
        raise InvalidFormatError(f"{_shown(value)} cannot be written as JSON") from error
