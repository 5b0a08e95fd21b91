"""Numbers as JSON writes them, within bounds or without. Their length is limited, so that they come to an end."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from itertools import groupby

from ollamacore.errors import InvalidFormatError
from ollamacore.grammar.rules import END, Rules

#: digits before the point, and behind it
DIGITS = 16
#: those of a bound
MOST_DIGITS = 30

_ANY = sum(1 << byte for byte in b"0123456789")
_POINT, _MINUS = 1 << ord("."), 1 << ord("-")
_WIDE = Context(prec=400)


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a range; an open one is not in it."""

    value: Decimal
    is_open: bool = False


def number(rules: Rules, low: Bound | None, high: Bound | None, *, whole: bool) -> int:
    """A number between two bounds, where there are any: `whole` ones, or with a fraction."""
    if low is None and high is None:
        return _unbounded(rules, whole)
    low, high = _rounded(low, ROUND_CEILING, whole), _rounded(high, ROUND_FLOOR, whole)
    ways = []
    if low is None or low.value < 0:
        above = Bound(Decimal(0), True) if high is None or high.value >= 0 else Bound(-high.value, high.is_open)
        below = None if low is None else Bound(-low.value, low.is_open)
        ways.append(rules.one_of(_MINUS, _positive(rules, above, below, whole)))
    if high is None or high.value >= 0:
        start = low if low is not None and low.value >= 0 else Bound(Decimal(0))
        ways.append(_positive(rules, start, high, whole))
    return rules.fork(ways)


def _unbounded(rules: Rules, whole: bool) -> int:
    end = END
    if not whole:
        power = _digits(rules, 1, 2, END)
        sign = rules.fork([rules.one_of(1 << ord("+") | _MINUS, power), power])
        end = rules.fork([END, rules.one_of(1 << ord("e") | 1 << ord("E"), sign)])
        end = rules.fork([end, rules.one_of(_POINT, _digits(rules, 1, DIGITS, end))])
    digits = rules.one_of(_ANY & ~(1 << ord("0")), _digits(rules, 0, DIGITS - 1, end))
    digits = rules.fork([digits, rules.one_of(1 << ord("0"), end)])
    return rules.fork([digits, rules.one_of(_MINUS, digits)])


def _digits(rules: Rules, least: int, most: int, next: int) -> int:
    node = next
    for done in range(most - 1, -1, -1):
        more = rules.one_of(_ANY, node)
        node = rules.fork([more, next]) if done >= least else more
    return node


def _rounded(bound: Bound | None, rounding: str, whole: bool) -> Bound | None:
    """A bound with as many digits as are looked at, moved inwards where it has more; None if it bounds nothing."""
    if bound is None:
        return None
    if abs(bound.value) >= Decimal(10) ** MOST_DIGITS:
        if (bound.value > 0) == (rounding == ROUND_CEILING):
            raise InvalidFormatError(f"a bound of a number has more than {MOST_DIGITS} digits")
        return None
    value = bound.value.quantize(Decimal(1).scaleb(0 if whole else -MOST_DIGITS), rounding, _WIDE)
    if value != bound.value:
        return Bound(value)
    if whole and bound.is_open:
        return Bound(value + (1 if rounding == ROUND_CEILING else -1))
    return Bound(value, bound.is_open)


def _positive(rules: Rules, low: Bound, high: Bound | None, whole: bool) -> int:
    """A number without a sign: by how many digits it has before its point."""
    shortest = len(str(int(low.value)))
    longest = len(str(int(high.value))) if high is not None else max(DIGITS, min(shortest + 1, MOST_DIGITS))
    sizes = range(shortest, longest + 1)
    return rules.fork([_Digits.of_size(rules, low, high, size, whole).node(0, True, True) for size in sizes])


@dataclass(slots=True)
class _Digits:
    """The numbers with `size` digits before their point, between two of as many digits."""

    rules: Rules
    size: int
    low: str  # all digits, before the point and behind it
    high: str
    low_is_open: bool
    high_is_open: bool
    made: dict[tuple[int, bool, bool], int] = field(default_factory=dict)

    @classmethod
    def of_size(cls, rules: Rules, low: Bound, high: Bound | None, size: int, whole: bool) -> _Digits:
        places = 0 if whole else max(DIGITS, _places(low), _places(high))
        scale = Decimal(10) ** places
        least = 10 ** (size - 1 + places) if size > 1 else 0
        most = 10 ** (size + places) - 1
        start = int(_WIDE.multiply(low.value, scale))
        end = most if high is None else int(_WIDE.multiply(high.value, scale))
        return cls(
            rules,
            size,
            str(max(start, least)).zfill(size + places),
            str(min(end, most)).zfill(size + places),
            low.is_open and start >= least,
            high is not None and high.is_open and end <= most,
        )

    def node(self, at: int, on_low: bool, on_high: bool) -> int:
        """What follows `at` digits that are, so far, those of the lower bound or of the upper one."""
        key = (at, on_low, on_high)
        if key not in self.made:
            if int(self.low) > int(self.high):
                return self.rules.fork([])
            ways = self._digits(at, on_low, on_high) if at < len(self.low) and at != self.size else []
            if at == self.size < len(self.low):
                ways.append(self.rules.one_of(_POINT, self.rules.fork(self._digits(at, on_low, on_high))))
            if at >= self.size and self._may_end(at, on_low, on_high):
                ways.append(END)
            self.made[key] = self.rules.fork(ways)
        return self.made[key]

    def _may_end(self, at: int, on_low: bool, on_high: bool) -> bool:
        is_low, is_high = not self.low[at:].strip("0"), not self.high[at:].strip("0")
        return not (on_low and (not is_low or self.low_is_open)) and not (on_high and is_high and self.high_is_open)

    def _digits(self, at: int, on_low: bool, on_high: bool) -> list[int]:
        first = int(self.low[at]) if on_low else 0
        last = int(self.high[at]) if on_high else 9

        def state(digit: int) -> tuple[bool, bool]:
            return on_low and digit == first, on_high and digit == last

        ways = []
        for (low, high), digits in groupby(range(first, last + 1), state):
            bits = sum(1 << ord("0") + digit for digit in digits)
            ways.append(self.rules.one_of(bits, self.node(at + 1, low, high)))
        return ways


def _places(bound: Bound | None) -> int:
    if bound is None:
        return 0
    exponent = bound.value.normalize(_WIDE).as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
