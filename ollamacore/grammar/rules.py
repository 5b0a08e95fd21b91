"""The nodes of a grammar under construction: bytes, choices, rules that call each other.

Everything is built from its end: a part is made with the node that comes behind it, and is known by its first node.
A rule ends at END; its first node may be reserved before the rest is made, so rules may call themselves.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from ollamacore._core import NO_LIMIT, NODE_KINDS, Grammar
from ollamacore.errors import InvalidFormatError

#: nodes and edges of one grammar
MAX_NODES = 1 << 17

#: the end of a rule
END = 0

#: inclusive ranges of code points
Ranges = Sequence[tuple[int, int]]

_RETURN, _BYTES, _FORK, _CALL = (NODE_KINDS[name] for name in ("return", "bytes", "fork", "call"))
_REPEAT, _TEXT, _SPACE = (NODE_KINDS[name] for name in ("repeat", "text", "space"))

_SHORT_ESCAPES = {8: b"\\b", 9: b"\\t", 10: b"\\n", 12: b"\\f", 13: b"\\r", 34: b'\\"', 92: b"\\\\"}
_LAST_CODES = (0x7F, 0x7FF, 0xFFFF, 0x10FFFF)  # of one byte to four bytes in UTF-8
_WORD = (1 << 64) - 1


class Rules:
    """A grammar under construction."""

    def __init__(self) -> None:
        self._nodes: list[tuple[int, int, int, int, int]] = [(_RETURN, 0, 0, 0, 0)]
        self._forks: dict[int, list[int]] = {}
        self._sets: dict[int, int] = {}
        self._edges = 0

    def _add(self, kind: int, next: int = 0, a: int = 0, b: int = 0, c: int = 0) -> int:
        if len(self._nodes) + self._edges >= MAX_NODES:
            raise InvalidFormatError("it is too large")
        self._nodes.append((kind, next, a, b, c))
        return len(self._nodes) - 1

    def one_of(self, bytes_: int, next: int) -> int:
        """One byte of a set: bit n stands for byte n."""
        if not bytes_:
            return self.fork([])
        return self._add(_BYTES, next, self._sets.setdefault(bytes_, len(self._sets)))

    def fork(self, targets: Iterable[int]) -> int:
        """Any of several; none: nothing at all."""
        ways = list(dict.fromkeys(targets))
        if len(ways) == 1:
            return ways[0]
        return self.fill(self.reserve(), *ways)

    def reserve(self) -> int:
        """A fork whose targets come later."""
        node = self._add(_FORK)
        self._forks[node] = []
        return node

    def fill(self, node: int, *targets: int) -> int:
        """The targets of a reserved fork."""
        self._edges += len(targets)
        self._forks[node] = list(targets)
        return node

    def call(self, rule: int, next: int, *, deep: bool = True) -> int:
        """A rule; one that is not `deep` is left out where a text is nested deeply already."""
        return self._add(_CALL, next, rule, int(not deep))

    def repeat(self, rule: int, least: int, most: int | None, next: int) -> int:
        """A rule several times; no limit where `most` is None."""
        return self._add(_REPEAT, next, rule, least, NO_LIMIT if most is None else most)

    def text(self, least: int, most: int | None, next: int, *, line: bool = False) -> int:
        """So many characters of a JSON string, without line ends if it is a `line`."""
        return self._add(_TEXT, next, int(line), least, NO_LIMIT if most is None else most)

    def space(self, next: int) -> int:
        """Blanks between tokens of JSON, or none; few enough that they come to an end."""
        return self._add(_SPACE, next)

    def literal(self, text: bytes, next: int) -> int:
        """Exactly these bytes."""
        for byte in reversed(text):
            next = self.one_of(1 << byte, next)
        return next

    def literals(self, texts: Iterable[bytes], next: int) -> int:
        """Exactly one of these texts: a tree, so that however many there are, few are looked at."""
        children: list[dict[int, int]] = [{}]
        ends = {0: False}
        for text in texts:
            at = 0
            for byte in text:
                if byte not in children[at]:
                    children[at][byte] = len(children)
                    children.append({})
                    if len(children) > MAX_NODES:
                        raise InvalidFormatError("it is too large")
                at = children[at][byte]
            ends[at] = True
        made = [END] * len(children)
        for at in range(len(children) - 1, -1, -1):  # a child comes behind its parent
            ways = [self.one_of(1 << byte, made[child]) for byte, child in children[at].items()]
            made[at] = self.fork([*ways, next] if ends.get(at) else ways)
        return made[0]

    def characters(self, ranges: Ranges, next: int) -> int:
        """A character of these ranges as it stands in a JSON string: in UTF-8, or escaped where it must be."""
        ways = []
        last: dict[bytes, int] = {}  # what may stand behind these bytes and ends the character
        for low, high in ranges:
            for code in range(low, min(high, 0x7F) + 1):
                spelled = _escaped(code) if code < 0x20 or code in _SHORT_ESCAPES else bytes([code])
                last[spelled[:-1]] = last.get(spelled[:-1], 0) | 1 << spelled[-1]
            ways += [self._sequence(steps, next) for steps in _utf8(max(low, 0x80), high)]
        return self.fork([*(self.literal(text, self.one_of(bits, next)) for text, bits in last.items()), *ways])

    def _sequence(self, steps: Sequence[tuple[int, int]], next: int) -> int:
        for low, high in reversed(steps):
            next = self.one_of((1 << high + 1) - (1 << low), next)
        return next

    def grammar(self, root: int) -> Grammar:
        """The finished grammar."""
        edges = array("I")
        nodes = array("I")
        for index, (kind, next, a, b, c) in enumerate(self._nodes):
            if kind == _FORK:
                a, b = len(edges), len(self._forks[index])
                edges.extend(self._forks[index])
            nodes.extend((kind, next, a, b, c))
        sets = array("Q")
        for bits in self._sets:
            sets.extend((bits >> 64 * word) & _WORD for word in range(4))
        return Grammar(nodes, edges, sets, root)


def _escaped(code: int) -> bytes:
    """The escape of a character that cannot stand for itself in a JSON string."""
    return _SHORT_ESCAPES.get(code, b"\\u%04x" % code)


def _utf8(low: int, high: int) -> list[list[tuple[int, int]]]:
    """The byte sequences of a range of code points above ASCII: for each a range of every byte."""
    sequences = []
    first = 0x80
    for size, last in enumerate(_LAST_CODES[1:], 2):
        for start, end in ((first, min(last, 0xD7FF)), (max(first, 0xE000), last)):  # surrogates are no characters
            if max(low, start) <= min(high, end):
                sequences += _split(max(low, start), min(high, end), size)
        first = last + 1
    return sequences


def _split(low: int, high: int, size: int) -> list[list[tuple[int, int]]]:
    """A range of code points of `size` bytes, in parts in which every byte goes through a range of its own."""
    parts = [(low, high)]
    for bits in range(6, 6 * size, 6):
        parts = [part for whole in parts for part in _aligned(*whole, (1 << bits) - 1)]
    return [list(zip(_encoded(a, size), _encoded(b, size), strict=True)) for a, b in parts]


def _aligned(low: int, high: int, mask: int) -> list[tuple[int, int]]:
    """A range cut so that each part is within one block of `mask` + 1, or is made of whole ones."""
    if low & ~mask == high & ~mask:
        return [(low, high)]
    parts = []
    if low & mask:
        parts.append((low, low | mask))
        low = (low | mask) + 1
    last = (high & ~mask) - 1 if high & mask != mask else high
    if low <= last:
        parts.append((low, last))
    if last < high:
        parts.append((last + 1, high))
    return parts


def _encoded(code: int, size: int) -> list[int]:
    tail = [0x80 | code >> 6 * at & 0x3F for at in range(size - 2, -1, -1)]
    return [(0xF00 >> size & 0xFF if size > 1 else 0) | code >> 6 * (size - 1), *tail]
