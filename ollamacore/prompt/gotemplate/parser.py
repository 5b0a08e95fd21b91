"""From tokens to the tree of a Go template. Errors are worded as Go's text/template words them."""

from collections.abc import Sequence
from typing import Any, NoReturn

from ollamacore.errors import TemplateError
from ollamacore.prompt.gotemplate.lexer import Lexer, Token, line_of, quoted
from ollamacore.prompt.gotemplate.literals import character, number, unquoted
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

MAX_DEPTH = 50
MAX_TOKENS = 1 << 18


def parse(source: str, functions: frozenset[str]) -> Tree:
    """The tree of a source; TemplateError if it is no template."""
    return _Parser(source, functions).tree()


class _Parser:
    def __init__(self, source: str, functions: frozenset[str]) -> None:
        self._source = source
        self._functions = functions
        self._tokens = Lexer(source).run()
        if len(self._tokens) > MAX_TOKENS:
            raise TemplateError(f"template: :1: more than {MAX_TOKENS} tokens")
        self._at = 0
        self._variables = ["$"]
        self._ranges = 0
        self._depth = 0
        self._defined: dict[str, Block] = {}

    # -- tokens --

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _peek_word(self) -> Token:
        while self._peek().kind == "space":
            self._at += 1
        return self._peek()

    def _next_word(self) -> Token:
        self._peek_word()
        return self._next()

    def _expect(self, kind: str, where: str) -> Token:
        token = self._next_word()
        if token.kind != kind:
            self._unexpected(token, where)
        return token

    def _fail(self, text: str, at: Token | None = None) -> NoReturn:
        line = line_of(self._source, (at or self._tokens[max(self._at - 1, 0)]).pos)
        raise TemplateError(f"template: :{line}: {text}")

    def _unexpected(self, token: Token, where: str) -> NoReturn:
        self._fail(token.text if token.kind == "error" else f"unexpected {token} in {where}", token)

    # -- statements --

    def tree(self) -> Tree:
        statements: list[Statement] = []
        while (token := self._peek()).kind != "eof":
            if token.kind == "left" and self._opens("define"):
                self._define()
                continue
            found = self._statement()
            if isinstance(found, str):
                self._fail(f"unexpected {{{{{found}}}}}", token)
            statements.append(found)
        return Tree(self._source, tuple(statements), self._defined)

    def _opens(self, keyword: str) -> bool:
        """Whether the action that begins here has this keyword; then it is read."""
        before = self._at
        self._next()
        if self._peek_word().kind == keyword:
            self._next()
            return True
        self._at = before
        return False

    def _define(self) -> None:
        name = self._template_name("define clause")
        self._expect("right", "define clause")
        self._define_as(name, self._own_scope("define clause"))

    def _own_scope(self, where: str) -> Block:
        """The statements of a template of its own, up to its end: the variables around it are not seen."""
        outside, ranges = self._variables, self._ranges
        self._variables, self._ranges = ["$"], 0
        body, stop = self._block()
        if stop != "end":
            self._fail(f"unexpected {{{{{stop}}}}} in {where}")
        self._variables, self._ranges = outside, ranges
        return body

    def _define_as(self, name: str, body: Block) -> None:
        """A template that is empty gives way to one that is not; two that are not are an error."""
        if name in self._defined and not _blank(self._defined[name]):
            if _blank(body):
                return
            self._fail(f"template: multiple definition of template {quoted(name)}")
        self._defined[name] = body

    def _template_name(self, where: str) -> str:
        token = self._next_word()
        if token.kind not in ("string", "raw"):
            self._unexpected(token, where)
        return str(self._constant(token))

    def _block(self) -> tuple[Block, str]:
        """Statements up to an {{else}} or {{end}}, and which of the two it was."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail("the template is nested too deeply")
        statements: list[Statement] = []
        while self._peek_word().kind != "eof":
            found = self._statement()
            if isinstance(found, str):
                self._depth -= 1
                return tuple(statements), found
            statements.append(found)
        return self._fail("unexpected EOF", self._peek())

    def _statement(self) -> Statement | str:
        token = self._next_word()
        if token.kind == "text":
            return Text(token.text)
        if token.kind != "left":
            self._unexpected(token, "input")
        first = self._peek_word()
        if first.kind in ("if", "with", "range"):
            self._next()
            return self._branch(first)
        if first.kind in ("break", "continue"):
            self._next()
            return self._leave(first)
        if first.kind in ("end", "else"):
            self._next()
            return self._stop(first)
        if first.kind in ("template", "block"):
            self._next()
            return self._include(first)
        return Action(first.pos, self._pipeline("command", "right"))

    def _stop(self, token: Token) -> str:
        """{{end}} or {{else}}; what follows an else is read by its branch."""
        if token.kind == "else" and self._peek_word().kind in ("if", "with"):
            return "else"
        self._expect("right", token.kind)
        return token.kind

    def _leave(self, token: Token) -> Leave:
        following = self._next_word()
        if following.kind != "right":
            self._unexpected(following, f"{{{{{token.kind}}}}}")
        if not self._ranges:
            self._fail(f"{{{{{token.kind}}}}} outside {{{{range}}}}")
        return Leave(token.kind)

    def _branch(self, token: Token) -> Branch:
        """An if, with or range, up to its own end."""
        known = len(self._variables)
        pipe = self._pipeline(token.kind, "right")
        self._ranges += token.kind == "range"
        body, stop = self._block()
        self._ranges -= token.kind == "range"
        orelse = self._orelse(token) if stop == "else" else None
        del self._variables[known:]
        return Branch(token.kind, token.pos, pipe, body, orelse)

    def _orelse(self, token: Token) -> Block:
        """What follows {{else}}; {{else if}} and {{else with}} share the end of the branch that they are in."""
        if token.kind in ("if", "with") and self._peek().kind == token.kind:
            self._depth += 1
            if self._depth > MAX_DEPTH:
                self._fail("the template is nested too deeply")
            inner = self._branch(self._next())
            self._depth -= 1
            return (inner,)
        body, stop = self._block()
        if stop != "end":
            self._fail(f"expected end; found {{{{{stop}}}}}")
        return body

    def _include(self, token: Token) -> Include:
        where = f"{token.kind} clause"
        place = self._peek_word().pos
        name = self._template_name(where)
        if token.kind == "block":
            pipe = self._pipeline(where, "right")
            self._define_as(name, self._own_scope(where))
            return Include(place, name, pipe)
        if self._peek_word().kind == "right":
            self._next()
            return Include(place, name, None)
        return Include(place, name, self._pipeline(where, "right"))

    # -- operands --

    def _pipeline(self, where: str, end: str) -> Pipe:
        start = self._peek_word()
        declared, assigns = self._declarations(where)
        commands: list[Command] = []
        while self._peek_word().kind != end:
            token = self._peek()
            if token.kind not in _STARTS:
                self._next()
                self._unexpected(token, where)
            commands.append(self._command())
        self._next()
        if not commands:
            self._fail(f"missing value for {where}")
        for stage, command in enumerate(commands[1:], 2):
            if isinstance(command.args[0], Literal | Nil | Dot):
                self._fail(f"non executable command in pipeline stage {stage}")
        return Pipe(start.pos, tuple(declared), assigns, tuple(commands))

    def _declarations(self, where: str) -> tuple[list[str], bool]:
        """The variables to the left of := or =; none if the pipeline begins with the value of one."""
        declared: list[str] = []
        while self._peek_word().kind == "variable":
            before = self._at
            name = self._next().text
            sign = self._peek_word()
            if sign.kind in ("assign", "declare"):
                self._next()
                declared.append(name)
                self._variables.append(name)
                return declared, sign.kind == "assign"
            if sign.text != ",":
                self._at = before
                break
            self._next()
            declared.append(name)
            self._variables.append(name)
            if where != "range" or len(declared) > 1:
                self._fail(f"too many declarations in {where}")
            if self._peek_word().kind not in ("variable", "right", ")"):
                self._fail("range can only initialize variables")
        return declared, False

    def _command(self) -> Command:
        start = self._peek_word()
        args: list[Operand] = []
        while True:
            self._peek_word()
            operand = self._operand()
            if operand is not None:
                args.append(operand)
            token = self._peek()
            if token.kind == "space":
                self._next()
            elif token.kind in ("right", ")"):
                break
            elif token.kind == "pipe":
                self._next()
                break
            else:
                self._next()
                self._unexpected(token, "operand")
        if not args:
            self._fail("empty command")
        return Command(start.pos, tuple(args))

    def _operand(self) -> Operand | None:
        """A term and the fields that are asked of it."""
        term = self._term()
        names: list[str] = []
        at = self._peek().pos
        while term is not None and self._peek().kind == "field":
            names.append(self._next().text[1:])
        if term is None or not names:
            return term
        if isinstance(term, Field):
            return Field(at, (*term.names, *names))
        if isinstance(term, Variable):
            return Variable(at, term.name, (*term.names, *names))
        if isinstance(term, Literal | Nil | Dot):
            self._fail(f"unexpected . after term {quoted(str(term))}")
        return Chain(at, term, tuple(names))

    def _term(self) -> Operand | None:
        token = self._peek()
        if token.kind not in _STARTS:
            return None
        self._next()
        if token.kind == "(":
            return self._parenthesised()
        if token.kind == "identifier":
            if token.text not in self._functions:
                self._fail(f"function {quoted(token.text)} not defined", token)
            return Function(token.pos, token.text)
        if token.kind == "variable":
            if token.text not in self._variables:
                self._fail(f"undefined variable {quoted(token.text)}", token)
            return Variable(token.pos, token.text, ())
        if token.kind == "field":
            return Field(token.pos, (token.text[1:],))
        if token.kind == "dot":
            return Dot(token.pos)
        return Nil(token.pos) if token.kind == "nil" else Literal(token.pos, self._constant(token), token.text)

    def _parenthesised(self) -> Pipe:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail("the template is nested too deeply")
        pipe = self._pipeline("parenthesized pipeline", ")")
        self._depth -= 1
        return pipe

    def _constant(self, token: Token) -> Any:
        """The value of a literal."""
        if token.kind == "bool":
            return token.text == "true"
        try:
            if token.kind == "number":
                return number(token.text)
            return character(token.text) if token.kind == "character" else unquoted(token.text)
        except ValueError as error:
            self._fail(str(error), token)


_STARTS = frozenset(
    ("bool", "character", "dot", "field", "identifier", "number", "nil", "raw", "string", "variable", "(")
)


def _blank(block: Sequence[Statement]) -> bool:
    return all(isinstance(part, Text) and not part.text.strip() for part in block)
