"""Answers: what of a model's text is thought, content or a tool call, by the template that wrote its prompt."""

import random
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ollamacore.prompt import harmony
from ollamacore.prompt.harmony import HarmonyParser, Thought
from ollamacore.prompt.thinking import ThinkingParser, ThinkingTags, jinja_thinking_tags
from ollamacore.prompt.tools import Call, CallFormat, CallParser, jinja_format, tool_schemas

#: around the content of models that are told to write thoughts and answers between tags
_RESPONSE = ThinkingTags("<response>", "</response>", trimmed=True)
_ID_LETTERS = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model wants to have called; `index` counts the calls of an answer."""

    id: str
    index: int
    name: str
    arguments: dict[str, Any]


#: content, a piece of a thought, or a call
Part: TypeAlias = str | Thought | ToolCall


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """How a model writes thoughts and tool calls."""

    thinking: ThinkingTags | None = None
    calls: CallFormat | None = None
    is_harmony: bool = False
    has_responses: bool = False  # the content stands between tags of its own

    @property
    def can_think(self) -> bool:
        """Whether there are thoughts to be found."""
        return self.is_harmony or self.thinking is not None

    def thinking_variables(self, think: bool | str | None) -> dict[str, Any]:
        """What Jinja templates want to know about thinking: templates of one family or another read one of these."""
        if not self.can_think:
            return {}
        wanted = think is None or bool(think)
        effort = {"max": "high"}.get(str(think), think) if self.is_harmony else think
        level = {"reasoning_effort": effort} if isinstance(think, str) else {}
        return {"enable_thinking": wanted, "thinking": wanted, **level}

    def parser(self, prompt: str, tools: Iterable[Mapping[str, Any]] = ()) -> "AnswerParser | None":
        """A parser for the answer to a prompt, None where all of it is content. Calls count only if there are tools."""
        schemas = tool_schemas(tools)
        if self.is_harmony:
            return AnswerParser(harmony.TAGS, messages=HarmonyParser(schemas, prompt))
        form = self.calls if schemas else None
        tags: list[str] = []
        thoughts = calls = None
        if form:
            tags += form.tags
            calls = CallParser(form, schemas)
        if self.thinking:
            tags += (self.thinking.opening, self.thinking.closing)
            inside = prompt.rstrip().endswith(self.thinking.opening)
            thoughts = ThinkingParser(self.thinking, inside=inside, enders=form.openings if form else ())
        frame = ThinkingParser(_RESPONSE) if self.has_responses else None
        return AnswerParser(tags, thoughts=thoughts, frame=frame, calls=calls) if thoughts or calls else None


class AnswerParser:
    """Splits one answer into its parts. `tags` are the texts that it must see, even if they are control tokens."""

    def __init__(
        self,
        tags: Sequence[str],
        *,
        thoughts: ThinkingParser | None = None,
        frame: ThinkingParser | None = None,
        calls: CallParser | None = None,
        messages: HarmonyParser | None = None,
    ) -> None:
        self.tags = tags
        self._thoughts = thoughts
        self._frame = frame
        self._calls = calls
        self._messages = messages
        self._count = 0

    @property
    def in_content(self) -> bool:
        """Whether the thought is over: what comes now is content, or a call."""
        inner = self._messages or self._thoughts
        return inner is None or inner.in_content

    @property
    def opening(self) -> str:
        """The tag that a thought may begin with now; empty where it has begun, or never will."""
        return self._thoughts.opening if self._thoughts else ""

    def push(self, text: str) -> list[Part]:
        """The parts that this text makes final, in their order; the same however the answer is cut."""
        if self._messages:
            return self._numbered(self._messages.push(text))
        thought, content = self._thoughts.push(text) if self._thoughts else ("", text)
        if self._frame and content:
            content = "".join(self._frame.push(content))
        return self._parts(thought, content, final=False)

    def finish(self) -> list[Part]:
        """What was held back until the end."""
        if self._messages:
            return self._numbered(self._messages.finish())
        thought, content = self._thoughts.finish() if self._thoughts else ("", "")
        if self._frame:
            content = "".join((*self._frame.push(content), *self._frame.finish()))
        return self._parts(thought, content, final=True)

    def _parts(self, thought: str, content: str, *, final: bool) -> list[Part]:
        found: list[Part] = [Thought(thought)] if thought else []
        if self._calls:
            found += self._numbered(self._calls.push(content) if content else ())
            found += self._numbered(self._calls.finish() if final else ())
        elif content:
            found.append(content)
        return found

    def _numbered(self, parts: Iterable[str | Thought | Call]) -> list[Part]:
        found: list[Part] = []
        for part in parts:
            if isinstance(part, Call):
                found.append(ToolCall(_new_id(), self._count, part.name, part.arguments))
                self._count += 1
            else:
                found.append(part)
        return found


def jinja_answer_format(source: str, has_token: Callable[[str], bool] = lambda text: False) -> AnswerFormat:
    """How the model of a Jinja chat template answers; `has_token` says what is a token of its vocabulary."""
    if harmony.is_harmony(source):
        return AnswerFormat(is_harmony=True)
    responds = _RESPONSE.opening + _RESPONSE.closing in source
    return AnswerFormat(jinja_thinking_tags(source), jinja_format(source, has_token), has_responses=responds)


def _new_id() -> str:
    return "call_" + "".join(random.choices(_ID_LETTERS, k=8))
