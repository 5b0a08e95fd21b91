"""Regular expressions, as far as they are regular: the `pattern` of a string and what stands behind its `format`.

The whole string must match, with anchors or without: what matches as a whole is also found by a search. Read without
recursion, and nested to a limit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeAlias

from ollamacore.errors import InvalidFormatError
from ollamacore.grammar.rules import END, Ranges, Rules

#: parentheses within parentheses
MAX_DEPTH = 100
#: characters of a pattern
MAX_LENGTH = 10_000
#: times that {m,n} may ask for
MAX_TIMES = 100_000

_LAST = 0x10FFFF
_DIGIT = ((0x30, 0x39),)
_WORD = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_BLANK = ((0x09, 0x0D), (0x20, 0x20))
_CONTROLS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "0": 0}
_QUANTIFIER = re.compile(r"\{(\d{1,9})(?:(,)(\d{1,9})?)?\}")
_GROUP = re.compile(r"\?(?::|P?<[A-Za-z_]\w*>)")
_HEX = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}")

_DATE = (
    r"(?:(?:000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})-"
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
    r"|(?:[1-9]\d(?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)-02-29)"
)
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_HEX_DIGIT = "[0-9a-fA-F]"

#: the formats of strings that are kept; others are not looked at
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "uuid": f"{_HEX_DIGIT}{{8}}-(?:{_HEX_DIGIT}{{4}}-){{3}}{_HEX_DIGIT}{{12}}",
}


@dataclass(frozen=True, slots=True)
class _Characters:
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class _Dot:
    pass


@dataclass(frozen=True, slots=True)
class _Anchor:
    is_start: bool


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: _Part
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class _Choice:
    """Any of several sequences."""

    ways: tuple[tuple[_Part, ...], ...]


_Part: TypeAlias = "_Characters | _Dot | _Anchor | _Repeat | _Choice"


@dataclass(slots=True)
class _Group:
    """A group that is being read."""

    ways: list[tuple[_Part, ...]] = field(default_factory=list)
    parts: list[_Part] = field(default_factory=list)

    def close(self) -> _Part:
        ways = (*self.ways, tuple(self.parts))
        return ways[0][0] if len(ways) == 1 and len(ways[0]) == 1 else _Choice(ways)


def pattern(rules: Rules, text: str) -> int:
    """The inside of a JSON string that a regular expression describes."""
    return _build(rules, _Reader(text).read(), END)


class _Reader:
    """Turns a regular expression into parts."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise InvalidFormatError(f"a pattern has more than {MAX_LENGTH} characters")
        self._text = text
        self._at = 0
        self._groups = [_Group()]

    def read(self) -> _Part:
        while self._at < len(self._text):
            char = self._take()
            match char:
                case "(":
                    self._open()
                case ")":
                    self._close()
                case "|":
                    group = self._groups[-1]
                    group.ways.append(tuple(group.parts))
                    group.parts = []
                case "*" | "+" | "?" | "{":
                    self._repeat(char)
                case _:
                    self._groups[-1].parts.append(self._atom(char))
        if len(self._groups) > 1:
            raise self._error("a parenthesis is not closed")
        whole = self._groups[0]
        return _Choice(tuple(self._without_anchors(way) for way in (*whole.ways, tuple(whole.parts))))

    def _error(self, what: str) -> InvalidFormatError:
        return InvalidFormatError(f"pattern {self._text[:100]!r}: {what}")

    def _take(self) -> str:
        if self._at == len(self._text):
            raise self._error("it ends in the middle")
        self._at += 1
        return self._text[self._at - 1]

    def _open(self) -> None:
        if self._text.startswith("?", self._at):
            kind = _GROUP.match(self._text, self._at)
            if not kind:
                raise self._error("look-around and flags are not supported")
            self._at = kind.end()
        if len(self._groups) > MAX_DEPTH:
            raise self._error(f"it is nested more than {MAX_DEPTH} deep")
        self._groups.append(_Group())

    def _close(self) -> None:
        if len(self._groups) == 1:
            raise self._error("a parenthesis was not opened")
        part = self._groups.pop().close()
        self._groups[-1].parts.append(part)

    def _repeat(self, char: str) -> None:
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(char) or self._times()
        parts = self._groups[-1].parts
        if not parts or isinstance(parts[-1], _Anchor):
            raise self._error("there is nothing to repeat")
        if self._text[self._at : self._at + 1] == "?":  # as few as possible: the same strings
            self._at += 1
        elif self._text[self._at : self._at + 1] in ("*", "+", "{"):
            raise self._error("a repetition of a repetition")
        parts.append(_Repeat(parts.pop(), least, most))

    def _times(self) -> tuple[int, int | None]:
        found = _QUANTIFIER.match(self._text, self._at - 1)
        if not found:
            raise self._error("a brace that is no repetition must be escaped")
        self._at = found.end()
        least = int(found[1])
        most = int(found[3]) if found[3] else None if found[2] else least
        if max(least, most or 0) > MAX_TIMES or (most is not None and most < least):
            raise self._error("a repetition out of range")
        return least, most

    def _atom(self, char: str) -> _Part:
        match char:
            case ".":
                return _Dot()
            case "^" | "$":
                return _Anchor(char == "^")
            case "[":
                return _Characters(self._class())
            case "\\":
                return _Characters(self._escape())
        return _Characters(((ord(char), ord(char)),))

    def _escape(self, *, in_class: bool = False) -> Ranges:
        char = self._take()
        classes = {"d": _DIGIT, "w": _WORD, "s": _BLANK}
        if char.lower() in classes:
            ranges = classes[char.lower()]
            return ranges if char.islower() else other_characters(ranges)
        code = _CONTROLS.get(char)
        if char in "xu":
            code = self._code()
        elif in_class and char == "b":
            code = 8
        elif code is None and (char.isalnum() or ord(char) > 0x7F):
            raise self._error(f"\\{char} is not supported")
        code = ord(char) if code is None else code
        return ((code, code),)

    def _code(self) -> int:
        found = _HEX.match(self._text, self._at - 1)
        if not found or int(found[found.lastindex or 0], 16) > _LAST:
            raise self._error("a code of a character is wrong")
        self._at = found.end()
        return int(found[found.lastindex or 0], 16)

    def _class(self) -> Ranges:
        negative = self._text.startswith("^", self._at)
        self._at += negative
        ranges: list[tuple[int, int]] = []
        while (char := self._take()) != "]":
            part = self._escape(in_class=True) if char == "\\" else ((ord(char), ord(char)),)
            if self._is_range(part):
                self._at += 1
                part = self._range(part[0][0])
            ranges += part
        return other_characters(ranges) if negative else _joined(ranges)

    def _is_range(self, part: Ranges) -> bool:
        is_one = len(part) == 1 and part[0][0] == part[0][1]
        return is_one and self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at)

    def _range(self, low: int) -> Ranges:
        char = self._take()
        end = self._escape(in_class=True) if char == "\\" else ((ord(char), ord(char)),)
        if len(end) != 1 or end[0][0] != end[0][1] or end[0][0] < low:
            raise self._error("a range of characters is wrong")
        return ((low, end[0][0]),)

    def _without_anchors(self, way: tuple[_Part, ...]) -> tuple[_Part, ...]:
        start = bool(way) and way[0] == _Anchor(True)
        end = len(way) - (len(way) > start and way[-1] == _Anchor(False))
        return way[start:end]


def _joined(ranges: Ranges) -> Ranges:
    """Ranges in order, none of which overlap."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


def other_characters(ranges: Ranges) -> Ranges:
    """All characters but these."""
    found, start = [], 0
    for low, high in _joined(ranges):
        if start < low:
            found.append((start, low - 1))
        start = high + 1
    return [*found, (start, _LAST)] if start <= _LAST else found


def _build(rules: Rules, part: _Part, next: int) -> int:
    """The nodes of a part in front of `next`."""
    match part:
        case _Characters(ranges):
            return rules.characters(ranges, next)
        case _Dot():
            return rules.text(1, 1, next, line=True)
        case _Choice(ways):
            return rules.fork([_sequence(rules, way, next) for way in ways])
        case _Repeat(_Dot(), least, most):
            return rules.text(least, most, next, line=True)
        case _Repeat(inner, least, most):
            return _repeated(rules, inner, least, most, next)
    raise InvalidFormatError("an anchor in the middle of a pattern is not supported")


def _sequence(rules: Rules, parts: tuple[_Part, ...], next: int) -> int:
    for part in reversed(parts):
        next = _build(rules, part, next)
    return next


def _repeated(rules: Rules, part: _Part, least: int, most: int | None, next: int) -> int:
    if most == 1:
        once = _build(rules, part, next)
        return once if least else rules.fork([once, next])
    if most is not None or least > 1:
        return rules.repeat(_build(rules, part, END), least, most, next)
    again = rules.reserve()
    once = _build(rules, part, again)
    rules.fill(again, once, next)
    return _build(rules, part, again) if least else again
