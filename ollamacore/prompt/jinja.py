"""Chat templates in Jinja2, as GGUF files carry them under tokenizer.chat_template.

The settings are those of Hugging Face's apply_chat_template, which templates are written for. A template is
untrusted: whatever it does ends in text or a TemplateError within seconds and a bounded amount of memory.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from jinja2 import Template
from jinja2.exceptions import TemplateSyntaxError

from ollamacore.errors import TemplateError
from ollamacore.prompt.budget import OUTPUT_BYTES, BudgetError, started
from ollamacore.prompt.sandbox import TemplateEnvironment

MAX_SOURCE = 128 << 10
MAX_PARTS = 1_000_000
_ENVIRONMENT = TemplateEnvironment()


def _message(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "the template is nested too deeply"
    if isinstance(error, MemoryError):
        return "the template needs too much memory"
    if isinstance(error, TemplateSyntaxError):
        return error.message or "syntax error"
    return str(error) or type(error).__name__


def _line(template: Template, trace: TracebackType | None) -> int | None:
    """The line of the template that was being rendered when an exception left it."""
    line = None
    while trace is not None:
        if trace.tb_frame.f_globals.get("__jinja_template__") is template:
            line = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return line


def _failure(error: BaseException, line: int | None) -> TemplateError:
    place = f"chat template line {line}" if line else "chat template"
    return TemplateError(f"{place}: {_message(error)}")


def _input_bytes(value: Any) -> int:
    """Characters in the strings of the arguments; a part that occurs twice counts twice."""
    total, stack, visited = 0, [value], 0
    while stack:
        part = stack.pop()
        visited += 1
        if visited > MAX_PARTS:
            raise BudgetError("the messages have too many parts")
        if isinstance(part, str):
            total += len(part)
        elif isinstance(part, Mapping):
            stack.extend(part.values())
        elif isinstance(part, (list, tuple)):
            stack.extend(part)
    return total


class ChatTemplate:
    """A compiled chat template; rendering is thread-safe and leaves the messages alone."""

    #: Every name that the template reads, such as "tools" or "enable_thinking".
    variables: frozenset[str]
    #: The template takes a message's content only as a list of parts ({"type": "text", "text": ...}).
    needs_parts: bool

    def __init__(self, source: str, *, bos_token: str, eos_token: str) -> None:
        self.source = source
        self.bos_token = bos_token
        self.eos_token = eos_token
        if len(source) > MAX_SOURCE:
            raise TemplateError(f"chat template: more than {MAX_SOURCE} characters")
        try:
            self._template, self.variables = _ENVIRONMENT.compile_guarded(source)
        except TemplateSyntaxError as error:
            raise _failure(error, error.lineno) from None
        except Exception as error:
            raise _failure(error, None) from error
        self.needs_parts = self._probe()

    def _probe(self) -> bool:
        """Whether text is lost when it comes as a string, but not when it comes as a part.

        A template that exceeds its budget even here is refused.
        """
        needle = "oWbDr8fK"
        plain = [{"role": "user", "content": needle}]
        return not self._shows(needle, plain) and self._shows(needle, _with_parts(plain))

    def _shows(self, needle: str, messages: Sequence[Mapping[str, Any]]) -> bool:
        try:
            return needle in self._render({"messages": messages, "add_generation_prompt": True})
        except TemplateError as error:
            if isinstance(error.__cause__, BudgetError):
                raise
            return False

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt for a conversation. Further variables (enable_thinking ...) reach the template as given.

        Content that is a string becomes a list of parts where the template needs that. TemplateError tells
        the template's own complaint, or what went wrong, and in which of its lines.
        """
        if self.needs_parts:
            messages = _with_parts(messages)
        names = {"messages": messages, "tools": tools, "documents": None}
        return self._render({**names, "add_generation_prompt": add_generation_prompt, **variables})

    def _render(self, variables: dict[str, Any]) -> str:
        names = {"bos_token": self.bos_token, "eos_token": self.eos_token, **variables}
        try:
            with started(_input_bytes(names)):
                context = self._template.new_context(names)
                return _collect(self._template.root_render_func(context))
        except Exception as error:
            raise _failure(error, _line(self._template, error.__traceback__)) from error


def _collect(pieces: Iterable[str]) -> str:
    found, size = [], 0
    for piece in pieces:
        size += len(piece)
        if size > OUTPUT_BYTES:
            raise BudgetError(f"the prompt has more than {OUTPUT_BYTES} characters")
        found.append(piece)
    return "".join(found)


def _with_parts(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    def parts(content: Any) -> Any:
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    return [{**message, "content": parts(message.get("content"))} for message in messages]
