"""Messages of a conversation as chat templates want them: calls of tools have ids, and answers name their call."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from ollamacore.prompt.thinking import ThinkingParser, ThinkingTags
from ollamacore.prompt.tools import Call, CallFormat

Messages: TypeAlias = Sequence[Mapping[str, Any]]

#: Templates of Mistral's models refuse ids of any other length, and say so.
_ID_LENGTH = 9
_REFUSAL = f"length != {_ID_LENGTH}"


def for_template(messages: Messages, source: str, calls: CallFormat | None) -> Messages:
    """The messages for a Jinja template: calls and answers have ids, and where the template leaves calls out, they
    stand in the content, as the model would have written them."""
    if not any(message.get("tool_calls") for message in messages):
        return messages
    if calls and "tool_calls" not in source:
        messages = [_written(message, calls) for message in messages]
    return with_call_ids(messages, strict=_REFUSAL in source)


def without_old_thoughts(messages: Messages, tags: ThinkingTags) -> list[Mapping[str, Any]]:
    """The messages without thoughts in the text of answers before the last question: some clients send them back."""
    last = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=0)
    return [
        {**message, "content": _content(message["content"], tags)}
        if at < last and message["role"] == "assistant"
        else message
        for at, message in enumerate(messages)
    ]


def _content(text: str, tags: ThinkingTags) -> str:
    parser = ThinkingParser(tags)
    _, content = parser.push(text)
    return content if parser.in_content else text


def with_call_ids(messages: Messages, *, strict: bool) -> Messages:
    """The messages with an id for every call, and for every answer of a tool that of its call: the one it names, or the
    first one of its tool that has no answer yet. Clients need not send ids; `strict` replaces those that they send."""
    open_calls: list[tuple[str, str, str]] = []  # given id, tool, new id
    shown: list[Mapping[str, Any]] = []
    for at, message in enumerate(messages):
        calls = message.get("tool_calls")
        if isinstance(calls, list | tuple) and calls:
            named = [_with_id(call, f"{at}.{index}", strict=strict) for index, call in enumerate(calls)]
            open_calls = [call[:3] for call in named]
            shown.append({**message, "tool_calls": [call[3] for call in named]})
        elif message.get("role") == "tool":
            shown.append(_answer(message, open_calls))
        else:
            shown.append(message)
    return shown


def _written(message: Mapping[str, Any], form: CallFormat) -> Mapping[str, Any]:
    """A message whose calls are a part of its content."""
    calls = list(_calls(message.get("tool_calls") or ()))
    content = message.get("content") or ""
    if not calls or not isinstance(content, str):
        return message
    return {**message, "content": content + form.write(calls)}


def _calls(given: Iterable[Any]) -> Iterable[Call]:
    """The calls of a message that are whole."""
    for call in given:
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping) and isinstance(function.get("arguments"), dict):
            yield Call(str(function.get("name")), function["arguments"])


def _with_id(call: Any, place: str, *, strict: bool) -> tuple[str, str, str, Any]:
    """(given id, tool, new id, call with the new id)."""
    if not isinstance(call, Mapping):
        return "", "", "", call
    given = call.get("id")
    function = call.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    text = given if isinstance(given, str) else ""
    fits = len(text) == _ID_LENGTH and text.isalnum() if strict else text
    new = text if fits else _digest(text or place)
    return text, name if isinstance(name, str) else "", new, {**call, "id": new}


def _answer(message: Mapping[str, Any], open_calls: list[tuple[str, str, str]]) -> Mapping[str, Any]:
    """An answer of a tool with the id, and the name, of its call, which is then no longer open."""
    given, name = message.get("tool_call_id"), message.get("tool_name")
    wanted = (
        lambda call: bool(given) and call[0] == given,
        lambda call: bool(name) and call[1] == name,
        lambda call: not given and not name,
    )
    for fits in wanted:
        for call in open_calls:
            if fits(call):
                open_calls.remove(call)
                return {"name": call[1], "tool_name": call[1], **message, "tool_call_id": call[2]}
    return message


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:_ID_LENGTH]
