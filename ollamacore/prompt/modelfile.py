"""Modelfile TEMPLATEs: what Ollama gives to a Go template, and when it runs one once or for every turn.

A template that names .Messages sees the whole conversation. An older one sees one turn at a time, as .System,
.Prompt and .Response; for the last turn it ends where the response would stand, and the model goes on from there.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ollamacore.prompt.answer import AnswerFormat
from ollamacore.prompt.gotemplate import GoTemplate
from ollamacore.prompt.gotemplate.tree import (
    Action,
    Block,
    Branch,
    Field,
    Include,
    Operand,
    Statement,
    Text,
    Tree,
    Variable,
    operands,
)
from ollamacore.prompt.gotemplate.values import Field as Member
from ollamacore.prompt.gotemplate.values import JsonList, JsonMap, Record, RecordType, from_json
from ollamacore.prompt.harmony import is_harmony
from ollamacore.prompt.history import without_old_thoughts
from ollamacore.prompt.thinking import ThinkingTags
from ollamacore.prompt.tools import go_format

#: a tag that ends something
_CLOSING = re.compile(r"</[^<>\s]+>|\[/[^\[\]\s]+\]|<\|[^<>\s]+\|>")

_PROPERTY = RecordType(
    "api.ToolProperty",
    (
        Member("AnyOf", "anyOf", optional=True),
        Member("Type", "type", optional=True),
        Member("Items", "items", optional=True),
        Member("Description", "description", optional=True),
        Member("Enum", "enum", optional=True),
        Member("Properties", "properties", optional=True),
        Member("Required", "required", optional=True),
    ),
)
_PARAMETERS = RecordType(
    "api.ToolFunctionParameters",
    (
        Member("Type", "type"),
        Member("Defs", "$defs", optional=True),
        Member("Items", "items", optional=True),
        Member("Required", "required", optional=True),
        Member("Properties", "properties"),
    ),
)
_FUNCTION = RecordType(
    "api.ToolFunction",
    (Member("Name", "name"), Member("Description", "description"), Member("Parameters", "parameters")),
)
_TOOL = RecordType(
    "api.Tool", (Member("Type", "type"), Member("Items", "items", optional=True), Member("Function", "function"))
)
_CALL_FUNCTION = RecordType(
    "api.ToolCallFunction", (Member("Index", "Index"), Member("Name", "Name"), Member("Arguments", "Arguments"))
)
_CALL = RecordType("api.ToolCall", (Member("ID", "ID"), Member("Function", "Function")))
_MESSAGE = RecordType(
    "api.Message",
    tuple(
        Member(name, name) for name in ("Role", "Content", "Thinking", "Images", "ToolCalls", "ToolName", "ToolCallID")
    ),
)


class ModelfileTemplate:
    """A Modelfile's TEMPLATE, or the `template` of a request."""

    #: Every field and variable that the template names, in small letters: "messages", "tools", "suffix" ...
    variables: frozenset[str]
    #: What stands before and after a thought where the template writes one; None if it writes none.
    thinking_tags: tuple[str, str] | None
    #: How the model of this template writes thoughts and tool calls.
    answer_format: AnswerFormat

    def __init__(self, source: str) -> None:
        self.source = source
        self._template = GoTemplate(source)
        if self._lower_names().isdisjoint(("messages", "response")):
            self._template = GoTemplate(source + "{{ .Response }}")
        self.variables = self._lower_names()
        self._root = self._template.tree.root
        self.thinking_tags = _thinking_tags(self._root)
        self.answer_format = self._answer_format()
        self._opening, _ = _until_response(self._root)

    def _lower_names(self) -> frozenset[str]:
        return frozenset(name.lower() for name in _names(self._template.tree))

    def _answer_format(self) -> AnswerFormat:
        if is_harmony(self.source):
            return AnswerFormat(is_harmony=True)
        tags = ThinkingTags(*self.thinking_tags) if self.thinking_tags else None
        form = go_format(self.source, *_call_tags(self._root)) if "tools" in self.variables else None
        return AnswerFormat(tags, form)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | str | None = None,
    ) -> str:
        """The prompt for a conversation; TemplateError where the template fails."""
        settings = _thinking(think)
        if self.answer_format.thinking:
            messages = without_old_thoughts(messages, self.answer_format.thinking)
        merged = _merged(messages)
        if "messages" not in self.variables:
            return "".join(self._turns(merged, settings))
        system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
        data = {"System": system, "Messages": [_message(message) for message in merged], "Response": ""}
        return self._run({**data, "Tools": JsonList(map(_tool, tools)), **settings}, self._root)

    def fill(self, prompt: str, suffix: str, *, think: bool | str | None = None) -> str:
        """The prompt for what stands between two texts."""
        return self._run({"Prompt": prompt, "Suffix": suffix, "Response": "", **_thinking(think)}, self._root)

    def _turns(self, messages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> Iterator[str]:
        """The text of each turn; the last one ends before its response."""
        turn = {"System": "", "Prompt": "", "Response": ""}
        for message in messages:
            part = {"system": "System", "user": "Prompt", "assistant": "Response"}.get(message["role"])
            ended = {"System": turn["Prompt"] or turn["Response"], "Prompt": turn["Response"]}
            if ended.get(part or ""):
                yield self._run({**turn, **settings}, self._root)
                turn = dict.fromkeys(turn, "")
            if part:
                turn[part] = message["content"]
        yield self._run({**turn, **settings}, self._opening)

    def _run(self, data: Mapping[str, Any], root: Block) -> str:
        return self._template.render(data, root)


# -- the template --


def _path(operand: Operand) -> tuple[str, ...]:
    """The names that an operand reads."""
    if isinstance(operand, Variable):
        return (operand.name, *operand.names)
    return operand.names if isinstance(operand, Field) else ()


def _names(tree: Tree) -> Iterator[str]:
    for operand in operands(tree):
        yield from _path(operand)


def _until_response(block: Block) -> tuple[Block, bool]:
    """The statements up to the first that writes the response, and whether there is one."""
    kept: list[Statement] = []
    for statement in block:
        if isinstance(statement, Branch):
            body, found = _until_response(statement.body)
            orelse = statement.orelse
            if not found and orelse is not None:
                orelse, found = _until_response(orelse)
            kept.append(Branch(statement.kind, statement.pos, statement.pipe, body, orelse))
        else:
            kept.append(statement)
            found = isinstance(statement, Action) and any("Response" in _path(part) for part in operands(statement))
        if found:
            return tuple(kept), True
    return tuple(kept), False


def _thinking_tags(root: Block) -> tuple[str, str] | None:
    """The texts around the last {{ .Thinking }} of a message: where its list of statements begins and ends."""
    opening = closing = ""
    for block in _around_thinking(root, inside=False):
        if isinstance(block[0], Text):
            opening = block[0].text.strip()
        if isinstance(block[-1], Text):
            closing = block[-1].text.strip()
    return (opening, closing) if opening and closing else None


def _around_thinking(block: Block, *, inside: bool) -> Iterator[Block]:
    """Every list of statements, in a loop over the messages, one of which names .Thinking."""
    for statement in block:
        within = inside
        if isinstance(statement, Branch) and statement.kind == "range":
            within = any(_path(part)[:1] == ("Messages",) for part in operands(statement.pipe))
        own = statement.pipe if isinstance(statement, Branch | Action | Include) else None
        if within and any(_path(part)[:1] == ("Thinking",) for part in operands(own)):
            yield block
        if isinstance(statement, Branch):
            for inner in (statement.body, statement.orelse or ()):
                yield from _around_thinking(inner, inside=within)


def _call_tags(root: Block) -> tuple[str, str]:
    """The texts before and after the first tool call that the template writes; both may be empty."""
    for block in _around_calls(root):
        texts = [text for text in _texts(block) if text.strip()]
        if texts:
            closing = _CLOSING.search(re.split(r"[}\]]", texts[-1])[-1])
            return texts[0].partition("{")[0].strip(), closing[0] if closing else ""
    return "", ""


def _around_calls(block: Block) -> Iterator[Block]:
    """What is written for each message that has tool calls."""
    for statement in block:
        if not isinstance(statement, Branch):
            continue
        if any("ToolCalls" in _path(part) for part in operands(statement.pipe)):
            yield statement.body
        for inner in (statement.body, statement.orelse or ()):
            yield from _around_calls(inner)


def _texts(block: Block) -> Iterator[str]:
    """All texts of a list of statements, in their order."""
    for statement in block:
        if isinstance(statement, Text):
            yield statement.text
        elif isinstance(statement, Branch):
            yield from _texts(statement.body)
            yield from _texts(statement.orelse or ())


# -- the data --


def _thinking(think: bool | str | None) -> dict[str, Any]:
    level = "medium" if think is True else think or ""
    return {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}


def _merged(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages, those of the same role in a row as one; answers of tools stay apart."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"] != "tool":
            merged[-1]["content"] += "\n\n" + message["content"]
        else:
            merged.append(dict(message))
    return merged


def _object(value: Any) -> Mapping[str, Any]:
    """What a client sent where an object belongs; anything else counts as an empty one."""
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return [from_json(item) for item in value] if isinstance(value, list | tuple) else []


def _message(message: Mapping[str, Any]) -> Record:
    texts = [message.get(name) or "" for name in ("role", "content", "thinking")]
    calls = [_call(call) for call in message.get("tool_calls") or ()]
    return Record(_MESSAGE, [*texts, [], calls, message.get("tool_name") or "", message.get("tool_call_id") or ""])


def _call(call: Mapping[str, Any]) -> Record:
    function = _object(call.get("function"))
    arguments = JsonMap(from_json(_object(function.get("arguments"))))
    inner = Record(_CALL_FUNCTION, [function.get("index") or 0, function.get("name") or "", arguments])
    return Record(_CALL, [call.get("id") or "", inner])


def _tool(tool: Mapping[str, Any]) -> Record:
    function = _object(tool.get("function"))
    given = _object(function.get("parameters"))
    parameters = Record(
        _PARAMETERS,
        [
            given.get("type") or "",
            from_json(given.get("$defs")),
            from_json(given.get("items")),
            _list(given.get("required")),
            _properties(given.get("properties")),
        ],
    )
    described = Record(_FUNCTION, [function.get("name") or "", function.get("description") or "", parameters])
    return Record(_TOOL, [tool.get("type") or "", from_json(tool.get("items")), described])


def _properties(given: Any) -> JsonMap:
    return JsonMap({name: _property(_object(value)) for name, value in sorted(_object(given).items())})


def _property(given: Mapping[str, Any]) -> Record:
    kind = given.get("type")
    return Record(
        _PROPERTY,
        [
            [_property(_object(other)) for other in _list(given.get("anyOf"))],
            _list(kind) if isinstance(kind, list | tuple) and len(kind) != 1 else (_list(kind) or [kind or ""])[0],
            from_json(given.get("items")),
            given.get("description") or "",
            _list(given.get("enum")),
            _properties(given.get("properties")),
            _list(given.get("required")),
        ],
    )
