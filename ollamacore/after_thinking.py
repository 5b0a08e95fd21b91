"""AfterThinking: a constraint on the content of an answer leaves the thought before it free."""

from __future__ import annotations

from array import array
from enum import Enum, auto
from functools import lru_cache

from ollamacore.constraint import TokenConstraint, token_mask
from ollamacore.prompt.answer import AnswerParser
from ollamacore.tokenizer import Tokenizer


@lru_cache(4)
def _everything(n_vocab: int) -> array[int]:
    """A bit for each token of the vocabulary, all of them set."""
    words = array("I", b"\xff" * (4 * -(-n_vocab // 32)))
    words[-1] >>= -n_vocab % 32
    return words


class _Phase(Enum):
    START = auto()  # a thought may begin, or the content
    OPENING = auto()  # within the opening tag
    THINKING = auto()
    CONTENT = auto()


class AfterThinking:
    """What `inner` allows, once the parser of the answer says that the content begins.

    The parser must have seen the tokens that were accepted, as the one of the generation has.
    """

    def __init__(self, inner: TokenConstraint, answer: AnswerParser, tokenizer: Tokenizer) -> None:
        self._inner = inner
        self._answer = answer
        self._opening = tokenizer.encode(answer.opening, add_special=False) if answer.opening else []
        self._next = 0  # of the opening tag
        self._phase = _Phase.START if self._opening else _Phase.THINKING

    @property
    def finished(self) -> bool:
        """Whether the content is complete."""
        return self._phase is _Phase.CONTENT and self._inner.finished

    def forced(self) -> int | None:
        """The next token of the opening tag or of the content, where it leaves no choice."""
        self._look()
        if self._phase is _Phase.OPENING:
            return self._opening[self._next]
        return self._inner.forced() if self._phase is _Phase.CONTENT else None

    def allowed(self, n_vocab: int) -> array[int]:
        """Everything in a thought; before it, its opening tag or the content."""
        self._look()
        if self._phase is _Phase.THINKING:
            return _everything(n_vocab)
        if self._phase is _Phase.OPENING:
            return token_mask(self._opening[self._next : self._next + 1], n_vocab)
        words = self._inner.allowed(n_vocab)
        if self._phase is _Phase.START:
            words = array("I", words)  # the inner one's own may be kept by it
            words[self._opening[0] // 32] |= 1 << self._opening[0] % 32
        return words

    def accept(self, token: int) -> None:
        """Follow a token."""
        if self._phase is _Phase.START:
            self._phase = _Phase.OPENING if token == self._opening[0] else _Phase.CONTENT
        if self._phase is _Phase.OPENING:
            self._next += 1
            if self._next == len(self._opening):
                self._phase = _Phase.THINKING
        elif self._phase is _Phase.CONTENT:
            self._inner.accept(token)

    def _look(self) -> None:
        """See whether the thought is over."""
        if self._phase is _Phase.THINKING and self._answer.in_content:
            self._phase = _Phase.CONTENT
