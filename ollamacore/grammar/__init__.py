"""What an answer may look like: "json" or a JSON schema, made a grammar that csrc/decode follows byte by byte.

`rules.py` builds the nodes, `schema.py` reads schemas (`merge.py` those that hold together), `pattern.py` regular
expressions, `numerals.py` numbers within bounds.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from ollamacore._core import Grammar
from ollamacore.errors import InvalidFormatError
from ollamacore.grammar.schema import check_size, json_grammar, schema_grammar

__all__ = ["Grammar", "compile_format"]

#: bytes of grammars that are kept for the next request
CACHE_BYTES = 16 << 20
#: characters of a schema
MAX_LENGTH = 1 << 20


def compile_format(format: object) -> Grammar | None:
    """The grammar of a `format`: "json", or a JSON schema as a mapping; none for None and "".

    InvalidFormatError for anything else. Grammars that were used lately are kept.
    """
    if format is None or format == "":
        return None
    if format == "json" or format == {}:
        return _cache.get("json", json_grammar)
    if not isinstance(format, Mapping):
        raise InvalidFormatError(f'invalid format: {format!r}; expected "json" or a valid JSON Schema object')
    try:
        return _cache.get(_text(format), lambda: schema_grammar(format))
    except InvalidFormatError as error:
        raise InvalidFormatError(f"invalid JSON schema in format: {error}") from error


def _text(schema: Mapping[str, Any]) -> str:
    """A schema as a key; the order of its properties counts."""
    check_size(schema)
    try:
        text = json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise InvalidFormatError(str(error)) from error
    if len(text) > MAX_LENGTH:
        raise InvalidFormatError("it is too large")
    return text


class FormatCache:
    """The grammars used last, within a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._found: OrderedDict[str, Grammar] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], Grammar]) -> Grammar:
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        grammar = make()
        with self._lock:
            if key not in self._found:
                self._found[key] = grammar
                self._used += len(key) + grammar.size
            while self._used > self._limit:
                dropped, old = self._found.popitem(last=False)
                self._used -= len(dropped) + old.size
        return grammar


_cache = FormatCache(CACHE_BYTES)
