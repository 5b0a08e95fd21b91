"""Messages of a conversation as chat templates want them: calls of tools have ids, and answers name their call."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

#: Templates of Mistral's models refuse ids of any other length.
_ID_LENGTH = 9


def with_call_ids(messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The messages with an id of nine letters and digits for every call, and for every answer of a tool that of its
    call: the one it names, or the first one of its tool that has no answer yet. Clients need not send ids."""
    if not any(message.get("tool_calls") for message in messages):
        return messages
    open_calls: list[tuple[str, str, str]] = []  # given id, tool, new id
    shown: list[Mapping[str, Any]] = []
    for at, message in enumerate(messages):
        calls = message.get("tool_calls")
        if isinstance(calls, list | tuple) and calls:
            named = [_with_id(call, f"{at}.{index}") for index, call in enumerate(calls)]
            open_calls = [call[:3] for call in named]
            shown.append({**message, "tool_calls": [call[3] for call in named]})
        elif message.get("role") == "tool":
            shown.append(_answer(message, open_calls))
        else:
            shown.append(message)
    return shown


def _with_id(call: Any, place: str) -> tuple[str, str, str, Any]:
    """(given id, tool, new id, call with the new id)."""
    if not isinstance(call, Mapping):
        return "", "", "", call
    given = call.get("id")
    function = call.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    text = given if isinstance(given, str) else ""
    new = text if len(text) == _ID_LENGTH and text.isalnum() else _digest(text or place)
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
