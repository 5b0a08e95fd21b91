"""The notations of tool calls, one row each, and which of them a template or a vocabulary shows.

Nobody asks for the name of a model or of its architecture here.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ollamacore.prompt.tools.calls import Call, Reader
from ollamacore.prompt.tools.literals import python_text, read_gemma, read_python
from ollamacore.prompt.tools.markup import read_function, read_functions, read_named_function, read_pairs
from ollamacore.prompt.tools.objects import (
    DEEPSEEK_CALL,
    DEEPSEEK_END,
    DEEPSEEK_SEPARATOR,
    read_all_named,
    read_deepseek,
    read_known_object,
    read_mistral,
    read_named,
    read_object,
    read_objects,
)


@dataclass(frozen=True, slots=True)
class Mark:
    """What begins a call, what ends it, and how the text between is read.

    Where nothing ends it, the call does so itself, and `tail` may follow it. Where nothing begins it, it is the first
    thing in an answer.
    """

    opening: str
    closing: str
    read: Reader
    tail: str = ""


@dataclass(frozen=True, slots=True)
class CallFormat:
    """One notation, with all that may begin a call in it."""

    marks: tuple[Mark, ...]

    @property
    def tags(self) -> tuple[str, ...]:
        """Texts that must be visible in an answer, even if they are control tokens."""
        found = [text for mark in self.marks for text in (mark.opening, mark.closing, *_INNER.get(mark.read, ()))]
        return tuple(filter(None, found))

    @property
    def openings(self) -> tuple[str, ...]:
        """The tags that begin a call anywhere in an answer."""
        return tuple(mark.opening for mark in self.marks if mark.opening)

    def write(self, calls: Iterable[Call]) -> str:
        """Calls as a model of this notation might have written them, for templates that leave them out."""
        mark = self.marks[0]
        if mark.read is read_python:
            return f"{mark.opening}[{', '.join(map(python_text, calls))}]{mark.closing}"
        texts = [json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False) for call in calls]
        if mark.closing:
            return "\n".join(f"{mark.opening}\n{text}\n{mark.closing}" for text in texts)
        return f"{mark.opening}[{', '.join(texts)}]"


_GEMMA4, _FUNCTION_GEMMA = read_gemma('<|"|>'), read_gemma("<escape>")
#: tags within a call
_INNER: dict[Reader, tuple[str, ...]] = {
    _GEMMA4: ('<|"|>',),
    _FUNCTION_GEMMA: ("<escape>",),
    read_mistral: ("[CALL_ID]", "[ARGS]"),
    read_deepseek: (DEEPSEEK_CALL, DEEPSEEK_SEPARATOR, DEEPSEEK_END),
    read_pairs: ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
}
_DEEPSEEK = Mark("<\uff5ctool\u2581calls\u2581begin\uff5c>", "<\uff5ctool\u2581calls\u2581end\uff5c>", read_deepseek)
_BARE = Mark("", "", read_known_object)
_TAGGED = Mark("<tool_call>", "</tool_call>", read_objects)
_FENCED = Mark("```json", "", read_known_object, "```")
_FUNCTION = Mark("<function=", "</function>", read_function)

#: What models write that were shown no tags, or that forget them: the tags, the object alone, or a block of code.
_DEFAULT = CallFormat((_TAGGED, _BARE, _FENCED))

#: What shows in a template, or as a token of the vocabulary, and the notation. The first row that fits counts.
_ROWS: tuple[tuple[str, CallFormat], ...] = (
    ("<|tool_call_start|>", CallFormat((Mark("<|tool_call_start|>", "<|tool_call_end|>", read_python),))),
    ("<|tool_call>", CallFormat((Mark("<|tool_call>", "<tool_call|>", _GEMMA4),))),
    ("<start_function_call>", CallFormat((Mark("<start_function_call>", "<end_function_call>", _FUNCTION_GEMMA),))),
    (_DEEPSEEK.opening, CallFormat((_DEEPSEEK,))),
    ("[TOOL_CALLS]", CallFormat((Mark("[TOOL_CALLS]", "", read_mistral),))),
    ("<|START_ACTION|>", CallFormat((Mark("<|START_ACTION|>", "<|END_ACTION|>", read_objects),))),
    ("<seed:tool_call>", CallFormat((Mark("<seed:tool_call>", "</seed:tool_call>", read_functions), _FUNCTION))),
    ("<arg_key>", CallFormat((Mark("<tool_call>", "</tool_call>", read_pairs),))),
    ("<parameter=", CallFormat((Mark("<tool_call>", "</tool_call>", read_functions), _FUNCTION))),
    ("<function=", CallFormat((_FUNCTION,))),
    ("<param name=", CallFormat((Mark("<function name=", "</function>", read_named_function),))),
    ("<tool_calls>", CallFormat((Mark("<tool_calls>", "</tool_calls>", read_objects),))),
    ("<TOOLCALL>", CallFormat((Mark("<TOOLCALL>", "</TOOLCALL>", read_objects),))),
    ("<function_calls>", CallFormat((Mark("<function_calls>", "</function_calls>", read_python),))),
    ("<|tool_call|>", CallFormat((Mark("<|tool_call|>", "", read_object, "<|/tool_call|>"),))),
    ("functools", CallFormat((Mark("functools", "", read_object),))),
    ("<tool_call>", _DEFAULT),
    ("<|python_tag|>", CallFormat((Mark("<|python_tag|>", "", read_named), _BARE))),
    ('"parameters":', CallFormat((_BARE,))),
)

def jinja_format(source: str, has_token: Callable[[str], bool]) -> CallFormat:
    """The notation of a model with a Jinja chat template; `has_token` knows its vocabulary."""
    for sign, found in _ROWS:
        if sign in source:
            return found
    for sign, found in _ROWS:
        if has_token(sign):
            return found
    return _DEFAULT


def go_format(source: str, opening: str, closing: str) -> CallFormat:
    """The notation of a Go template, by what it writes before and after a call.

    Where there are objects behind the opening, or the names of tools, a generic reader takes them.
    """
    for sign, found in _ROWS:
        if sign in source and not any(mark.read in _GENERIC for mark in found.marks):
            return found
    opening = opening.removesuffix("[").rstrip()
    if not opening:
        return CallFormat((_BARE,))
    return CallFormat((Mark(opening, closing, read_all_named if closing else read_named),))


#: what the generic reader of Go templates can read
_GENERIC = (read_object, read_objects, read_known_object, read_named)
