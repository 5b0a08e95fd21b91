"""Running a Go template on data, within the budget of one rendering (ollamacore/prompt/budget.py)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from ollamacore.errors import TemplateError
from ollamacore.prompt.budget import OUTPUT_BYTES, BudgetError, current, items
from ollamacore.prompt.gotemplate.functions import FUNCTIONS, FunctionError
from ollamacore.prompt.gotemplate.lexer import line_of, quoted
from ollamacore.prompt.gotemplate.tree import (
    Action,
    Block,
    Branch,
    Chain,
    Command,
    Dot,
    Field,
    Function,
    Include,
    Leave,
    Literal,
    Nil,
    Operand,
    Pipe,
    Statement,
    Text,
    Tree,
    Variable,
)
from ollamacore.prompt.gotemplate.values import ABSENT, Record, printed, text_of, truth, type_name

#: Names that a template may call.
NAMES = frozenset((*FUNCTIONS, "and", "or", "call"))


class _Break(Exception):
    """{{break}}."""


class _Continue(Exception):
    """{{continue}}."""


class Run:
    """One rendering of a tree."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._name = ""  # of the template that is being rendered
        self._variables: list[tuple[str, Any]] = []
        self._pieces: list[str] = []
        self._size = 0
        self._statements: dict[type, Callable[[Any, Any], None]] = {
            Text: self._text,
            Action: self._action,
            Branch: self._branch,
            Leave: self._leave,
            Include: self._include,
        }
        self._operands: dict[type, Callable[[Any, Any], Any]] = {
            Literal: lambda operand, dot: operand.value,
            Nil: lambda operand, dot: None,
            Dot: lambda operand, dot: dot,
            Field: lambda operand, dot: self._fields(dot, operand.names, operand),
            Variable: self._variable,
            Chain: self._chain,
            Function: lambda operand, dot: self._call(operand, Command(operand.pos, (operand,)), dot),
            Pipe: self._pipe,
        }

    def render(self, root: Block, data: Any) -> str:
        """The text that a tree's statements make of data."""
        self._variables = [("$", data)]
        self._block(root, data)
        return "".join(self._pieces)

    # -- statements --

    def _block(self, block: Block, dot: Any) -> None:
        for statement in block:
            current().tick()
            self._statement(statement, dot)

    def _statement(self, statement: Statement, dot: Any) -> None:
        self._statements[type(statement)](statement, dot)

    def _write(self, text: str) -> None:
        self._size += len(text)
        if self._size > OUTPUT_BYTES:
            raise BudgetError(f"the prompt has more than {OUTPUT_BYTES} characters")
        current().spend(len(text))
        self._pieces.append(text)

    def _text(self, statement: Text, dot: Any) -> None:
        self._write(statement.text)

    def _action(self, statement: Action, dot: Any) -> None:
        value = self._pipe(statement.pipe, dot)
        if not statement.pipe.declared:
            self._write(text_of(value))

    def _leave(self, statement: Leave, dot: Any) -> None:
        raise _Break if statement.kind == "break" else _Continue

    def _branch(self, statement: Branch, dot: Any) -> None:
        mark = len(self._variables)
        value = self._pipe(statement.pipe, dot)
        if statement.kind == "range":
            taken = self._range(statement, value)
        else:
            taken = truth(value)
            if taken:
                self._block(statement.body, value if statement.kind == "with" else dot)
        if not taken and statement.orelse is not None:
            self._block(statement.orelse, dot)
        del self._variables[mark:]

    def _range(self, statement: Branch, value: Any) -> bool:
        """The body once for each element; whether there was one."""
        declared = statement.pipe.declared
        mark = len(self._variables)
        taken = False
        for key, element in self._elements(statement, value):
            current().turn()
            taken = True
            self._bind(statement.pipe, key, element, mark - len(declared))
            try:
                self._block(statement.body, element)
            except _Continue:
                pass
            except _Break:
                break
            finally:
                del self._variables[mark:]
        return taken

    def _bind(self, pipe: Pipe, key: Any, element: Any, at: int) -> None:
        """Give the variables of a range their values: the element alone, or key and element."""
        values = (element,) if len(pipe.declared) == 1 else (key, element)
        for offset, (name, value) in enumerate(zip(pipe.declared, values, strict=False)):
            if pipe.assigns:
                self._assign(pipe, name, value)
            else:
                self._variables[at + offset] = (name, value)

    def _elements(self, statement: Branch, value: Any) -> Iterator[tuple[Any, Any]]:
        """Keys and elements of what is ranged over; maps in the order of their keys."""
        place = statement.pipe.commands[0].args[0]
        if value is ABSENT or value is None:
            return iter(())
        if isinstance(value, list):
            return enumerate(items(value))
        if isinstance(value, dict) and not isinstance(value, Record):
            return iter([(key, value[key]) for key in sorted(value)])
        if isinstance(value, int) and not isinstance(value, bool):
            if len(statement.pipe.declared) > 1:
                self._fail(place, f"can't use {value} to iterate over more than one variable")
            return ((number, number) for number in range(value))
        return self._fail(place, f"range can't iterate over {printed(value)}")

    def _include(self, statement: Include, dot: Any) -> None:
        block = self._tree.defined.get(statement.name)
        if block is None:
            self._fail(statement, f"template {quoted(statement.name)} not defined")
        data = self._pipe(statement.pipe, dot) if statement.pipe else ABSENT
        outside, name = self._variables, self._name
        self._variables, self._name = [("$", data)], statement.name
        with current().level():
            self._block(block, data)
        self._variables, self._name = outside, name

    # -- values --

    def _pipe(self, pipe: Pipe, dot: Any) -> Any:
        value: Any = None
        for stage, command in enumerate(pipe.commands):
            current().tick()
            value = self._command(command, dot, (value,) if stage else ())
            if value is None:
                value = ABSENT
        for name in pipe.declared:
            if pipe.assigns:
                self._assign(pipe, name, value)
            else:
                self._variables.append((name, value))
        return value

    def _command(self, command: Command, dot: Any, last: tuple[Any, ...]) -> Any:
        """The value of a command; `last` holds that of the command before it, if there is one."""
        first = command.args[0]
        if isinstance(first, Function):
            return self._call(first, command, dot, last)
        if len(command.args) > 1 or last:
            self._refuse_arguments(first, dot)
        if isinstance(first, Nil):
            self._fail(first, "nil is not a command")
        return self._evaluate(first, dot)

    def _refuse_arguments(self, first: Operand, dot: Any) -> NoReturn:
        """What Go says when something that is no function gets arguments."""
        names = first.names if isinstance(first, Field | Chain | Variable) else ()
        if not names:
            self._fail(first, f"can't give argument to non-function {first}")
        base: Operand = Dot(first.pos)
        if isinstance(first, Chain):
            base = first.base
        elif isinstance(first, Variable):
            base = Variable(first.pos, first.name, ())
        owner = self._fields(self._evaluate(base, dot), names[:-1], first)
        self._field(owner, names[-1], first)
        if isinstance(owner, Record):
            self._fail(first, f"{names[-1]} has arguments but cannot be invoked as function")
        self._fail(first, f"{names[-1]} is not a method but has arguments")

    def _evaluate(self, operand: Operand, dot: Any) -> Any:
        return self._operands[type(operand)](operand, dot)

    def _chain(self, chain: Chain, dot: Any) -> Any:
        base = chain.base
        place = base.commands[0].args[0] if isinstance(base, Pipe) else base
        return self._fields(self._evaluate(base, dot), chain.names, place)

    def _fields(self, value: Any, names: Sequence[str], operand: Operand) -> Any:
        for name in names:
            value = self._field(value, name, operand)
        return value

    def _field(self, value: Any, name: str, operand: Operand) -> Any:
        if value is ABSENT:
            return ABSENT
        if value is None:
            self._fail(operand, f"nil pointer evaluating interface {{}}.{name}")
        if isinstance(value, dict) and (name in value or not isinstance(value, Record)):
            return value.get(name)
        return self._fail(operand, f"can't evaluate field {name} in type {type_name(value)}")

    def _variable(self, operand: Variable, dot: Any) -> Any:
        for name, value in reversed(self._variables):
            if name == operand.name:
                return self._fields(value, operand.names, operand)
        return self._fail(operand, f"undefined variable: {operand.name}")

    def _assign(self, pipe: Pipe, name: str, value: Any) -> None:
        for at in reversed(range(len(self._variables))):
            if self._variables[at][0] == name:
                self._variables[at] = (name, value)
                return
        self._fail(pipe.commands[0].args[0], f"undefined variable: {name}")

    # -- functions --

    def _call(self, function: Function, command: Command, dot: Any, last: tuple[Any, ...] = ()) -> Any:
        given = command.args[1:]
        if function.name in ("and", "or"):
            return self._logic(function, given, dot, last)
        if function.name == "call":
            self._refuse_call(command, dot, last)
        known = FUNCTIONS[function.name]
        count = len(given) + len(last)
        if count < known.least or (known.most is not None and count > known.most):
            want = str(known.least) if known.most is not None else f"at least {known.least}"
            self._fail(function, f"wrong number of args for {function.name}: want {want} got {count}")
        values = [self._argument(operand, dot, at < known.texts) for at, operand in enumerate(given)]
        for value in last:
            if len(given) < known.texts and not isinstance(value, str):
                self._fail(command, f"wrong type for value; expected string; got {type_name(value)}")
            values.append(value)
        try:
            return known.call(*(None if value is ABSENT else value for value in values))
        except FunctionError as error:
            self._fail(command, f"error calling {function.name}: {error}")

    def _refuse_call(self, command: Command, dot: Any, last: tuple[Any, ...]) -> NoReturn:
        """call: no value of a template is a function."""
        if len(command.args) == 1:
            self._fail(command.args[0], "wrong number of args for call: want at least 1 got 0")
        value = self._evaluate(command.args[1], dot)
        shown = "call of nil" if value is None else f"non-function {command.args[1]} of type {type_name(value)}"
        self._fail(command, f"error calling call: {shown}")

    def _argument(self, operand: Operand, dot: Any, text: bool) -> Any:
        value = self._evaluate(operand, dot)
        if text and not isinstance(value, str):
            if isinstance(operand, Literal):
                self._fail(operand, f"expected string; found {operand}")
            if isinstance(operand, Nil):
                self._fail(operand, "cannot assign nil to string")
            if value is ABSENT:
                self._fail(operand, "invalid value; expected string")
            self._fail(operand, f"wrong type for value; expected string; got {type_name(value)}")
        return value

    def _logic(self, function: Function, given: Sequence[Operand], dot: Any, last: tuple[Any, ...]) -> Any:
        """and, or: the first argument that decides, and no look at those behind it."""
        if not given and not last:
            self._fail(function, f"wrong number of args for {function.name}: want at least 1 got 0")
        value: Any = None
        for operand in given:
            value = self._evaluate(operand, dot)
            if truth(value) == (function.name == "or"):
                return value
        return last[0] if last else value

    def _fail(self, node: Operand | Command | Include, text: str) -> NoReturn:
        """An error with the place in the source and what stands there, as Go words it."""
        source = self._tree.source
        begins = source.rfind("\n", 0, node.pos) + 1
        column = len(source[begins : node.pos].encode(errors="replace"))
        where = f":{line_of(source, node.pos)}:{column}"
        raise TemplateError(f"template: {where}: executing {quoted(self._name)} at <{node}>: {text}")
