"""The choice between a Modelfile's Go template and a file's Jinja template."""

import pytest

from ollamacore import TemplateError
from server.config import Config
from server.store.template import chosen, go_capabilities, parsed

SIMPLE, ABLE = "{{ .Prompt }}x", "{{ .Messages }}{{ .Tools }}"
TOOLS = "{{ tools }} {{ think }}<think></think>"


@pytest.mark.parametrize(
    ("go", "jinja", "forced", "wanted"),
    [
        (None, None, None, "{{ .Prompt }}"),
        (None, "jinja", None, None),
        (SIMPLE, None, None, SIMPLE),
        (SIMPLE, "jinja", None, SIMPLE),
        (SIMPLE, TOOLS, None, None),
        (SIMPLE, TOOLS, True, SIMPLE),
        (SIMPLE, "jinja", False, None),
        (SIMPLE, None, False, "{{ .Prompt }}"),
    ],
)
def test_chosen(go, jinja, forced, wanted):
    template = chosen(go, jinja, forced)
    assert (template and template.source) == wanted


@pytest.mark.parametrize(("text", "wanted"), [("", None), ("1", True), ("0", False), ("false", False)])
def test_the_environment_may_force_one(text, wanted):
    assert Config.from_env({"OLLAMA_GO_TEMPLATE": text}).go_templates is wanted


def test_a_template_that_is_none_is_an_error():
    with pytest.raises(TemplateError, match=r"^template: :1: unclosed action$"):
        chosen("{{ .Prompt", None)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        (SIMPLE, []),
        (ABLE, ["tools"]),
        ("{{- range $.Tools }}{{ end }}", ["tools"]),
        ("<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}<MID>", ["insert"]),
        ("{{ range .Messages }}<think>{{ .Thinking }}</think>{{ end }}", ["thinking"]),
        ("{{ range .Messages }}{{ .Thinking }}{{ end }}", []),
        ("text about .Tools and Suffix", []),
    ],
)
def test_what_a_go_template_can_do(source, wanted):
    assert go_capabilities(parsed(source)) == wanted
