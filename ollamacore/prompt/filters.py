"""Filters, tests and functions that a chat template may use, each within the budget of its rendering.

What Jinja2 offers is kept under its name where its cost follows from the size of its input, with the input
checked first; what builds text of any size from small input (format, center, indent, join, replace, batch)
is checked here before it runs. Filters that only make sense for HTML pages are left out, and `safe` changes
nothing. `tojson` is Hugging Face's: no escapes for HTML, and non-ASCII stays as it is.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import wraps
from typing import Any

from jinja2 import filters, tests
from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import Undefined
from jinja2.utils import Namespace, pass_environment

from ollamacore.prompt.budget import ITEMS, BudgetError, comparable, current, few, items, measure, text

MAX_WIDTH = 4096
MAX_INTEGER_BITS = 4096
MAX_RANGE = 100_000
_MAX_DIGITS = 4300
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_CONVERSION = re.compile(r"%(?:\([^()]*\))?[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?[hlL]?(.?)", re.DOTALL)


class TemplateNamespace(Namespace):
    """Jinja's namespace(); printing one shows nothing of what it holds."""

    def __repr__(self) -> str:
        return "<Namespace>"


def count_lines(value: str) -> int:
    """At least as many lines as str.splitlines makes, without making them."""
    return few(1 + sum(map(value.count, _LINE_ENDS)))


def check_width(width: object) -> None:
    """Refuse a field width or an indentation that is text out of nothing."""
    size = len(width) if isinstance(width, str) else width
    if isinstance(size, int) and abs(size) > MAX_WIDTH:
        raise BudgetError(f"the template asks for a width of more than {MAX_WIDTH}")


def _check_spec(field: str | None) -> int:
    """A width or precision inside a % format."""
    if field == "*" or (field and len(field) > 4):
        raise BudgetError(f"the template asks for a width of more than {MAX_WIDTH}")
    return int(field or 0)


def percent(pattern: str, arguments: Any) -> str:
    """`pattern % arguments` of bounded size."""
    if len(pattern) > ITEMS:
        raise BudgetError("the template has a format that is too long")
    widest = count = 0
    for match in _CONVERSION.finditer(pattern):
        if match.group().startswith("%") and match.group(3) == "(":
            raise BudgetError("the template has a format that cannot be checked")
        widest = max(widest, _check_spec(match.group(1)) + _check_spec(match.group(2)))
        count += 1
    weight = measure(arguments)
    # A character that is shown as its escape takes ten.
    current().room(len(pattern) + count * (widest + 10 * (weight.characters + 8 * weight.nodes)))
    return current().charge(str(pattern % arguments))


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise TypeError("can't handle positional and keyword arguments at the same time")
    return percent(text(value), kwargs or args)


def replace(value: str, old: str, new: str, count: int = -1) -> str:
    """str.replace of bounded size."""
    found = value.count(old) if old else len(value) + 1
    found = min(found, count) if count >= 0 else found
    current().room(len(value) + found * (len(new) - len(old)))
    return current().charge(value.replace(old, new, count))


def _replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    return replace(text(value), text(old), text(new), -1 if count is None else count)


def joined(separator: str, parts: Iterable[str]) -> str:
    """str.join of bounded size."""
    strings = items(parts)
    current().room(sum(map(len, strings)) + len(separator) * len(strings))
    return current().charge(separator.join(strings))


def concatenated(*parts: Any) -> str:
    """The ~ operator."""
    return joined("", map(text, parts))


@pass_environment
def _join(environment: Any, value: Iterable[Any], d: Any = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        value = map(filters.make_attrgetter(environment, attribute), value)
    return joined(text(d), map(text, value))


def _indent(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    string = text(value)
    check_width(width)
    size = len(width) if isinstance(width, str) else width
    current().room(len(string) + count_lines(string) * size)
    return filters.do_indent(string, width, first, blank)


def _center(value: Any, width: int = 80) -> str:
    check_width(width)
    return text(value).center(width)


def _escape(value: Any) -> str:
    string = text(value)
    for character, entity in (("&", "&amp;"), (">", "&gt;"), ("<", "&lt;"), ("'", "&#39;"), ('"', "&#34;")):
        string = replace(string, character, entity)
    return string


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    check_width(indent)
    weight = measure(value)
    step = len(indent) if isinstance(indent, str) else indent or 0
    between = sum(map(len, separators or ()))
    current().room(weight.characters + weight.nodes * (8 + between + step * weight.depth))
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _from_json(value: Any) -> Any:
    string = text(value)
    few(string.count(",") + string.count("[") + string.count("{"))
    return json.loads(string)


def _integer(value: Any, default: Any = 0, base: int = 10) -> Any:
    if isinstance(value, str) and len(value) > _MAX_DIGITS:
        return default
    return filters.do_int(value, default, base)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    if not isinstance(value, (int, float)) or abs(precision) > 100:
        raise TypeError("round needs a number and a precision of at most 100")
    return filters.do_round(value, precision, method)


@pass_environment
def _sum(environment: Any, value: Iterable[Any], attribute: str | int | None = None, start: float = 0) -> Any:
    if not isinstance(start, (int, float)):
        raise TypeError("sum adds numbers only")
    return filters.sync_do_sum(environment, items(value), attribute, start)


def _batch(value: Iterable[Any], linecount: int, fill_with: Any = None) -> Iterable[list[Any]]:
    return filters.do_batch(items(value), few(linecount), fill_with)


def _slice(value: Iterable[Any], slices: int, fill_with: Any = None) -> Iterable[list[Any]]:
    return filters.sync_do_slice(items(value), few(slices), fill_with)


def _unchanged(value: Any) -> str:
    """`safe` and `string`: prompts are no HTML, so nothing has to be marked."""
    return text(value)


def _odd(value: int) -> bool:
    return _remainder(value, 2) == 1


def _even(value: int) -> bool:
    return _remainder(value, 2) == 0


def _divisible(value: int, num: int) -> bool:
    return _remainder(value, num) == 0


def _remainder(value: int, by: int) -> int:
    """The % of numbers; the % of strings would format."""
    if isinstance(value, str):
        raise TypeError("a number is needed, not a string")
    return value % by


def template_range(*args: int) -> range:
    """range() of at most MAX_RANGE items."""
    numbers = range(*args)
    if abs(numbers.stop - numbers.start) // abs(numbers.step) > MAX_RANGE:
        raise BudgetError(f"range() of more than {MAX_RANGE} numbers")
    return numbers


def key(value: Any) -> Any:
    """A key of a mapping. The hash of a tuple is computed anew each time and can take arbitrarily long."""
    if isinstance(value, tuple):
        raise TypeError("a tuple cannot be a key")
    return value


def template_dict(source: Any = (), /, **values: Any) -> dict[Any, Any]:
    """dict()."""
    pairs = source.items() if isinstance(source, Mapping) else items(source)
    return {key(name): value for name, value in pairs} | values


def raise_exception(message: Any) -> None:
    """End the rendering with a message of the template's own."""
    raise TemplateRuntimeError(text(message)[:1000])


def strftime_now(pattern: str) -> str:
    """The local time, formatted."""
    check_width(pattern)
    return datetime.now().strftime(pattern)


def _first_argument(function: Callable[..., Any]) -> int:
    """Jinja passes some functions its context or environment before the value."""
    return 1 if hasattr(function, "jinja_pass_arg") else 0


def _ticking(function: Callable[..., Any], check: Callable[[Any], Any] | None = None) -> Callable[..., Any]:
    """`function` within the budget, after its value went through `check`."""
    at = _first_argument(function)

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        current().tick()
        if check is not None and len(args) > at:
            args = (*args[:at], check(args[at]), *args[at + 1 :])
        return current().charge(function(*args, **kwargs))

    return run


def _all_comparable(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def run(*args: Any) -> Any:
        return function(*map(comparable, args))

    return run


def _limited(value: Any) -> Any:
    """A value that a filter will walk over: short enough if its length is known."""
    if hasattr(value, "__len__") and not isinstance(value, Undefined):
        few(len(value))
    return value


def _limited_text(value: Any) -> str:
    string = text(value)
    few(len(string))
    return string


def _sortable(value: Any) -> Any:
    if isinstance(value, Undefined):
        return value
    return comparable(value if isinstance(value, Mapping) else items(value))


def _some(
    names: str, check: Callable[[Any], Any] | None, source: Mapping[str, Any] = filters.FILTERS
) -> dict[str, Callable[..., Any]]:
    return {name: _ticking(source[name], check) for name in names.split()}


_OWN: Mapping[str, Callable[..., Any]] = {
    "batch": _batch, "center": _center, "e": _escape, "escape": _escape, "format": _format,
    "from_json": _from_json, "indent": _indent, "int": _integer, "join": _join, "replace": _replace,
    "round": _round, "safe": _unchanged, "slice": _slice, "string": _unchanged, "sum": _sum,
    "tojson": _tojson,
}  # fmt: skip
FILTERS: Mapping[str, Callable[..., Any]] = {
    **_some("abs attr count default d first float items last length", None),
    **_some("map reject rejectattr reverse select selectattr list", _limited),
    **_some("capitalize lower trim upper", text),
    **_some("title truncate urlencode wordcount", _limited_text),
    **_some("dictsort groupby max min sort unique", _sortable),
    **{name: _ticking(function) for name, function in _OWN.items()},
}


def _comparing(names: str) -> dict[str, Callable[..., Any]]:
    source: Mapping[str, Any] = tests.TESTS
    return {name: _all_comparable(source[name]) for name in names.split()}


_COMPARING = "eq == equalto ne != lt < lessthan le <= gt > greaterthan ge >= in"
_PLAIN = (
    "boolean callable defined escaped false filter float integer iterable mapping none number sameas "
    "sequence string test true undefined"
)
TESTS: Mapping[str, Callable[..., Any]] = {
    **_some(_PLAIN, None, tests.TESTS),
    **_some("lower upper", text, tests.TESTS),
    **_comparing(_COMPARING),
    "odd": _odd,
    "even": _even,
    "divisibleby": _divisible,
}

GLOBALS: Mapping[str, Callable[..., Any]] = {
    "range": template_range,
    "dict": template_dict,
    "namespace": TemplateNamespace,
    "raise_exception": raise_exception,
    "strftime_now": strftime_now,
}
