"""Modelfile templates: the prompts that Ollama's own template package makes are the reference."""

import json
from pathlib import Path

import pytest

from ollamacore import ModelfileTemplate, TemplateError

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "gotemplate" / "conversations.json").read_text())
EXAMPLES = [(source["template"], example) for source in GOLDEN["templates"] for example in source["examples"]]


@pytest.mark.parametrize(("source", "example"), EXAMPLES, ids=lambda part: str(part)[:40])
def test_ollama_makes_the_same_prompt(source, example):
    template = ModelfileTemplate(source)
    assert outcome(template, example) == example.get("output", "")


def outcome(template, example):
    think = example.get("think")
    if "suffix" in example:
        return template.fill(example["prompt"], example["suffix"], think=think)
    return template.render(GOLDEN["conversations"][example["conversation"]], tools=GOLDEN["tools"], think=think)


def test_a_field_that_messages_lack_is_an_error():
    template = ModelfileTemplate("{{ range .Messages }}\n{{ .Nope }}{{ end }}")
    with pytest.raises(TemplateError, match=r"^template: :2:3: executing .* at <\.Nope>: can't evaluate field Nope"):
        template.render([{"role": "user", "content": "q"}])


@pytest.mark.parametrize("source", GOLDEN["templates"], ids=lambda source: source["template"][:40])
def test_what_a_template_names_tells_what_it_can_do(source):
    template = ModelfileTemplate(source["template"])
    assert sorted(template.variables) == source["variables"]
    assert template.thinking_tags == (tuple(source["tags"]) if all(source["tags"]) else None)


def test_the_last_turn_ends_where_an_else_would_answer():
    """Ollama panics on this one."""
    template = ModelfileTemplate("{{ .Prompt }}{{ if .Response }}={{ .Response }}.{{ else }}?{{ end }};")
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert template.render([*messages, {"role": "user", "content": "c"}]) == "a=b.;c?"


def test_tools_of_any_shape_are_taken():
    template = ModelfileTemplate("{{ range .Tools }}{{ .Function.Parameters }}{{ end }}{{ range .Messages }}{{ end }}")
    tools = [{"function": {"name": "f", "parameters": {"properties": {"a": 3, "b": {"type": 5}}, "required": "x"}}}]
    shown = json.loads(template.render([{"role": "user", "content": "q"}], tools=tools))
    assert set(shown["properties"]) == {"a", "b"}


def test_messages_are_left_alone():
    messages = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    ModelfileTemplate("{{ .Prompt }}").render(messages)
    assert [message["content"] for message in messages] == ["a", "b"]
