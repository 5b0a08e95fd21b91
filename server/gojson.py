"""JSON as Go's decoder reads it: only the first value counts, errors are worded as Go words them.

orjson reads nearly every request. What it refuses (text after the first value, lone surrogate escapes,
invalid UTF-8) and what is really wrong goes through the scanner below, which is slow and exact.
"""

import json
import re

import orjson

MAX_DEPTH = 500

_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_STRING_PART = re.compile(r'[^"\\\x00-\x1f]*')
_SURROGATE = re.compile("[\ud800-\udfff]")


class JSONError(ValueError):
    """The body is not JSON; the text is the one of Go's decoder."""


def loads(body: bytes) -> object:
    """Decode the first JSON value of a body; raises EOFError if there is none at all."""
    if not body.strip(b" \t\r\n"):
        raise EOFError
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    text = body.decode("utf-8", "replace")
    start = _space(text, 0)
    end = _Scanner(text).value(start)
    try:
        return _without_surrogates(json.loads(text[start:end]))
    except RecursionError:
        raise JSONError("exceeded max depth") from None
    except ValueError:  # Python refuses to read integers of thousands of digits
        raise JSONError("number out of range") from None


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _without_surrogates(value: object) -> object:
    """Replace what no UTF-8 text can hold, as Go does, by U+FFFD."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_SURROGATE.sub("\ufffd", key): _without_surrogates(item) for key, item in value.items()}
    return value


def _quoted(character: str) -> str:
    """A character as Go's messages show it."""
    if character == "'":
        return r"'\''"
    if character == '"':
        return "'\"'"
    if character.isprintable():
        return f"'{character}'"
    return "'" + character.encode("unicode_escape").decode() + "'"


class _Scanner:
    """Finds the end of one value, or the first character that cannot continue it."""

    def __init__(self, text: str):
        self.text = text

    def fail(self, at: int, where: str) -> JSONError:
        """The error for the character at a position, or for the end of the text."""
        if at >= len(self.text):
            return JSONError("unexpected EOF")
        return JSONError(f"invalid character {_quoted(self.text[at])} {where}")

    def value(self, at: int) -> int:
        """Position after the value that begins at a position."""
        closers: list[str] = []
        while True:
            at = _space(self.text, at)
            first = self.text[at : at + 1]
            if first in {"{", "["} and first:
                at, opened = self._open(at, first)
                if opened:
                    closers.append(opened)
                    if len(closers) > MAX_DEPTH:
                        raise JSONError("exceeded max depth")
                    continue
            else:
                at = self._scalar(at, first)
            at, done = self._close(at, closers)
            if done:
                return at

    def _open(self, at: int, first: str) -> tuple[int, str]:
        """Step into an object or array; an empty one is passed at once and gives no closer."""
        closer = "}" if first == "{" else "]"
        inside = _space(self.text, at + 1)
        if self.text[inside : inside + 1] == closer:
            return inside + 1, ""
        if closer == "}":
            inside = self._key(inside, "looking for beginning of object key string")
        return inside, closer

    def _close(self, at: int, closers: list[str]) -> tuple[int, bool]:
        """After a value: step over commas and closers, up to the next value or the end of the first one."""
        while closers:
            at = _space(self.text, at)
            mark = self.text[at : at + 1]
            if mark == closers[-1]:
                closers.pop()
                at += 1
            elif mark == ",":
                if closers[-1] == "}":
                    at = _space(self.text, at + 1)
                    return self._key(at, "looking for beginning of object key string"), False
                return at + 1, False
            else:
                kind = "object key:value pair" if closers[-1] == "}" else "array element"
                raise self.fail(at, f"after {kind}")
        return at, True

    def _key(self, at: int, where: str) -> int:
        """Position after a key and its colon."""
        if self.text[at : at + 1] != '"':
            raise self.fail(at, where)
        at = _space(self.text, self._string(at))
        if self.text[at : at + 1] != ":":
            raise self.fail(at, "after object key")
        return at + 1

    def _scalar(self, at: int, first: str) -> int:
        if first == '"':
            return self._string(at)
        for word in ("true", "false", "null"):
            if first == word[0]:
                return self._word(at, word)
        match = _NUMBER.match(self.text, at)
        if match is None:
            where = "in numeric literal" if first == "-" else "looking for beginning of value"
            raise self.fail(at + (first == "-"), where)
        end = match.end()
        if self.text[end : end + 1] == ".":
            raise self.fail(end + 1, "after decimal point in numeric literal")
        return end

    def _word(self, at: int, word: str) -> int:
        for offset, letter in enumerate(word):
            if self.text[at + offset : at + offset + 1] != letter:
                raise self.fail(at + offset, f"in literal {word} (expecting {_quoted(letter)})")
        return at + len(word)

    def _string(self, at: int) -> int:
        """Position after the string that begins at a position."""
        at += 1
        while True:
            match = _STRING_PART.match(self.text, at)
            at = match.end() if match else at
            mark = self.text[at : at + 1]
            if mark == '"':
                return at + 1
            if mark != "\\":
                raise self.fail(at, "in string literal")
            at = self._escape(at + 1)

    def _escape(self, at: int) -> int:
        kind = self.text[at : at + 1]
        if kind and kind in '"\\/bfnrt':
            return at + 1
        if kind != "u":
            raise self.fail(at, "in string escape code")
        for position in range(at + 1, at + 5):
            if self.text[position : position + 1] not in set("0123456789abcdefABCDEF"):
                raise self.fail(position, r"in \u hexadecimal character escape")
        return at + 5
