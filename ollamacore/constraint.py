"""What an answer may be, token by token: the hook that the scheduler consults, and a choice between fixed texts."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ollamacore.errors import InvalidOptionError
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

    def allowed(self, n_vocab: int) -> array[int]:
        """The tokens that may come next, a bit for each, lowest first, in 32-bit words (array "I")."""

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
