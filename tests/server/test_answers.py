"""Thoughts and tool calls on the wire, by the template that is in force: Go's, a request's, or the file's."""

import json

import pytest

from ollamacore import jinja_answer_format
from tests.server.live import write_gguf

TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
CALL = '{"name": "now", "arguments": {"zone": "utc"}}'
GO = (
    "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}"
    '{{ if .ToolCalls }}<call>{{ range .ToolCalls }}{"name": "{{ .Function.Name }}"}{{ end }}</call>{{ end }}{{ end }}'
    "{{ range .Tools }}{{ .Function.Name }}{{ end }}{{ if .Think }}<think>{{ end }}"
)
ASK = [{"role": "user", "content": "x"}]


@pytest.fixture
def go(live, tmp_path):
    """A model whose Go template thinks and knows tools."""
    live.add_model("go", write_gguf(tmp_path / "go.gguf", salt="go"), template=GO)
    return "go"


def parts(http, route="chat", **body):
    """What the records of a stream carry, without the empty last one."""
    if route == "chat":
        body = {"messages": ASK, **body}
    answer = http.post(f"/api/{route}", json=body)
    assert answer.status_code == 200, answer.text
    *records, last = [json.loads(line) for line in answer.text.splitlines()]
    assert last["done"]
    found = []
    for record in records:
        message = record.get("message", record)
        message.get("tool_calls") and [call.pop("id") for call in message["tool_calls"]]
        shown = {name: message.get(name) for name in ("thinking", "content", "response", "tool_calls")}
        found.append({name: value for name, value in shown.items() if value})
    return found


def test_a_go_template_says_what_thoughts_and_calls_look_like(http, script, go):
    script.pieces = ["so", "</thi", "nk>", "\n Hi", "<call>", CALL, "</call>"]
    call = {"function": {"index": 0, "name": "now", "arguments": {"zone": "utc"}}}
    assert parts(http, model=go, tools=[TOOL]) == [{"thinking": "so"}, {"content": "Hi"}, {"tool_calls": [call]}]
    assert script.text().endswith("now<think>")
    script.pieces = ["<think>so</think>", "Hi ", f"<call>{CALL}</call>"]
    assert parts(http, model=go, think=False) == [
        {"thinking": "so"}, {"content": "Hi "}, {"content": f"<call>{CALL}</call>"}
    ]  # fmt: skip


def test_one_piece_of_text_may_have_all_parts(http, script, go):
    script.pieces = [f"so</think>Hi<call>{CALL}</call>bye"]
    assert [list(part) for part in parts(http, model=go, tools=[TOOL])] == [
        ["thinking"], ["content"], ["tool_calls"], ["content"]
    ]  # fmt: skip
    whole = http.post("/api/chat", json={"model": go, "messages": ASK, "tools": [TOOL], "stream": False}).json()
    assert (whole["message"]["thinking"], whole["message"]["content"]) == ("so", "Hibye")
    assert len(whole["message"]["tool_calls"]) == 1


def test_what_is_held_back_comes_before_the_last_record(http, script, go):
    script.pieces, script.tail = ["so</think>Hi <ca"], "l"
    assert parts(http, model=go, tools=[TOOL]) == [{"thinking": "so"}, {"content": "Hi"}, {"content": " <cal"}]


def test_generate_gives_thoughts_apart(http, script, go):
    script.pieces = ["so", "</think>", "Hi"]
    assert parts(http, "generate", model=go, prompt="x") == [{"thinking": "so"}, {"response": "Hi"}]
    whole = http.post("/api/generate", json={"model": go, "prompt": "x", "stream": False}).json()
    assert (whole["thinking"], whole["response"]) == ("so", "Hi")
    assert bytes(whole["context"][-14:-1]).decode().endswith("so</think>Hi")
    assert parts(http, "generate", model=go, prompt="x", raw=True) == [
        {"response": "so"}, {"response": "</think>"}, {"response": "Hi"}
    ]  # fmt: skip


def test_the_template_of_a_request_has_thoughts_of_its_own(http, script):
    template = "{{ range .Messages }}{{ if .Thinking }}[{{ .Thinking }}]{{ end }}{{ .Content }}{{ end }}"
    script.pieces = ["[so] Hi"]
    found = parts(http, "generate", model="tiny", prompt="x", template=template)
    assert found == [{"thinking": "so"}, {"response": "Hi"}]


def test_the_file_says_it_where_its_template_is_in_force(live, http, script, tmp_path):
    template = "<think></think>{{ tools }}<tool_call></tool_call>"
    live.add_model("able", write_gguf(tmp_path / "a.gguf", template=template))
    script.answer_format = jinja_answer_format(template)
    script.pieces = ["<think>", "so", "</think>", "<tool_call>", CALL, "</tool_call>"]
    found = parts(http, model="able", tools=[TOOL])
    assert [list(part) for part in found] == [["thinking"], ["tool_calls"]]


@pytest.mark.parametrize(
    ("template", "abilities"),
    [
        ("<think></think>", ["thinking"]),
        ("<|channel>{{ tools }}", ["tools", "thinking"]),
        ("[THINK]{{ tools }}", ["tools", "thinking"]),
        ("<|start|><|channel|><|message|>{{ tools }}", ["tools", "thinking"]),
        ("content.split('</think>')", ["thinking"]),
        ("{{ messages }}", []),
    ],
)
def test_capabilities_are_what_is_parsed(live, http, tmp_path, template, abilities):
    live.add_model("able", write_gguf(tmp_path / "a.gguf", template=template))
    assert http.post("/api/show", json={"model": "able"}).json()["capabilities"] == ["completion", *abilities]
    thinks = "thinking" in abilities
    answer = http.post("/api/chat", json={"model": "able", "messages": ASK, "think": True})
    assert answer.status_code == (200 if thinks else 400)
    assert thinks or answer.json()["error"] == '"able" does not support thinking'
