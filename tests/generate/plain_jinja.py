"""Chat templates in plain Jinja2 with Hugging Face's settings: the reference for our sandbox.

`python -m tests.generate.plain_jinja` writes tests/data/templates/goldens.json.
"""

import json
from datetime import datetime
from pathlib import Path

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

DATA = Path(__file__).resolve().parent.parent / "data" / "templates"


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True), lineno=line)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise TemplateError(message)


def environment() -> ImmutableSandboxedEnvironment:
    plain = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    plain.filters["tojson"] = tojson
    plain.globals["raise_exception"] = raise_exception
    plain.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return plain


def render(source: str, messages, *, tools=None, add_generation_prompt=True, **variables) -> str:
    return (
        environment()
        .from_string(source)
        .render(
            messages=messages,
            tools=tools,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            bos_token="<s>",
            eos_token="</s>",
            **variables,
        )
    )


def with_parts(messages):
    return [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message["content"], str)
        else message
        for message in messages
    ]


def make_goldens() -> dict[str, str]:
    found = {}
    for name, conversation in json.loads((DATA / "conversations.json").read_text()).items():
        for template in sorted(DATA.glob("*.jinja")):
            if template.stem == "chatml-tools" and name == "parts":
                continue  # trims its content, which must be text
            case = dict(conversation)
            if template.stem == "parts":
                case["messages"] = with_parts(case["messages"])
            found[f"{template.stem}/{name}"] = render(template.read_text(), **case)
    return found


if __name__ == "__main__":
    text = json.dumps(make_goldens(), ensure_ascii=False, indent=1, sort_keys=True)
    (DATA / "goldens.json").write_text(text + "\n")
