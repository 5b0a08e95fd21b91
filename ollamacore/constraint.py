"""What an answer may be, token by token: the hook of the scheduler, a choice between fixed texts, a grammar."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ollamacore._core import Grammar, Matcher, Spellings
from ollamacore.errors import EngineError, InvalidOptionError
from ollamacore.tokenizer import Tokenizer


class TokenConstraint(Protocol):
    """The state of one generation; the scheduler calls it in the engine's thread and tells it every token.

    A forced token must be the only one that `allowed` has, for where log-probabilities are wanted it is sampled.
    """

    @property
    def finished(self) -> bool:
        """Whether the answer is complete: the generation ends with "stop"."""

    def forced(self) -> int | None:
        """The token that must come next, if there is one: it is taken without being sampled, and computed together
        with what follows."""

    def allowed(self, n_vocab: int) -> array[int] | None:
        """The tokens that may come next, a bit for each, lowest first, in 32-bit words (array "I"); None: all."""

    def accept(self, token: int) -> None:
        """The token that came next."""


@dataclass(slots=True)
class _Node:
    """A place in the tree of choices."""

    children: dict[int, _Node] = field(default_factory=dict)
    is_end: bool = False


class Choice:
    """An answer that is exactly one of `choices`. For one generation; each needs a new one.

    Each text has the tokens that the tokenizer makes of it, so the model weighs them as it has learned them.
    """

    def __init__(self, tokenizer: Tokenizer, choices: Iterable[str]) -> None:
        root = _Node()
        for text in choices:
            node = root
            for token in _spell(tokenizer, text):
                node = node.children.setdefault(token, _Node())
            node.is_end = True
        if not root.children:
            raise InvalidOptionError("there is nothing to choose from")
        self._node = root
        self._end_ids = tokenizer.end_ids

    @property
    def finished(self) -> bool:
        """Whether no choice goes on from here."""
        return not self._node.children

    def forced(self) -> int | None:
        """The next token where all choices agree on it."""
        return next(iter(self._node.children)) if len(self._node.children) == 1 and not self._node.is_end else None

    def allowed(self, n_vocab: int) -> array[int]:
        """The next tokens of the choices; where one of them ends, the end tokens too."""
        return token_mask([*self._node.children, *(self._end_ids if self._node.is_end else ())], n_vocab)

    def accept(self, token: int) -> None:
        """Follow a token."""
        self._node = self._node.children[token]


class GrammarConstraint:
    """An answer in a grammar, such as that of a JSON schema. For one generation; Model.constraint makes one.

    `spellings` are those of the tokenizer's vocabulary, for as many tokens as the model predicts.
    """

    def __init__(self, grammar: Grammar, tokenizer: Tokenizer, spellings: Spellings) -> None:
        self._matcher = Matcher(grammar)
        self._tokenizer = tokenizer
        self._spellings = spellings
        self._mask = array("I", bytes(4 * -(-spellings.n_vocab // 32)))
        self._ahead: list[int] | None = None  # tokens that must come, the next one last; None: not looked for

    @property
    def finished(self) -> bool:
        """Whether nothing can follow."""
        return self._matcher.must_end

    def forced(self) -> int | None:
        """The next token where the grammar leaves no choice for longer than that."""
        if self._ahead is None:
            self._ahead = self._look_ahead()
        return self._ahead[-1] if self._ahead else None

    def allowed(self, n_vocab: int) -> array[int]:
        """The forced token, or all that the grammar has, and the end tokens where it may end."""
        token = self.forced()
        if token is not None:
            return token_mask([token], n_vocab)
        self._matcher.mask(self._spellings, self._mask)
        return self._mask

    def accept(self, token: int) -> None:
        """Follow a token."""
        if not self._matcher.accept(self._tokenizer.token_bytes(token)):
            raise EngineError(f"token {token} is not allowed here")
        if self._ahead and self._ahead[-1] == token:
            self._ahead.pop()
        if not self._ahead:
            self._ahead = None

    def _look_ahead(self) -> list[int]:
        """The tokens of the text that must come, without the last: it may be a part of a longer one."""
        text = _whole_characters(self._matcher.forced())
        if len(text) < 2:
            return []
        try:
            tokens = _spell(self._tokenizer, text)[:-1]
        except InvalidOptionError:  # no tokens for it: the mask goes on byte by byte
            return []
        return [] if any(token >= self._spellings.n_vocab for token in tokens) else list(reversed(tokens))


class Deferred:
    """A constraint that holds from some token on, such as one for an answer behind a thought.

    `begins` hears each token until it says that what follows is the answer; until then all tokens are allowed. With
    `first`, the tokens that such a thought may begin with, the answer may also come at once: the first token is one of
    these, or one of the constraint's.
    """

    def __init__(
        self, constraint: TokenConstraint, begins: Callable[[int], bool], *, first: Iterable[int] = ()
    ) -> None:
        self._constraint = constraint
        self._begins = begins
        self._first = frozenset(first)  # empty behind the first token
        self._holds = False

    @property
    def finished(self) -> bool:
        """Whether the answer is complete."""
        return self._holds and self._constraint.finished

    def forced(self) -> int | None:
        """What the constraint forces, once it holds."""
        return self._constraint.forced() if self._holds else None

    def allowed(self, n_vocab: int) -> array[int] | None:
        """What the constraint allows, once it holds."""
        if not self._holds and not self._first:
            return None
        mask = self._constraint.allowed(n_vocab)
        if self._first:
            mask = _with(token_mask(self._first, n_vocab), mask)
        return mask

    def accept(self, token: int) -> None:
        """Follow a token."""
        if self._first:
            self._holds, self._first = token not in self._first, frozenset()
        if self._holds:
            self._constraint.accept(token)
        else:
            self._holds = self._begins(token)


def _whole_characters(data: bytes) -> str:
    """The text up to a character that is not whole; none if that is the first."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return data[: error.start].decode()


def _with(mask: array[int], other: array[int] | None) -> array[int] | None:
    """The tokens of both."""
    return None if other is None else array("I", (a | b for a, b in zip(mask, other, strict=True)))


def token_mask(ids: Iterable[int], n_vocab: int) -> array[int]:
    """A bit for each token of the vocabulary, set for those of `ids`."""
    words = array("I", bytes(4 * -(-n_vocab // 32)))
    for token in ids:
        words[token // 32] |= 1 << token % 32
    return words


def _spell(tokenizer: Tokenizer, text: str) -> Sequence[int]:
    """Tokens that add exactly this text to an answer. Where a tokenizer puts a space before a text, it comes after a
    line feed, and that is cut off again."""
    for before in ("", "\n"):
        skip = tokenizer.encode(before, add_special=False, parse_special=False)
        ids = tokenizer.encode(before + text, add_special=False, parse_special=False)
        rest = ids[len(skip) :]
        if ids[: len(skip)] == skip and b"".join(map(tokenizer.token_bytes, rest)) == text.encode():
            return rest
    raise InvalidOptionError(f"the vocabulary cannot spell {text!r}")
