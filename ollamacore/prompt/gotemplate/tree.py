"""The tree of a parsed Go template.

It is made of statements (Text, Action, Branch, Leave, Include) and, inside their pipelines, of operands.
`str` of an operand is its source in Go's normal form: errors of a rendering quote it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ollamacore.prompt.gotemplate.lexer import quoted


@dataclass(frozen=True, slots=True)
class Operand:
    """Anything that has a value; `pos` is where it stands in the source."""

    pos: int


@dataclass(frozen=True, slots=True)
class Literal(Operand):
    """A constant."""

    value: Any
    source: str

    def __str__(self) -> str:
        return self.source


class Nil(Operand):
    """nil."""

    __slots__ = ()

    def __str__(self) -> str:
        return "nil"


class Dot(Operand):
    """The value that is at hand."""

    __slots__ = ()

    def __str__(self) -> str:
        return "."


@dataclass(frozen=True, slots=True)
class Field(Operand):
    """Fields of the dot: .Message.Content."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return "".join(f".{name}" for name in self.names)


@dataclass(frozen=True, slots=True)
class Variable(Operand):
    """A variable, or fields of one: $x.Content."""

    name: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join((self.name, *self.names))


@dataclass(frozen=True, slots=True)
class Chain(Operand):
    """Fields of what a pipeline in parentheses, or a function, gives."""

    base: Operand
    names: tuple[str, ...]

    def __str__(self) -> str:
        base = f"({self.base})" if isinstance(self.base, Pipe) else str(self.base)
        return ".".join((base, *self.names))


@dataclass(frozen=True, slots=True)
class Function(Operand):
    """A function by its name."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Command:
    """An operand, or a function with its arguments."""

    pos: int
    args: tuple[Operand, ...]

    def __str__(self) -> str:
        return " ".join(f"({arg})" if isinstance(arg, Pipe) else str(arg) for arg in self.args)


@dataclass(frozen=True, slots=True)
class Pipe(Operand):
    """Commands, each with the value of the one before as its last argument; perhaps variables that get the result."""

    declared: tuple[str, ...]
    assigns: bool  # to variables that exist
    commands: tuple[Command, ...]

    def __str__(self) -> str:
        head = ", ".join(self.declared) + (" = " if self.assigns else " := ") if self.declared else ""
        return head + " | ".join(map(str, self.commands))


@dataclass(frozen=True, slots=True)
class Text:
    """What stands between actions."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """A pipeline whose value is written, unless it goes into variables."""

    pos: int
    pipe: Pipe

    def __str__(self) -> str:
        return "{{" + str(self.pipe) + "}}"


@dataclass(frozen=True, slots=True)
class Branch:
    """if, with and range."""

    kind: str
    pos: int
    pipe: Pipe
    body: "Block"
    orelse: "Block | None"


@dataclass(frozen=True, slots=True)
class Leave:
    """break and continue."""

    kind: str


@dataclass(frozen=True, slots=True)
class Include:
    """The rendering of another template of the same source."""

    pos: int
    name: str
    pipe: Pipe | None

    def __str__(self) -> str:
        return "{{template " + quoted(self.name) + (f" {self.pipe}" if self.pipe else "") + "}}"


Statement = Text | Action | Branch | Leave | Include
Block = tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """A parsed source: the template itself and those that it defines."""

    source: str
    root: Block
    defined: dict[str, Block]


def operands(part: Any) -> Iterator[Operand]:
    """Every operand below a statement, block, pipeline or tree, in the order of the source."""
    if isinstance(part, Operand) and not isinstance(part, Pipe):
        yield part
    for inner in _inside(part):
        yield from operands(inner)


def _inside(part: Any) -> Sequence[Any]:
    """What a part of a tree is made of."""
    match part:
        case tuple():
            return part
        case Tree(_, root, defined):
            return (root, *defined.values())
        case Branch(_, _, pipe, body, orelse):
            return (pipe, body, orelse)
        case Action(_, pipe) | Include(_, _, pipe):
            return (pipe,)
        case Pipe(_, _, _, commands):
            return tuple(command.args for command in commands)
        case Chain(_, base, _):
            return (base,)
        case _:
            return ()
