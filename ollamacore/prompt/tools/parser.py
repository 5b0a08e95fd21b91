"""Takes tool calls out of an answer while it comes."""

import re

from ollamacore.partial import overlap
from ollamacore.prompt.tools.calls import Call, IncompleteError, OpenStringError, Schemas
from ollamacore.prompt.tools.formats import CallFormat, Mark
from ollamacore.prompt.tools.objects import BETWEEN

#: A call that ends itself is read when its brackets are closed, or while it is so short that it may be none at all.
_SHORT = 64
_BRACKET = re.compile(r'["\\{}\[\]]')
#: After so many calls that are none an answer has no more: each may cost a look at all that follows.
_MOST_FAILURES = 64


class CallParser:
    """Splits the text of one answer into content and calls, however the text is cut into pieces.

    A call comes out whole. What begins like one and is none comes out as content, tags and all. White space around
    calls is left out.
    """

    def __init__(self, form: CallFormat, schemas: Schemas) -> None:
        self._marks = {mark.opening: mark for mark in form.marks if mark.opening}
        self._bare = next((mark for mark in form.marks if not mark.opening), None)
        self._tags = tuple(self._marks)
        self._schemas = schemas
        self._buffer = ""
        self._inside: Mark | None = None  # the call that has begun
        self._opening = ""  # how it began, for the case that it is none
        self._searched = 0  # where the search for its end goes on
        self._at_start = True  # nothing but white space has come
        self._again: Mark | None = None  # the call that has ended, if another may follow it without an opening
        self._after_call = False  # nothing but white space has come since a call
        self._failures = 0
        self._brackets = _Brackets()  # of the call that has begun

    def push(self, text: str) -> list[str | Call]:
        """Content and calls that this text makes final."""
        self._buffer += text
        if self._inside and not self._inside.closing:
            closed = self._brackets.close(text)
            if not closed and len(self._buffer) > _SHORT:
                return []
        return self._advance(final=False)

    def finish(self) -> list[str | Call]:
        """What is still held back when the answer ends."""
        return self._advance(final=True)

    def _advance(self, *, final: bool) -> list[str | Call]:
        found: list[str | Call] = []
        while self._read_call(found, final=final) if self._inside else self._find_call(found, final=final):
            pass
        return found

    # ---- between calls ----

    def _find_call(self, found: list[str | Call], *, final: bool) -> bool:
        """Give out content up to the next call; whether there is more to do."""
        if self._begins_bare() or self._drops_tail():
            return True
        places = [(at, -len(tag), tag) for tag in self._tags if (at := self._buffer.find(tag)) >= 0]
        if not places:
            keep = 0 if final else self._unsure()
            self._say(found, self._buffer[: len(self._buffer) - keep], final=final)
            self._buffer = self._buffer[len(self._buffer) - keep :]
            return False
        at, _, tag = min(places)
        before, self._buffer = self._buffer[:at], self._buffer[at + len(tag) :]
        content = before.rstrip()
        self._say(found, content)
        self._begin(self._marks[tag], before[len(content) :] + tag)
        return True

    def _begins_bare(self) -> bool:
        """Whether a call without an opening begins here: the first thing of an answer, or behind another one."""
        mark = self._bare if self._at_start else self._again
        if mark is None:
            return False
        rest = self._buffer.lstrip() if self._at_start else self._buffer.lstrip(BETWEEN)
        if not rest.startswith(("{", "[") if self._at_start else "{"):
            return False
        before = self._buffer[: len(self._buffer) - len(rest)]
        self._buffer = rest
        self._begin(mark, before)
        return True

    def _drops_tail(self) -> bool:
        """Whether the tail of a call came next; it is gone now."""
        rest = self._buffer.lstrip()
        if not (self._again and self._again.tail and rest.startswith(self._again.tail)):
            return False
        self._buffer = rest[len(self._again.tail) :]
        self._again = None
        return True

    def _begin(self, mark: Mark, opening: str) -> None:
        self._inside, self._opening, self._searched = mark, opening, 0
        self._at_start, self._again = False, None
        self._brackets = _Brackets()
        self._brackets.close(self._buffer)

    def _unsure(self) -> int:
        """Characters at the end that may belong to a call: a part of a tag, and white space."""
        tag = max((overlap(self._buffer, tag) for tag in self._tags), default=0)
        sure = self._buffer[: len(self._buffer) - tag]
        if self._again and (not sure.strip(BETWEEN) or self._again.tail.startswith(self._buffer.lstrip())):
            return len(self._buffer)
        return len(self._buffer) - len(sure.rstrip())

    def _say(self, found: list[str | Call], text: str, *, final: bool = False) -> None:
        if self._after_call:
            text = text.lstrip()
        if not text.strip():
            if not (text and final):
                return
        else:
            self._at_start, self._after_call, self._again = False, False, None
        found.append(text)

    # ---- in a call ----

    def _read_call(self, found: list[str | Call], *, final: bool) -> bool:
        """Read the call that has begun, if it is complete; whether there is more to do."""
        mark = self._inside
        assert mark is not None
        try:
            calls = self._tagged(mark, final=final) if mark.closing else self._self_ending(mark, final=final)
        except ValueError:
            self._give_back(found)
            return True
        if calls is None:
            return False
        found += calls
        self._inside, self._after_call = None, True
        self._again = None if mark.closing else mark
        return True

    def _give_back(self, found: list[str | Call]) -> None:
        """No call: what looked like its beginning is content, and so is what follows, but for calls in it."""
        if self._opening:
            self._after_call = self._after_call and not self._opening.strip()
            found.append(self._opening)
        self._inside = None
        self._failures += 1
        if self._failures == _MOST_FAILURES:
            self._tags = ()

    def _tagged(self, mark: Mark, *, final: bool) -> list[Call] | None:
        """The calls before the closing tag, None while they may go on. At the end that tag may be missing."""
        while (at := self._buffer.find(mark.closing, self._searched)) >= 0:
            try:
                calls, end = mark.read(self._buffer[:at], self._schemas)
            except OpenStringError:
                self._searched = at + 1
                continue
            self._buffer = _remainder(self._buffer[end:at]) + self._buffer[at + len(mark.closing) :]
            return calls
        if not final:
            self._searched = max(self._searched, len(self._buffer) - len(mark.closing) + 1)
            return None
        calls, end = mark.read(self._buffer, self._schemas)
        self._buffer = _remainder(self._buffer[end:])
        return calls

    def _self_ending(self, mark: Mark, *, final: bool) -> list[Call] | None:
        """The calls that the text begins with, None while they may go on."""
        try:
            calls, end = mark.read(self._buffer, self._schemas)
        except IncompleteError:
            if final:
                raise
            return None
        self._buffer = self._buffer[end:]
        return calls


class _Brackets:
    """Counts the brackets of JSON text that comes in pieces, those in strings excepted."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def close(self, text: str) -> bool:
        """Whether the outermost bracket is closed in this text."""
        closed = False
        skip = 0 if self._escaped else -1
        self._escaped = False
        for found in _BRACKET.finditer(text):
            at, mark = found.start(), found[0]
            if at == skip:
                continue
            if mark == "\\":
                skip = at + 1
                self._escaped = skip == len(text)
            elif mark == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += 1 if mark in "[{" else -1
                closed = closed or self._depth <= 0
        return closed


def _remainder(text: str) -> str:
    """What stands between a call and its closing tag; brackets too many are no loss."""
    return text if any(character.isalnum() for character in text) else ""
