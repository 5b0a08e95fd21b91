"""Thoughts: the tags that a template writes around them, and the parser that takes them out of an answer."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from ollamacore.partial import overlap

_SPLITS = re.compile(r"""split\(\s*['"]</think>['"]""")


@dataclass(frozen=True, slots=True)
class ThinkingTags:
    """What stands before and after a thought.

    `trimmed`: the white space before the closing tag is no part of the thought.
    """

    opening: str
    closing: str
    trimmed: bool = False


#: What shows in a chat template that its model thinks, and how.
_JINJA_TAGS = (
    ("<|channel>", ThinkingTags("<|channel>thought", "<channel|>", True)),
    ("[THINK]", ThinkingTags("[THINK]", "[/THINK]", True)),
    ("<seed:think>", ThinkingTags("<seed:think>", "</seed:think>", True)),
    ("<|START_THINKING|>", ThinkingTags("<|START_THINKING|>", "<|END_THINKING|>", True)),
)
_THINK = ThinkingTags("<think>", "</think>", True)


def jinja_thinking_tags(source: str) -> ThinkingTags | None:
    """The tags of a Jinja chat template; None if its model does not think."""
    for sign, tags in _JINJA_TAGS:
        if sign in source:
            return tags
    if _THINK.closing in source and (_THINK.opening in source or _SPLITS.search(source)):
        return _THINK
    return None


class _State(Enum):
    START = auto()  # looking for the opening tag
    OPENED = auto()  # swallowing the white space behind it
    THINKING = auto()
    CLOSED = auto()  # swallowing the white space behind the closing tag
    CONTENT = auto()


class ThinkingParser:
    """Splits the text of one answer into a thought and what comes after it, however the text is cut into pieces.

    A thought begins at the start or nowhere, and there is one at most; a second opening tag is content. A tag that may
    still become one is held back. `inside`: the prompt ends with the opening tag. `enders` end a thought too, and
    belong to what comes after it: the tags of tool calls.
    """

    def __init__(self, tags: ThinkingTags, *, inside: bool = False, enders: Iterable[str] = ()) -> None:
        self._tags = tags
        self._ends = (tags.closing, *enders)
        self._state = _State.OPENED if inside else _State.START
        self._held = ""

    @property
    def in_content(self) -> bool:
        """Whether the thought, if there is one, is over."""
        return self._state is _State.CONTENT or self._state is _State.CLOSED

    @property
    def opening(self) -> str:
        """The tag that would begin a thought; empty where it has begun, or cannot any more."""
        return self._tags.opening if self._state is _State.START else ""

    def push(self, text: str) -> tuple[str, str]:
        """(thought, content) that this text makes final."""
        self._held += text
        if self._state is _State.START:
            self._find_opening()
        if self._state is _State.OPENED:
            self._swallow(_State.THINKING)
        thought = self._think() if self._state is _State.THINKING else ""
        if self._state is _State.CLOSED:
            self._swallow(_State.CONTENT)
        content = ""
        if self._state is _State.CONTENT:
            content, self._held = self._held, ""
        return thought, content

    def finish(self) -> tuple[str, str]:
        """What is still held back when the answer ends: an incomplete tag is text."""
        held, self._held = self._held, ""
        if self._state is _State.THINKING:
            return held.rstrip() if self._tags.trimmed else held, ""
        return "", "" if self._state in (_State.OPENED, _State.CLOSED) else held

    def _find_opening(self) -> None:
        opening, text = self._tags.opening, self._held.lstrip()
        if text.startswith(opening):
            self._held = text[len(opening) :]
            self._state = _State.OPENED
        elif not opening.startswith(text):
            self._state = _State.CONTENT

    def _swallow(self, following: _State) -> None:
        self._held = self._held.lstrip()
        if self._held:
            self._state = following

    def _think(self) -> str:
        """The part of a thought that is final."""
        found = [(at, end) for end in self._ends if (at := self._held.find(end)) >= 0]
        if found:
            at, end = min(found)
            thought, rest = self._held[:at], self._held[at:]
            is_tag = end == self._tags.closing
            self._held = rest[len(end) :] if is_tag else rest
            self._state = _State.CLOSED if is_tag else _State.CONTENT
            return thought.rstrip() if self._tags.trimmed else thought
        size = len(self._held) - max(overlap(self._held, end) for end in self._ends)
        if self._tags.trimmed:
            size = len(self._held[:size].rstrip())
        thought, self._held = self._held[:size], self._held[size:]
        return thought
