"""Which template writes a model's prompts: the Go template of its Modelfile or the Jinja template of its GGUF file.

Both may be there. As in Ollama the Go template is taken, unless the Jinja template can do more.
"""

import re
from functools import lru_cache

from ollamacore import ModelfileTemplate, jinja_answer_format

#: What a model can do because its template can.
TEMPLATE_CAPABILITIES = ("tools", "thinking")

_TOOL_ROLE = re.compile(r"""role['"]\] == ['"]tool['"]|message\.role == ['"]tool['"]""")


@lru_cache(64)
def parsed(source: str) -> ModelfileTemplate:
    """A Go template; TemplateError if it is none."""
    return ModelfileTemplate(source)


def chosen(go: str | None, jinja: str | None, forced: bool | None = None) -> ModelfileTemplate | None:
    """The Go template that writes the prompts; None where the Jinja template does.

    A model that has neither sees the texts alone. `forced` is the word of OLLAMA_GO_TEMPLATE.
    """
    if go is None or forced is False:
        return None if jinja else parsed("{{ .Prompt }}")
    template = parsed(go)
    if jinja and not forced and _better(jinja, template):
        return None
    return template


def jinja_capabilities(source: str) -> list[str]:
    """What a Jinja template can do."""
    found = []
    if "tools" in source or "tool_call" in source:
        found.append("tools")
    if jinja_answer_format(source).can_think:
        found.append("thinking")
    return found


def go_capabilities(template: ModelfileTemplate) -> list[str]:
    """What a Go template can do, by what it names."""
    known = {"tools": "tools", "suffix": "insert"}
    found = [capability for name, capability in known.items() if name in template.variables]
    return found + ["thinking"] * template.answer_format.can_think


def _better(jinja: str, go: ModelfileTemplate) -> bool:
    """Whether the Jinja template can do more: in number, or it alone writes calls and answers of tools."""
    ours, theirs = go_capabilities(go), jinja_capabilities(jinja)
    if len(theirs) > len(ours):
        return _jinja_round_trip(jinja) or not _go_round_trip(go)
    if sorted(ours) != sorted(theirs) or "tools" not in ours:
        return False
    return _jinja_round_trip(jinja) and not _go_round_trip(go)


def _jinja_round_trip(source: str) -> bool:
    if "tool_calls" not in source and "assistant_tool_call" not in source:
        return False
    return any(name in source for name in ("tool_response", "tool_results", "ipython")) or bool(
        _TOOL_ROLE.search(source)
    )


def _go_round_trip(template: ModelfileTemplate) -> bool:
    if not template.variables >= {"tools", "toolcalls"}:
        return False
    return any(text in template.source for text in ('eq .Role "tool"', "tool_response", "TOOL_RESULTS"))
