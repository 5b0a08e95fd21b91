"""Messages as templates want them: every call has an id, and every answer of a tool names its call."""

import pytest

from ollamacore import ModelfileTemplate, jinja_answer_format
from ollamacore.prompt.history import for_template
from ollamacore.prompt.tools import Call


def call(name, **fields):
    return {**fields, "type": "function", "function": {"name": name, "arguments": {}}}


def asked(*calls):
    return {"role": "assistant", "content": "", "tool_calls": list(calls)}


def ids(messages):
    return [c["id"] for m in messages for c in m.get("tool_calls", ())], [
        m.get("tool_call_id") for m in messages if m["role"] == "tool"
    ]


def with_call_ids(messages, source="tool_calls"):
    return for_template(messages, source, jinja_answer_format(source).calls)


def test_messages_without_calls_are_left_alone():
    messages = [{"role": "user", "content": "x"}, {"role": "tool", "content": "y", "tool_call_id": "call_1"}]
    assert with_call_ids(messages) is messages


@pytest.mark.parametrize("given", [{}, {"id": ""}, {"id": None}, {"id": "call_12345678"}, {"id": "123456789"}])
def test_ids_have_nine_letters_and_digits_where_the_template_wants_that(given):
    messages = [asked(call("a", **given)), {"role": "tool", "content": "1", "tool_call_id": given.get("id") or ""}]
    [of_call], [of_answer] = ids(with_call_ids(messages))
    assert of_call == of_answer
    assert (of_call == given.get("id")) == bool(given.get("id"))
    [of_call], [of_answer] = ids(with_call_ids(messages, "tool_calls: id|length != 9"))
    assert of_call == of_answer
    assert len(of_call) == 9
    assert of_call.isalnum()
    assert (of_call == given.get("id")) == (given.get("id") == "123456789")
    assert messages[0]["tool_calls"][0] == call("a", **given), "the messages of the caller stay as they are"


def test_answers_find_their_calls_by_id_then_name_then_order():
    calls = asked(call("a", id="x"), call("b"), call("a", id="z"))
    answers = [
        {"role": "tool", "content": "3", "tool_call_id": "z"},
        {"role": "tool", "content": "2", "tool_name": "b"},
        {"role": "tool", "content": "1"},
    ]
    shown = with_call_ids([calls, *answers])
    of_calls, of_answers = ids(shown)
    assert len(set(of_calls)) == 3
    assert of_answers == [of_calls[2], of_calls[1], of_calls[0]]
    assert [message["tool_name"] for message in shown[1:]] == ["a", "b", "a"]
    assert [message["name"] for message in shown[1:]] == ["a", "b", "a"]


def test_calls_of_two_turns_differ_and_strange_answers_stay():
    turn = [asked(call("a")), {"role": "tool", "content": "1"}]
    stray = {"role": "tool", "content": "?", "tool_call_id": "nobody"}
    shown = with_call_ids([*turn, *turn, stray, asked("no call")])
    assert ids(shown[:4])[0] == ids(shown[:4])[1]
    assert len(set(ids(shown[:4])[0])) == 2
    assert shown[4] is stray
    assert shown[5]["tool_calls"] == ["no call"]


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("<|tool_call_start|>", "Hm<|tool_call_start|>[a(x='it', y=[1, None]), b()]<|tool_call_end|>"),
        ("<|tool_call|>", 'Hm<|tool_call|>[{"name": "a", "arguments": {"x": "it", "y": [1, null]}}, '
         '{"name": "b", "arguments": {}}]'),
        ("", 'Hm<tool_call>\n{"name": "a", "arguments": {"x": "it", "y": [1, null]}}\n</tool_call>\n'
         '<tool_call>\n{"name": "b", "arguments": {}}\n</tool_call>'),
    ],
)  # fmt: skip
def test_calls_stand_in_the_content_where_the_template_leaves_them_out(source, written):
    calls = [Call("a", {"x": "it", "y": [1, None]}), Call("b", {})]
    given = [{"function": {"name": call.name, "arguments": call.arguments}} for call in calls]
    message = {"role": "assistant", "content": "Hm", "tool_calls": given}
    assert with_call_ids([message], source)[0]["content"] == written
    assert with_call_ids([message], source + "tool_calls")[0]["content"] == "Hm"
    tools = [{"function": {"name": call.name}} for call in calls]
    parser = jinja_answer_format(source).parser("", tools)
    found = [part for part in parser.push(written) + parser.finish() if not isinstance(part, str)]
    assert [Call(part.name, part.arguments) for part in found] == calls


def test_a_go_template_sees_no_thoughts_in_the_text_of_old_answers():
    template = ModelfileTemplate(
        "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}[{{ .Content }}]{{ end }}"
    )
    thought, open_thought = "<think>so</think>\n\nHi", "<think>so"
    talk = [("user", "a"), ("assistant", thought), ("user", thought), ("assistant", open_thought), ("user", "b")]
    messages = [{"role": role, "content": content} for role, content in talk]
    assert template.render(messages) == f"[a][Hi][{thought}][{open_thought}][b]"
    assert template.render(messages[:2]) == f"[a][{thought}]"
    messages[1]["thinking"] = "well"
    assert template.render(messages[:3]) == f"[a]<think>well</think>[Hi][{thought}]"
