"""From the text of a Go template to its tokens: text between actions, and what stands inside them.

Trim markers and comments end here: they leave no token. Every error is worded as Go's text/template words it.
"""

import re
from typing import NamedTuple, NoReturn

LEFT, RIGHT = "{{", "}}"
_SPACES = " \t\r\n"
KEYWORDS = frozenset(("block", "break", "continue", "define", "else", "end", "if", "nil", "range", "template", "with"))
_SPACE = re.compile(r"[ \t\r\n]+")
_WORD = re.compile(r"\w*")
_NUMBER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]*)?"
    r"|0[oO][0-7_]*|0[bB][01_]*|[0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]*)?)"
)
_STRING = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"')
_RAW = re.compile(r"`[^`]*`")
_CHARACTER = re.compile(r"'(?:[^'\\\n]|\\[^\n])*'")
_SYMBOLS = {"=": "assign", "|": "pipe", ",": "char"}


class Token(NamedTuple):
    """One token; `kind` is a word of our own, or the keyword itself."""

    kind: str
    text: str
    pos: int

    def __str__(self) -> str:
        if self.kind == "eof":
            return "EOF"
        if self.kind in KEYWORDS or self.kind == "dot":
            return f"<{self.text}>"
        return f"{quoted(self.text[:10])}..." if len(self.text) > 10 else quoted(self.text)


def quoted(text: str) -> str:
    """A text as Go's %q writes it."""
    named = {'"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r"}
    named |= {"\t": "\\t", "\v": "\\v"}

    def shown(char: str) -> str:
        if char in named:
            return named[char]
        if char.isprintable():
            return char
        code = ord(char)
        return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return '"' + "".join(map(shown, text)) + '"'


class _Fault(Exception):
    """What cannot be read as a token."""


class Lexer:
    """The tokens of one template, made all at once. What cannot be read is a token, too: of kind error, the last one.

    So the parser complains of what stands before it first.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._pos = 0
        self._parens = 0
        self._action = 0  # where the action that is being read began
        self.tokens: list[Token] = []

    def run(self) -> list[Token]:
        """All tokens, the last one of kind eof or error."""
        try:
            self._read()
        except _Fault as fault:
            self.tokens.append(Token("error", str(fault), self._pos))
        return self.tokens

    def _read(self) -> None:
        trim = False
        while True:
            end = self._source.find(LEFT, self._pos)
            text = self._source[self._pos :] if end < 0 else self._source[self._pos : end]
            start = self._pos
            if trim:
                stripped = text.lstrip(_SPACES)
                start += len(text) - len(stripped)
                text = stripped
            if end >= 0 and self._marked(end):
                text = text.rstrip(_SPACES)
            if text:
                self.tokens.append(Token("text", text, start))
            if end < 0:
                self._pos = len(self._source)
                self.tokens.append(Token("eof", "", self._pos))
                return
            self._pos = end
            trim = self._comment() if self._at_comment() else self._inside()

    def _marked(self, at: int) -> bool:
        """Whether the delimiter here trims the text before it: a minus and a space follow."""
        following = self._source[at + 2 : at + 4]
        return len(following) == 2 and following[0] == "-" and following[1] in _SPACES

    def _at_comment(self) -> bool:
        return self._source.startswith("/*", self._pos + (4 if self._marked(self._pos) else 2))

    def _comment(self) -> bool:
        """Skip a comment; whether the text behind it is trimmed."""
        end = self._source.find("*/", self._pos)
        if end < 0:
            self._fail("unclosed comment")
        start = self._action = self._pos
        self._pos = end + 2
        length = self._closing()
        if not length:
            self._pos = start
            self._fail("comment ends before closing delimiter")
        self._pos += length
        return length > 2

    def _closing(self) -> int:
        """The length of the closing delimiter here, its trim marker included; 0 if there is none."""
        if self._source.startswith(RIGHT, self._pos):
            return 2
        marker = self._source[self._pos : self._pos + 4]
        return 4 if len(marker) == 4 and marker[0] in _SPACES and marker[1:] == "-}}" else 0

    def _inside(self) -> bool:
        """The tokens of one action; whether the text behind it is trimmed."""
        self._action = self._pos
        self.tokens.append(Token("left", LEFT, self._pos))
        self._pos += 3 if self._marked(self._pos) else 2
        self._parens = 0
        while not (length := self._closing()):
            self._token()
        if self._parens:
            self._fail("unclosed left paren")
        self.tokens.append(Token("right", RIGHT, self._pos))
        self._pos += length
        return length > 2

    def _token(self) -> None:
        if self._pos >= len(self._source):
            self._fail("unclosed action")
        char = self._source[self._pos]
        if char in _SPACES:
            self._space()
        elif char in _SYMBOLS:
            self._add(_SYMBOLS[char], 1)
        elif char == ":":
            if not self._source.startswith(":=", self._pos):
                self._fail("expected :=")
            self._add("declare", 2)
        elif char in "()":
            self._paren(char)
        elif char in "\"`'":
            self._literal(char)
        else:
            self._operand(char)

    def _space(self) -> None:
        """Spaces part operands; the last one may belong to a closing trim marker."""
        found = _SPACE.match(self._source, self._pos)
        assert found is not None
        end = found.end()
        if self._source.startswith("-}}", end):
            end -= 1
        if end > self._pos:
            self._add("space", end - self._pos)

    def _paren(self, char: str) -> None:
        self._parens += 1 if char == "(" else -1
        if self._parens < 0:
            self._fail("unexpected right paren")
        self._add("(" if char == "(" else ")", 1)

    def _literal(self, char: str) -> None:
        pattern, kind, name = {
            '"': (_STRING, "string", "quoted string"),
            "`": (_RAW, "raw", "raw quoted string"),
            "'": (_CHARACTER, "character", "character constant"),
        }[char]
        found = pattern.match(self._source, self._pos)
        if found is None:
            self._fail(f"unterminated {name}")
        self._add(kind, len(found.group()))

    def _operand(self, char: str) -> None:
        """A field, a variable, a number, a word, or a character that means nothing."""
        following = self._source[self._pos + 1 : self._pos + 2]
        if char == "." and not ("0" <= following <= "9"):
            self._name("field", "dot")
        elif char == "$":
            self._name("variable", "variable")
        elif char in "+-.0123456789":
            self._number()
        elif char == "_" or char.isalnum():
            self._name("identifier", "identifier")
        elif char.isascii() and char.isprintable():
            self._add("char", 1)
        else:
            self._fail(f"unrecognized character in action: {_described(char)}")

    def _name(self, kind: str, alone: str) -> None:
        first = self._pos if kind == "identifier" else self._pos + 1
        found = _WORD.match(self._source, first)
        assert found is not None
        end = found.end()
        if not self._ends_word(end):
            self._pos = end
            self._fail(f"bad character {_described(self._source[end])}")
        word = self._source[self._pos : end]
        if kind == "identifier" and word in KEYWORDS:
            kind = word
        elif word in ("true", "false"):
            kind = "bool"
        self._add(kind if end > first else alone, end - self._pos)

    def _ends_word(self, at: int) -> bool:
        following = self._source[at : at + 1]
        return not following or following in " \t\r\n.,|:()" or self._source.startswith(RIGHT, at)

    def _number(self) -> None:
        found = _NUMBER.match(self._source, self._pos)
        assert found is not None
        end = found.end()
        following = self._source[end : end + 1]
        signed = following in ("+", "-") and any(map(str.isdigit, found.group()))
        if signed or following == "_" or following.isalnum():
            self._fail(f"bad number syntax: {quoted(self._source[self._pos : end + 1])}")
        self._add("number", max(end - self._pos, 1))

    def _add(self, kind: str, length: int) -> None:
        self.tokens.append(Token(kind, self._source[self._pos : self._pos + length], self._pos))
        self._pos += length

    def _fail(self, text: str) -> NoReturn:
        """An error, which names the line of the action that is being read if it began on another."""
        line, began = line_of(self._source, self._pos), line_of(self._source, self._action)
        if began != line and text != "unclosed comment":
            started = f"action started at :{began}"
            text = text.removesuffix("action") + started if text.endswith(" action") else f"{text} in {started}"
        raise _Fault(text)


def line_of(source: str, pos: int) -> int:
    """The line of a position, counted from one."""
    return source.count("\n", 0, pos) + 1


def _described(char: str) -> str:
    return f"U+{ord(char):04X}" + (f" '{char}'" if char.isprintable() else "")
