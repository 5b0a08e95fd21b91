"""ModelText: the part of a model that needs no weights - tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from typing import Any, Self

from ollamacore.errors import TemplateError
from ollamacore.gguf import GGUFFile
from ollamacore.prompt.answer import AnswerFormat, jinja_answer_format
from ollamacore.prompt.history import for_template
from ollamacore.prompt.jinja import ChatTemplate
from ollamacore.tokenizer import Tokenizer


class ModelText:
    """Turns conversations into prompts and prompts into tokens. Thread-safe; nothing in it refers to the file."""

    def __init__(self, file: GGUFFile, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.chat_template: str | None = file.get("tokenizer.chat_template", str, None)
        self._template: ChatTemplate | None = None

    @cached_property
    def answer_format(self) -> AnswerFormat:
        """How the model writes thoughts and tool calls, by its chat template and vocabulary."""
        if self.chat_template is None:
            return AnswerFormat()
        return jinja_answer_format(self.chat_template, self.tokenizer.has_token)

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Self:
        """Read the vocabulary and the template of a GGUF file, and nothing else of it."""
        with GGUFFile.open(path) as file:
            return cls(file, Tokenizer.from_gguf(file))

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        think: bool | str | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt that the chat template makes of messages. TemplateError if there is none or it fails.

        `think` says whether, or how much, a model that can is to think (by default it does); further variables go to
        the template as they are.
        """
        if self.chat_template is None:
            raise TemplateError("the model has no chat template")
        if self._template is None:
            names = {
                name: self.tokenizer.token_text(token) if token is not None else ""
                for name, token in (("bos_token", self.tokenizer.bos), ("eos_token", self.tokenizer.eos))
            }
            self._template = ChatTemplate(self.chat_template, **names)
        names = {**self.answer_format.thinking_variables(think), **variables}
        shown = for_template(messages, self.chat_template, self.answer_format.calls)
        return self._template.render(shown, tools=tools, add_generation_prompt=add_generation_prompt, **names)

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text; see Tokenizer.encode."""
        return self.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    def tokenize_prompt(self, prompt: str) -> list[int]:
        """Token ids of a rendered prompt: special tokens parsed, BOS added unless the text already begins with it."""
        ids = self.tokenizer.encode(prompt)
        if len(ids) > 1 and ids[0] == ids[1] == self.tokenizer.bos:
            del ids[0]
        return ids

    def detokenize(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of token ids; see Tokenizer.decode."""
        return self.tokenizer.decode(ids, special=special)
