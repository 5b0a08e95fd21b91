"""Jinja2's immutable sandbox with a budget: the environment in which chat templates run.

Jinja's own sandbox stops access to Python's internals, but not a template that needs hours or all memory.
Three hooks close this. The syntax tree is rewritten once, so that loops, comparisons, joined strings,
literals and static text call a function (`guard_*`); calls and the operators + * % ** come through the
environment; filters and tests are those of filters.py. Only what is listed here can be called, only
attributes listed here be read.
"""

from collections.abc import Callable, Iterable, Iterator
from string import Formatter
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context
from jinja2.visitor import NodeTransformer

from ollamacore.prompt import filters
from ollamacore.prompt.budget import ITEMS, BudgetError, comparable, current, few, text

#: Real templates have at most 1300 nodes, 28 levels deep.
MAX_NODES = 10_000
MAX_LEVELS = 100

_STRING_METHODS = """
    capitalize casefold center count endswith find format format_map index isalnum isalpha isascii isdecimal
    isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip
    partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines
    startswith strip swapcase title upper zfill
"""
_LOOP_ATTRIBUTES = """
    changed cycle depth depth0 first index index0 last length nextitem previtem revindex revindex0
"""
_ATTRIBUTES: tuple[tuple[type, frozenset[str]], ...] = (
    (str, frozenset(_STRING_METHODS.split())),
    (dict, frozenset(("get", "items", "keys", "values"))),
    (list, frozenset(("count", "index"))),
    (tuple, frozenset(("count", "index", "grouper", "list"))),
    (LoopContext, frozenset(_LOOP_ATTRIBUTES.split())),
    (Macro, frozenset(("name", "arguments"))),
)
_FORBIDDEN = (
    nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport, nodes.Block, nodes.ScopedEvalContextModifier
)  # fmt: skip


class _Formatter(Formatter):
    """str.format without attributes of Python's own and with bounded fields."""

    def __init__(self, environment: "TemplateEnvironment") -> None:
        super().__init__()
        self.environment = environment

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        first, _, rest = field_name.partition(".")
        if rest or "[" in first:
            raise SecurityError("str.format of a template cannot look into its arguments")
        return self.get_value(int(first) if first.isdigit() else first, args, kwargs), first

    def convert_field(self, value: Any, conversion: Any) -> Any:
        return super().convert_field(text(value), conversion) if conversion else value

    def format_field(self, value: Any, format_spec: str) -> str:
        if len(format_spec) > 32:
            raise BudgetError("the template has a format that is too long")
        for digits in "".join(c if c.isdigit() else " " for c in format_spec).split():
            filters.check_width(int(digits))
        plain = value if isinstance(value, (int, float)) else text(value)
        current().tick()
        return current().charge(format(plain, format_spec))


def _no_loop_names(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The code that Jinja generates passes some of its own names to whatever is called."""
    kwargs.pop("_loop_vars", None)
    kwargs.pop("_block_vars", None)
    return kwargs


def guard_turns(values: Iterable[Any]) -> Iterator[Any]:
    """The iterable of a for loop."""
    budget = current()
    for value in values:
        budget.turn()
        yield value


def guard_text(size: int) -> None:
    """Static text that is about to be written."""
    current().tick()
    current().spend(size)


def guard_built(value: Any) -> Any:
    """A list, tuple, mapping or slice that the template makes."""
    current().tick()
    return current().charge(value)


@pass_context
def _finalize(context: Context, value: Any) -> str:
    """Each value that is written. (With a context Jinja cannot run this when it compiles.)"""
    return current().charge(text(value))


class _Rewriter(NodeTransformer):
    """Puts the guards into a syntax tree."""

    def guard(self, name: str, node: nodes.Node) -> nodes.Call:
        target = nodes.EnvironmentAttribute(f"guard_{name}")
        return nodes.Call(target, [node], [], None, None, lineno=node.lineno)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = self.guard("turns", node.iter)
        return node

    def visit_Output(self, node: nodes.Output) -> list[nodes.Node]:
        self.generic_visit(node)
        size = sum(len(part.data) for part in node.nodes if isinstance(part, nodes.TemplateData))
        payment = nodes.ExprStmt(
            self.guard("text", nodes.Const(size, lineno=node.lineno)), lineno=node.lineno
        )
        return [payment, node] if size else [node]

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        if not _is_constant(node.expr):
            node.expr = self.guard("compared", node.expr)
        for operand in node.ops:
            if not _is_constant(operand.expr):
                operand.expr = self.guard("compared", operand.expr)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        target = nodes.EnvironmentAttribute("guard_concat")
        return nodes.Call(target, node.nodes, [], None, None, lineno=node.lineno)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return self.guard("built", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return node if _is_constant(node) else self.guard("built", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return node if node.ctx != "load" or _is_constant(node) else self.guard("built", node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        for pair in node.items:
            if not isinstance(pair.key, nodes.Const):
                pair.key = self.guard("key", pair.key)
        return self.guard("built", node)


def _is_constant(node: nodes.Expr) -> bool:
    """A literal that costs nothing: its parts stand in the template."""
    if isinstance(node, (nodes.Tuple, nodes.List)):
        return all(isinstance(part, nodes.Const) for part in node.items)
    return isinstance(node, nodes.Const)


def _check_tree(tree: nodes.Template) -> frozenset[str]:
    """Refuse a tree that would take long to compile, or has what needs other templates; the names in it."""
    names, count = set(), 0
    stack: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while stack:
        node, level = stack.pop()
        count += 1
        if isinstance(node, _FORBIDDEN):
            name = type(node).__name__.lower()
            raise TemplateSyntaxError(f"{name} is not available in chat templates", node.lineno)
        if count > MAX_NODES or level > MAX_LEVELS:
            raise TemplateSyntaxError("the template is too long or nested too deeply", node.lineno)
        if isinstance(node, nodes.Name) and node.ctx == "load":
            names.add(node.name)
        stack.extend((child, level + 1) for child in node.iter_child_nodes())
    return frozenset(names)


class GenerationBlock(Extension):
    """{% generation %} marks the assistant's part for training; it prints its body."""

    tags = frozenset(("generation",))  # type: ignore[assignment]

    def parse(self, parser: Parser) -> nodes.Node:
        """The body in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _join(string: str, parts: Iterable[str]) -> str:
    return filters.joined(string, parts)


def _split(string: str, sep: str | None = None, maxsplit: int = -1, *, right: bool = False) -> list[str]:
    limit = min(maxsplit, ITEMS) if maxsplit >= 0 else ITEMS
    found = string.rsplit(sep, limit) if right else string.split(sep, limit)
    if len(found) > ITEMS:
        raise BudgetError(f"a list of the template has more than {ITEMS} items")
    for part in found:
        current().charge(part)
    return found


def _split_right(string: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    return _split(string, sep, maxsplit, right=True)


def _split_lines(string: str, keepends: bool = False) -> list[str]:
    filters.count_lines(string)
    return string.splitlines(keepends)


def _padded(name: str) -> Callable[..., str]:
    def run(string: str, width: int, *fill: str) -> str:
        filters.check_width(width)
        return str(getattr(string, name)(width, *fill))

    return run


_CHECKED_METHODS: dict[str, Callable[..., Any]] = {
    "join": _join, "replace": filters.replace, "split": _split, "rsplit": _split_right,
    "splitlines": _split_lines, **{name: _padded(name) for name in ("center", "ljust", "rjust", "zfill")},
}  # fmt: skip


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """The environment of all chat templates. It holds no state of a rendering; that is in the budget."""

    intercepted_binops = frozenset(("+", "*", "%", "**"))
    guard_turns = staticmethod(guard_turns)
    guard_text = staticmethod(guard_text)
    guard_built = staticmethod(guard_built)
    guard_compared = staticmethod(comparable)
    guard_concat = staticmethod(filters.concatenated)
    guard_key = staticmethod(filters.key)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", GenerationBlock],
            optimized=False,
            finalize=_finalize,
            cache_size=0,
        )
        self.filters = dict(filters.FILTERS)
        self.tests = dict(filters.TESTS)
        self.globals = dict(filters.GLOBALS)
        guards = (guard_turns, guard_text, guard_built, comparable, filters.concatenated, filters.key)
        self._own: frozenset[object] = frozenset((*guards, *filters.GLOBALS.values()))

    def compile_guarded(self, source: str) -> tuple[Template, frozenset[str]]:
        """A template with the guards in it, and the names that it reads. Raises what Jinja raises."""
        tree = self.parse(source)
        names = _check_tree(tree)
        _Rewriter().visit(tree)
        return self.from_string(tree), names

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Only the methods that templates need; values of mappings and namespaces are no attributes."""
        if isinstance(obj, Namespace):
            return not attr.startswith("_")
        return any(isinstance(obj, kind) and attr in names for kind, names in _ATTRIBUTES)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """An attribute that is not offered is undefined; asking for one of Python's own is an error."""
        if attribute.startswith("_"):
            raise SecurityError(f"the attribute {attribute!r} cannot be read")
        return super().unsafe_undefined(obj, attribute)

    def wrap_str_format(self, value: Any) -> None:
        """Jinja asks for a safe str.format here; `call` takes care of it."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`: a method that templates may use, or else the value of that key."""
        found = super().getattr(obj, attribute)
        if isinstance(found, Undefined) and isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return found

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]`."""
        return super().getitem(obj, filters.key(argument))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The operators whose result can be much bigger than the operands."""
        current().tick()
        if operator == "%" and isinstance(left, str):
            return filters.percent(left, right)
        if operator == "+":
            _check_sum(left, right)
        elif operator == "*":
            _check_product(left, right)
        elif operator == "**":
            _check_power(left, right)
        return current().charge(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a macro, a loop, a method of a string or container, or one of our functions; nothing else."""
        budget = current()
        budget.tick()
        if isinstance(__obj, BuiltinMethodType):
            return budget.charge(__self._call_method(__obj, args, _no_loop_names(kwargs)))
        if isinstance(__obj, (Macro, LoopContext)):
            budget.turn()
            if isinstance(__obj, LoopContext) and args:
                args = (guard_turns(args[0]), *args[1:])
            with budget.level():
                return super().call(__context, __obj, *args, **kwargs)
        if isinstance(__obj, MethodType) and isinstance(__obj.__self__, LoopContext):
            return __obj(*map(comparable, args))
        if isinstance(__obj, Undefined):
            return __obj()
        if isinstance(__obj, (FunctionType, type)) and __obj in __self._own:
            return __obj(*args, **_no_loop_names(kwargs))
        raise SecurityError(f"a {type(__obj).__name__} cannot be called")

    def _call_method(self, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        owner, name = method.__self__, method.__name__
        if not self.is_safe_attribute(owner, name, method):
            raise SecurityError(f"the method {name!r} cannot be called")
        if isinstance(owner, str):
            if name == "format":
                return _Formatter(self).vformat(owner, args, kwargs)
            if name == "format_map":
                return _Formatter(self).vformat(owner, (), *args)
            checked = _CHECKED_METHODS.get(name)
            return checked(owner, *args, **kwargs) if checked else method(*args, **kwargs)
        if isinstance(owner, dict) and args:
            filters.key(args[0])
        comparable(owner)
        comparable(args)
        return method(*args, **kwargs)


def _check_sum(left: Any, right: Any) -> None:
    if isinstance(left, str) and isinstance(right, str):
        current().room(len(left) + len(right))
    elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        few(len(left) + len(right))


def _check_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and not isinstance(right, int):
        left, right = right, left
    if not isinstance(right, int):
        return
    if isinstance(left, str):
        current().room(len(left) * max(right, 0))
    elif isinstance(left, (list, tuple)):
        few(len(left) * max(right, 0))
    elif isinstance(left, int) and left.bit_length() + right.bit_length() > filters.MAX_INTEGER_BITS:
        raise BudgetError("the template computes with numbers that are too big")


def _check_power(left: Any, right: Any) -> None:
    numbers = isinstance(left, int) and isinstance(right, int)
    if numbers and left.bit_length() * abs(right) > filters.MAX_INTEGER_BITS:
        raise BudgetError("the template computes with numbers that are too big")
