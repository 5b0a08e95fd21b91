"""From the messages of a request to the text of a prompt, by the template that is in force for its model."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from ollamacore import AnswerFormat, ModelfileTemplate
from server.handlers.reference import Target
from server.models.engine import Text
from server.schema import Message, RunRequest, TokenizeRequest


def conversation(target: Target, given: Sequence[Message]) -> list[dict[str, Any]]:
    """The model's own messages, then the request's; its system text only if the request brings none."""
    messages = [*target.messages, *(message.for_template() for message in given)]
    if target.system and given[0].role != "system":
        messages.insert(0, {"role": "system", "content": target.system})
    return messages


def thinking(wanted: RunRequest | TokenizeRequest, target: Target) -> bool | str | None:
    """Whether, or how much, a model is to think: one that can does so unless the request turns it off."""
    if wanted.think is None and target.supports("thinking"):
        return True
    return wanted.think


async def render(
    text: Text,
    target: Target,
    messages: Sequence[Mapping[str, Any]],
    *,
    think: bool | str | None,
    tools: Sequence[Mapping[str, Any]] = (),
    template: ModelfileTemplate | None = None,
) -> str:
    """The prompt for a conversation, by the model's template or by another Go template."""
    template = template or target.template
    if template is not None:
        return await asyncio.to_thread(template.render, messages, tools=tools, think=think)
    variables: dict[str, Any] = {"tools": list(tools)} if tools else {}
    return await text.render(messages, think=think, **variables)


def answer_format(text: Text, target: Target, template: ModelfileTemplate | None = None) -> AnswerFormat:
    """How the model writes thoughts and tool calls, by the template that is in force."""
    template = template or target.template
    return text.answer_format if template is None else template.answer_format
