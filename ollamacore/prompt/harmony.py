"""Harmony, the notation of gpt-oss: messages with headers, for thoughts, tool calls and the answer itself.

<|channel|>analysis<|message|>thought<|end|><|start|>assistant<|channel|>commentary to=functions.name
<|constrain|>json<|message|>{...}<|call|>
"""

import re
from dataclasses import dataclass

from ollamacore.partial import overlap
from ollamacore.prompt.tools.calls import Call, Schemas, call_of, decoded

START, CHANNEL, MESSAGE, CONSTRAIN, END, CALL = (
    f"<|{name}|>" for name in ("start", "channel", "message", "constrain", "end", "call")
)
TAGS = (START, CHANNEL, MESSAGE, CONSTRAIN, END, CALL)
_ENDS = (END, START, CALL)
_RECIPIENT = re.compile(r"to=([^\s<]+)")


def is_harmony(source: str) -> bool:
    """Whether a template writes these messages."""
    return all(tag in source for tag in (START, CHANNEL, MESSAGE))


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of a thought."""

    text: str


class HarmonyParser:
    """Splits an answer into thoughts, content and calls. Without tools, what goes to one is content."""

    def __init__(self, schemas: Schemas, prompt: str) -> None:
        self._has_tools = bool(schemas)
        self._held = ""
        self._header: str | None = ""  # None: within a message
        self._channel = ""
        self._recipient = ""
        self.in_content = False
        turn = prompt.rpartition(START)[2] if START in prompt else ""
        self.push(turn)

    def push(self, text: str) -> list[str | Thought | Call]:
        """What this text makes final."""
        self._held += text
        found: list[str | Thought | Call] = []
        while self._read_header() if self._header is not None else self._read_message(found):
            pass
        return found

    def finish(self) -> list[str | Thought | Call]:
        """What is still held back when the answer ends; a header without a message is content."""
        held, self._held = self._held, ""
        if self._header is None:
            return self._last(held)
        role = held.removeprefix("assistant").strip()
        return [role] if role else []

    def _read_header(self) -> bool:
        """Go over a header, if it is complete."""
        at = self._held.find(MESSAGE)
        if at < 0:
            return False
        header, self._held = self._held[:at], self._held[at + len(MESSAGE) :]
        header = header.rpartition(START)[2].partition(CONSTRAIN)[0]
        channel = header.partition(CHANNEL)[2].split()
        recipient = _RECIPIENT.search(header)
        self._channel = channel[0] if channel else "final"
        self._recipient = recipient[1].removeprefix("functions.") if recipient else ""
        self._header = None
        self.in_content = self._channel != "analysis"
        return True

    def _read_message(self, found: list[str | Thought | Call]) -> bool:
        """Give out what is final of a message; whether it has ended."""
        places = [(at, tag) for tag in _ENDS if (at := self._held.find(tag)) >= 0]
        if places:
            at, tag = min(places)
            body, self._held = self._held[:at], self._held[at + len(tag) :]
            found += self._last(body)
            self._header = ""
            return True
        if not self._is_call:
            size = len(self._held) - max(overlap(self._held, tag) for tag in _ENDS)
            body, self._held = self._held[:size], self._held[size:]
            found += self._shown(body)
        return False

    @property
    def _is_call(self) -> bool:
        return bool(self._recipient) and self._has_tools

    def _last(self, body: str) -> list[str | Thought | Call]:
        """The end of a message."""
        if not self._is_call:
            return self._shown(body)
        try:
            return [call_of(self._recipient, decoded(body))]
        except ValueError:
            return self._shown(body)

    def _shown(self, text: str) -> list[str | Thought | Call]:
        if not text:
            return []
        return [Thought(text) if self._channel == "analysis" and not self._recipient else text]
