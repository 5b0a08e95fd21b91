"""Calls in the notation of a programming language: Python's, and Gemma's objects with bare keys."""

import re
from collections.abc import Callable
from typing import Any

from ollamacore.prompt.tools.calls import MAX_DEPTH, Call, MalformedError, Reader, Schemas, call_of, integer

_NAME = re.compile(r"[^\W\d][\w.\-/]*")
_BARE = re.compile(r"[^,\[\](){}=]*")
_KEY = re.compile(r"[^:{}\[\],]+")
_INTEGER = re.compile(r"[+-]?\d+")
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "0": "\0", "\n": ""}
_HEX = {"x": 2, "u": 4, "U": 8}
#: A quotation mark ends a string where one of these follows: models write apostrophes without a backslash.
_AFTER_STRING = re.compile(r"\s*(?:[,)\]}:]|\Z)")


class _Cursor:
    """Reads values from left to right."""

    def __init__(self, text: str, delimiter: str = "") -> None:
        self.text = text
        self.at = 0
        self._delimiter = delimiter  # around strings that have no escapes
        self._depth = 0

    def skip(self) -> str:
        """Go to the next character that is not white space, and say which it is."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def take(self, wanted: str) -> bool:
        """Go over this text if it comes next."""
        self.skip()
        if not self.text.startswith(wanted, self.at):
            return False
        self.at += len(wanted)
        return True

    def need(self, wanted: str) -> None:
        """Go over this text, which must come next."""
        if not self.take(wanted):
            raise MalformedError(f"no {wanted}")

    def match(self, pattern: re.Pattern[str]) -> str:
        """Go over what a pattern matches here; it may be nothing."""
        self.skip()
        found = pattern.match(self.text, self.at)
        self.at += len(found[0]) if found else 0
        return found[0] if found else ""

    def value(self) -> Any:
        """The value that comes next."""
        first = self.skip()
        if self._delimiter and self.take(self._delimiter):
            return self._until(self._delimiter)
        if first in ("'", '"') and first:
            return self._quoted(first)
        if first in ("[", "(") and first:
            return self.items("]" if first == "[" else ")", self.value)
        if first == "{":
            return dict(self.items("}", self.pair))
        return self._bare()

    def items(self, closing: str, read: Callable[[], Any]) -> list[Any]:
        """What stands between brackets, the first of which comes next."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise MalformedError("nested too deeply")
        self.at += 1
        found = []
        while not self.take(closing):
            found.append(read())
            if not self.take(","):
                self.need(closing)
                break
        self._depth -= 1
        return found

    def pair(self) -> tuple[str, Any]:
        """A key, quoted or not, and its value."""
        first = self.skip()
        if first in ("'", '"') or (self._delimiter and self.text.startswith(self._delimiter, self.at)):
            key = self.value()
        else:
            key = self.match(_KEY).strip()
        self.need(":")
        return str(key), self.value()

    def _until(self, delimiter: str) -> str:
        end = self.text.find(delimiter, self.at)
        if end < 0:
            raise MalformedError("a string without an end")
        found, self.at = self.text[self.at : end], end + len(delimiter)
        return found

    def _quoted(self, mark: str) -> str:
        triple = self.text.startswith(mark * 3, self.at) and not _AFTER_STRING.match(self.text, self.at + 2)
        end = mark * 3 if triple else mark
        self.at += len(end)
        found = []
        while self.at < len(self.text):
            if self.text[self.at] == "\\":
                found.append(self._escape())
            elif self.text.startswith(end, self.at) and _AFTER_STRING.match(self.text, self.at + len(end)):
                self.at += len(end)
                return "".join(found)
            else:
                found.append(self.text[self.at])
                self.at += 1
        raise MalformedError("a string without an end")

    def _escape(self) -> str:
        kind = self.text[self.at + 1 : self.at + 2]
        self.at += 2
        if kind in _HEX:
            digits = self.text[self.at : self.at + _HEX[kind]]
            try:
                found = chr(int(digits, 16))
            except (ValueError, OverflowError):
                return "\\" + kind
            self.at += len(digits)
            return found
        return _ESCAPES.get(kind, kind if kind in "\\'\"" else "\\" + kind)

    def _bare(self) -> Any:
        """A number, a constant, or in Gemma's notation text."""
        word = self.match(_BARE).strip()
        if word.lower() in _CONSTANTS:
            return _CONSTANTS[word.lower()]
        try:
            return integer(word) if _INTEGER.fullmatch(word) else float(word)
        except ValueError:
            if self._delimiter and word:
                return word
            raise MalformedError("a value that is none") from None


def read_python(text: str, schemas: Schemas) -> tuple[list[Call], int]:
    """[name(key=value, ...), ...], or one call after the other."""
    cursor = _Cursor(text)

    def argument() -> tuple[str, Any]:
        key = cursor.match(_NAME)
        cursor.need("=")
        return key, cursor.value()

    def call() -> Call:
        name = cursor.match(_NAME)
        if cursor.skip() != "(":
            raise MalformedError("no arguments")
        return call_of(name, dict(cursor.items(")", argument)))

    calls = cursor.items("]", call) if cursor.skip() == "[" else []
    while not calls or cursor.skip():
        calls.append(call())
        cursor.take(",")
    return calls, len(text)


def python_text(call: Call) -> str:
    """A call as read_python reads it."""
    return f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})"


def read_gemma(delimiter: str) -> Reader:
    """call:name{key:value,...}, once or more; `delimiter` stands around strings."""

    def read(text: str, schemas: Schemas) -> tuple[list[Call], int]:
        cursor = _Cursor(text, delimiter)
        calls: list[Call] = []
        while not calls or cursor.skip():
            cursor.take("call:")
            name = cursor.match(_NAME)
            if cursor.skip() != "{":
                raise MalformedError("no arguments")
            calls.append(call_of(name, dict(cursor.items("}", cursor.pair))))
            cursor.take(",")
        return calls, len(text)

    return read
