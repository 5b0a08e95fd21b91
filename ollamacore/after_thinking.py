"""A constraint on the content of an answer leaves the thought before it free."""

from copy import deepcopy

from ollamacore.constraint import Deferred, TokenConstraint
from ollamacore.prompt.answer import AnswerParser
from ollamacore.session import TextAssembler
from ollamacore.tokenizer import Tokenizer


def after_thinking(constraint: TokenConstraint, answer: AnswerParser, tokenizer: Tokenizer) -> Deferred:
    """What a constraint allows, from where the content begins: at once, or behind a thought.

    `answer` is the parser of the answer, before its first token; it is left as it is.
    """
    parser = deepcopy(answer)
    text = TextAssembler(tokenizer.stream(), (), tokenizer.hidden(answer.tags))

    def begins(token: int) -> bool:
        parser.push(text.push(token))
        return parser.in_content

    opening = tokenizer.encode(answer.opening, add_special=False) if answer.opening else []
    return Deferred(constraint, begins, first=opening[:1])
