"""Which messages of a conversation are sent to the model when not all of them fit its context."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]


def truncate(
    messages: Sequence[Message], limit: int, count_tokens: Callable[[Sequence[Message]], int]
) -> list[Message]:
    """Drop messages from the front until `count_tokens` of the rest is at most `limit`.

    System messages are never dropped, and neither is the last message: the result can still be too long.
    `count_tokens` renders and tokenises, so it is asked rarely: once when everything fits, else
    O(log n) times. It must not fall when messages are added.
    """
    kept = list(messages)
    if len(kept) < 2 or count_tokens(kept) <= limit:
        return kept
    low, high = 1, len(kept) - 1
    while low < high:
        middle = (low + high) // 2
        if count_tokens(_without(kept, middle)) <= limit:
            high = middle
        else:
            low = middle + 1
    return _without(kept, low)


def _without(messages: Sequence[Message], first: int) -> list[Message]:
    """The conversation from message `first` on, after the system messages that stand before it."""
    system = [message for message in messages[:first] if message.get("role") == "system"]
    return [*system, *messages[first:]]
