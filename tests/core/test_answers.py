"""Answers taken apart: thoughts, tool calls and content, the same however the text comes."""

import json
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamacore import AnswerFormat, ModelfileTemplate, jinja_answer_format
from ollamacore.prompt.harmony import Thought
from ollamacore.prompt.thinking import ThinkingParser, ThinkingTags
from ollamacore.prompt.tools import jinja_format

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "exact": {"type": "boolean"},
                    "ratio": {"type": ["number", "null"]},
                    "tags": {"anyOf": [{"type": "array"}, {"type": "string"}]},
                },
            },
        },
    }
    for name in ("weather", "weather_in", "now")
]
BEGIN, END = "<\uff5ctool\u2581{}\u2581begin\uff5c>", "<\uff5ctool\u2581{}\u2581end\uff5c>"
SEPARATOR = "<\uff5ctool\u2581sep\uff5c>"
SECTION, SECTION_END = BEGIN.format("calls"), END.format("calls")
ONE, ONE_END = BEGIN.format("call"), END.format("call")


def pieces(answer_format, texts, prompt="", tools=TOOLS):
    """The parts of an answer that comes in these pieces; neighbours of a kind as one."""
    parser = answer_format.parser(prompt, tools)
    found = [part for text in texts for part in parser.push(text)] + parser.finish()
    merged = []
    for index, part in enumerate(found):
        assert part != ""
        kind = "think" if isinstance(part, Thought) else "say" if isinstance(part, str) else "call"
        value = {"think": lambda p: p.text, "say": str, "call": lambda p: (p.name, p.arguments)}[kind](part)
        if merged and merged[-1][0] == kind != "call":
            merged[-1] = (kind, merged[-1][1] + value)
        else:
            merged.append((kind, value))
        assert kind != "call" or re.fullmatch(r"call_[a-z0-9]{8}", found[index].id)
    calls = [part.index for part in found if not isinstance(part, str | Thought)]
    assert calls == list(range(len(calls)))
    return merged


def jinja(sign):
    return jinja_answer_format(sign)


def go(calls, thought=""):
    source = (
        "{{ range .Messages }}{{ .Content }}%s{{ if .ToolCalls }}%s{{ end }}{{ end }}"
        "{{ range .Tools }}{{ .Function.Name }}{{ end }}"
    )
    return ModelfileTemplate(source % (thought, calls)).answer_format


OSLO, ROME = ("call", ("weather", {"city": "Oslo"})), ("call", ("weather", {"city": "Rome"}))
GO_JSON = '{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{ end }}'
THINK = "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}"
HARMONY = "<|start|><|channel|><|message|>"
LLAMA = '"parameters":'

#: name -> how the model answers, its answer, what is in it
ANSWERS = {
    # ---- thoughts ----
    "thought": (
        jinja("<think></think>"),
        "<think>\nA <b> thought\n</think>\n\nHi",
        [("think", "A <b> thought"), ("say", "Hi")],
    ),
    "thought, none": (jinja("<think></think>"), " Hi <think>x</think>", [("say", " Hi <think>x</think>")]),
    "thought, empty": (jinja("<think></think>"), "<think>\n\n</think>\n\nHi", [("say", "Hi")]),
    "thought, open": (jinja("<think></think>"), "<think>on and on </thin", [("think", "on and on </thin")]),
    "thought, half a tag": (jinja("<think></think>"), "\n<thi", [("say", "\n<thi")]),
    "thought, twice": (
        jinja("<think></think>"),
        "<think>a</think>b<think>c</think>",
        [("think", "a"), ("say", "b<think>c</think>")],
    ),
    "thought that a call ends": (
        jinja("<think></think><tool_call>"),
        '<think>so:\n<tool_call>{"name": "now"}</tool_call>',
        [("think", "so:"), ("call", ("now", {}))],
    ),
    "thought of Go": (go("", THINK), " <think> a </think> b ", [("think", "a "), ("say", "b ")]),
    "gemma 4 thought": (
        jinja("<|channel><|tool_call>"),
        "<|channel>thought\nHm\n<channel|>Hi",
        [("think", "Hm"), ("say", "Hi")],
    ),
    "ministral thought": (
        jinja("[THINK][TOOL_CALLS]"),
        "[THINK]Hm[/THINK]Hi [x]",
        [("think", "Hm"), ("say", "Hi [x]")],
    ),
    "seed thought": (jinja("<seed:think>"), "<seed:think>Hm</seed:think>Hi", [("think", "Hm"), ("say", "Hi")]),
    "granite thought": (
        jinja("between <think></think> and <response></response> <|tool_call|>"),
        "<think>Hm</think>\n<response>\nHi <b>.</response>\n",
        [("think", "Hm"), ("say", "Hi <b>.")],
    ),
    "command thought": (
        jinja("<|START_THINKING|><|START_ACTION|>"),
        "<|START_THINKING|>Hm<|END_THINKING|>Hi",
        [("think", "Hm"), ("say", "Hi")],
    ),
    # ---- JSON in tags ----
    "hermes": (
        jinja("<tool_call>"),
        'I look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        [("say", "I look."), OSLO, ("call", ("now", {}))],
    ),
    "hermes, list": (
        jinja("<tool_call>"),
        '<tool_call>[{"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}, {"name": "now"}]</tool_call> Done',
        [OSLO, ("call", ("now", {})), ("say", "Done")],
    ),
    "hermes, tag in a string": (
        jinja("<tool_call>"),
        '<tool_call>{"name": "weather", "arguments": {"city": "</tool_call>"}}</tool_call>',
        [("call", ("weather", {"city": "</tool_call>"}))],
    ),
    "hermes, no end": (jinja("<tool_call>"), '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}', [OSLO]),
    "hermes, bracket too many": (
        jinja("<tool_call>"),
        '<tool_call>{"name": "now", "arguments": {}}}</tool_call>',
        [("call", ("now", {}))],
    ),
    "hermes, unknown tool": (
        jinja("<tool_call>"),
        '<tool_call>{"name": "x", "arguments": {"a": 1}}</tool_call>',
        [("call", ("x", {"a": 1}))],
    ),
    "hermes, cut": (jinja("<tool_call>"), 'A <tool_call>{"name": "weat', [("say", 'A <tool_call>{"name": "weat')]),
    "hermes, broken": (
        jinja("<tool_call>"),
        'A <tool_call>{name}</tool_call> b <tool_call>{"name": "now"}</tool_call>',
        [("say", "A <tool_call>{name}</tool_call> b"), ("call", ("now", {}))],
    ),
    "hermes, open string": (
        jinja("<tool_call>"),
        '<tool_call>{"name": "no</tool_call> <tool_call>{"name": "now"}</tool_call>',
        [("say", '<tool_call>{"name": "no</tool_call>'), ("call", ("now", {}))],
    ),
    "hermes, surplus text": (
        jinja("<tool_call>"),
        '<tool_call>{"name": "now"} and so on</tool_call>',
        [("call", ("now", {})), ("say", "and so on")],
    ),
    "hermes, half a tag": (jinja("<tool_call>"), "a < b <tool_calls>  ", [("say", "a < b <tool_calls>  ")]),
    "hermes, no call": (jinja("<tool_call>"), "\n{}\n", [("say", "\n{}\n")]),
    "hermes, no tags": (jinja("<tool_call>"), '{"name": "weather", "arguments": {"city": "Oslo"}}', [OSLO]),
    "hermes, braces twice": (
        jinja("<tool_call>"),
        '{{"name": "weather", "arguments": {"city": "Oslo"}}}\n{{"name": "weather", "arguments": {"city": "Rome"}}}',
        [OSLO, ROME],
    ),
    "hermes, fence": (
        jinja("<tool_call>"),
        'Sure:\n```json\n{"name": "weather", "arguments": {"city": "Oslo"}}\n```\nDone',
        [("say", "Sure:"), OSLO, ("say", "Done")],
    ),
    "hermes, fence of something else": (
        jinja("<tool_call>"),
        '```json\n{"city": "Oslo"}\n``` and ```json\n[1]\n``',
        [("say", '```json\n{"city": "Oslo"}\n``` and ```json\n[1]\n``')],
    ),
    "hermes, numbers": (
        jinja("<tool_call>"),
        '<tool_call>{"name": "now", "arguments": {"a": 123456789012345678901, "b": -1.5, "c": "\\ud800"}}</tool_call>',
        [("call", ("now", {"a": 123456789012345678901.0, "b": -1.5, "c": "\ufffd"}))],
    ),
    "hermes, not JSON": (
        jinja("<tool_call>"),
        '<tool_call>{"name": "now", "arguments": {"a": NaN}}</tool_call>',
        [("say", '<tool_call>{"name": "now", "arguments": {"a": NaN}}</tool_call>')],
    ),
    "hermes, too large": (
        jinja("<tool_call>"),
        '<tool_call>{"name": "now", "arguments": {"a": 1e999}}</tool_call>',
        [("say", '<tool_call>{"name": "now", "arguments": {"a": 1e999}}</tool_call>')],
    ),
    "nemotron": (
        jinja("<TOOLCALL>"),
        '<TOOLCALL>[{"name": "weather", "arguments": {"city": "Oslo"}}]</TOOLCALL>',
        [OSLO],
    ),
    "command": (
        jinja("<|START_ACTION|>"),
        '<|START_ACTION|>[\n {"tool_call_id": "0", "tool_name": "weather", "parameters": {"city": "Oslo"}}\n]'
        "<|END_ACTION|>",
        [OSLO],
    ),
    # ---- JSON that ends itself ----
    "granite": (jinja("<|tool_call|>"), '<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}]', [OSLO]),
    "phi 4 mini": (
        jinja("<|tool_call|>"),
        '<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}]<|/tool_call|> ok',
        [OSLO, ("say", "ok")],
    ),
    "functools": (jinja("functools"), 'functools[{"name": "now", "arguments": {}}]', [("call", ("now", {}))]),
    "llama": (jinja(LLAMA), '{"name": "weather", "parameters": {"city": "Oslo"}}', [OSLO]),
    "llama, two": (
        jinja(LLAMA),
        '\n{"name": "weather", "parameters": {"city": "Oslo"}}; {"name": "weather", "parameters": {"city": "Rome"}}\n',
        [OSLO, ROME],
    ),
    "llama, function": (
        jinja(LLAMA),
        '{"type": "function", "function": {"name": "weather", "parameters": {"city": "Oslo"}}}',
        [OSLO],
    ),
    "llama, unknown tool": (
        jinja(LLAMA),
        '{"name": "Oslo", "parameters": {}}',
        [("say", '{"name": "Oslo", "parameters": {}}')],
    ),
    "llama, other JSON": (
        jinja(LLAMA),
        '{"city": {"name": "Oslo"}} {"name": "now"}',
        [("say", '{"city": {"name": "Oslo"}} {"name": "now"}')],
    ),
    "llama, cut": (jinja(LLAMA), '{"name": "weather", "para', [("say", '{"name": "weather", "para')]),
    "llama, JSON later": (jinja(LLAMA), 'See {"name": "now"}', [("say", 'See {"name": "now"}')]),
    "llama, list": (jinja(LLAMA), '[{"name": "now", "parameters": {}}]', [("call", ("now", {}))]),
    "llama, text behind": (jinja(LLAMA), '{"name": "now"}, or so', [("call", ("now", {})), ("say", ", or so")]),
    "llama, token": (
        jinja("<|python_tag|>"),
        '<|python_tag|>{"name": "weather", "parameters": {"city": "Oslo"}}',
        [OSLO],
    ),
    "mistral": (
        jinja("[TOOL_CALLS]"),
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo"}, "id": "123456789"}]',
        [OSLO],
    ),
    "ministral": (
        jinja("[TOOL_CALLS]"),
        'Hm.[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]weather[CALL_ID]123456789[ARGS]{"city": "Rome"}',
        [("say", "Hm."), OSLO, ROME],
    ),
    "mistral, broken": (jinja("[TOOL_CALLS]"), "[TOOL_CALLS]: {", [("say", "[TOOL_CALLS]: {")]),
    # ---- tags around values ----
    "qwen 3.5": (
        jinja("<tool_call><function=<parameter="),
        "Hm\n\n<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        '<parameter=exact>\nTrue\n</parameter>\n<parameter=ratio>\nnull\n</parameter>\n<parameter=tags>\n[1, "a"]\n'
        "</parameter>\n<parameter=other>\n<b>\n\nc\n</parameter>\n</function>\n</tool_call>",
        [
            ("say", "Hm"),
            (
                "call",
                (
                    "weather",
                    {"city": "Oslo", "days": 3, "exact": True, "ratio": None, "tags": [1, "a"], "other": "<b>\n\nc"},
                ),
            ),
        ],
    ),
    "qwen coder, no tool_call tag": (
        jinja("<parameter="),
        "<function=weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\nok",
        [OSLO, ("say", "ok")],
    ),
    "qwen coder, not what the schema says": (
        jinja("<parameter="),
        "<tool_call><function=weather><parameter=days>soon</parameter><parameter=city>7</parameter></function></tool_call>",
        [("call", ("weather", {"days": "soon", "city": "7"}))],
    ),
    "seed": (
        jinja("<seed:tool_call>"),
        "<seed:tool_call>\n<function=weather>\n<parameter=city>Oslo</parameter>\n</function>\n</seed:tool_call>",
        [OSLO],
    ),
    "functionary": (jinja("<function="), '<function=weather>{"city": "Oslo"}</function>', [OSLO]),
    "minicpm 5": (
        jinja("<param name="),
        '<function name="weather"><param name="city">Oslo</param><param name="days">2</param></function>',
        [("call", ("weather", {"city": "Oslo", "days": 2}))],
    ),
    "apriel": (
        jinja("<tool_calls>"),
        '<tool_calls>[{"name": "weather", "arguments": {"city": "Oslo"}}]</tool_calls>',
        [OSLO],
    ),
    "glm": (
        jinja("<arg_key>"),
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>2</arg_value>\n</tool_call>",
        [("call", ("weather", {"city": "Oslo", "days": 2}))],
    ),
    # ---- notations of languages ----
    "lfm2": (
        jinja("<|tool_call_start|>"),
        "<|tool_call_start|>[weather(city='Oslo'), weather_in(city=\"it's \\\"L'Aquila\\\"\", days=3, "
        "tags=['a', {'b': None}], "
        "ratio=-1.5e3, exact=true), now()]<|tool_call_end|>I look.",
        [
            OSLO,
            (
                "call",
                (
                    "weather_in",
                    {
                        "city": "it's \"L'Aquila\"",
                        "days": 3,
                        "tags": ["a", {"b": None}],
                        "ratio": -1500.0,
                        "exact": True,
                    },
                ),
            ),
            ("call", ("now", {})),
            ("say", "I look."),
        ],
    ),
    "lfm2, apostrophe": (
        jinja("<|tool_call_start|>"),
        "<|tool_call_start|>[weather(city='L'Aquila')]<|tool_call_end|>",
        [("call", ("weather", {"city": "L'Aquila"}))],
    ),
    "lfm2, broken": (
        jinja("<|tool_call_start|>"),
        "<|tool_call_start|>[weather(Oslo)]<|tool_call_end|>",
        [("say", "<|tool_call_start|>[weather(Oslo)]<|tool_call_end|>")],
    ),
    "olmo 3": (
        jinja("<function_calls>"),
        '<function_calls>\nweather(city="Oslo")\nweather(city="Rome")\n</function_calls>',
        [OSLO, ROME],
    ),
    "gemma 4": (
        jinja("<|channel><|tool_call>"),
        '<|channel>thought\nHm\n<channel|><|tool_call>call:weather{city:<|"|>Oslo<|"|>}<tool_call|>'
        '<|tool_call>call:weather_in{city:<|"|>{"a", b}<|"|>,days:3,exact:false,'
        'tags:[<|"|>x<|"|>,{<|"|>k<|"|>:null,m:1.5}]}'
        "<tool_call|>",
        [
            ("think", "Hm"),
            OSLO,
            (
                "call",
                ("weather_in", {"city": '{"a", b}', "days": 3, "exact": False, "tags": ["x", {"k": None, "m": 1.5}]}),
            ),
        ],
    ),
    "functiongemma": (
        jinja("<start_function_call>"),
        "<start_function_call>call:weather{city:<escape>Oslo<escape>}<end_function_call>",
        [OSLO],
    ),
    # ---- sections ----
    "deepseek r1": (
        jinja(SECTION),
        f'Hm{SECTION}{ONE}function{SEPARATOR}weather\n```json\n{{"city": "Oslo"}}\n```{ONE_END}\n'
        f'{ONE}function{SEPARATOR}weather\n```json\n{{"city": "Rome"}}\n```{ONE_END}{SECTION_END}',
        [("say", "Hm"), OSLO, ROME],
    ),
    "deepseek v3.1": (
        jinja(SECTION),
        f'{SECTION}{ONE}weather{SEPARATOR}{{"city": "Oslo"}}{ONE_END}{SECTION_END}',
        [OSLO],
    ),
    # ---- Go templates ----
    "go, tag": (
        go("<tool_call>\n" + GO_JSON + "</tool_call>\n"),
        'Hm\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n{"name": "now", "parameters": {}}\n'
        "</tool_call>\nok",
        [("say", "Hm"), OSLO, ("call", ("now", {})), ("say", "ok")],
    ),
    "go, unknown tool": (
        go("<tool_call>" + GO_JSON + "</tool_call>"),
        '<tool_call>{"name": "x", "arguments": {}}</tool_call>',
        [("say", '<tool_call>{"name": "x", "arguments": {}}</tool_call>')],
    ),
    "go, brace": (go(GO_JSON), '{"name": "weather", "parameters": {"city": "Oslo"}}', [OSLO]),
    "go, tool as key": (go(GO_JSON), '{"weather": {"city": "Oslo"}}', [OSLO]),
    "go, list": (
        go("[TOOL_CALLS] [" + GO_JSON + "]</s>"),
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo"}}]',
        [OSLO],
    ),
    "go, name first": (
        go("<|call|>{{ range .ToolCalls }}{{ .Function.Name }}{{ .Function.Arguments }}{{ end }}"),
        '<|call|>weather_in with {"city": "Oslo"}',
        [("call", ("weather_in", {"city": "Oslo"}))],
    ),
    "go, family": (
        go("<tool_call><function={{ range .ToolCalls }}><parameter={{ end }}"),
        "<tool_call><function=weather><parameter=city>Oslo</parameter></function></tool_call>",
        [OSLO],
    ),
    "go, half a tag": (go("<tool_call>" + GO_JSON), "a <tool", [("say", "a <tool")]),
    # ---- harmony ----
    "harmony": (
        jinja(HARMONY),
        "<|channel|>analysis<|message|>Hm <b><|end|><|start|>assistant<|channel|>final<|message|>Hi <|x",
        [("think", "Hm <b>"), ("say", "Hi <|x")],
    ),
    "harmony, call": (
        jinja(HARMONY),
        "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>"
        '{"city": "Oslo"}<|call|>',
        [("think", "Hm"), ("say", "I look."), OSLO],
    ),
    "harmony, recipient first": (
        jinja(HARMONY),
        ' to=functions.weather<|channel|>commentary json<|message|>{"city": "Oslo"}',
        [OSLO],
    ),
    "harmony, broken call": (jinja(HARMONY), " to=functions.now<|channel|>commentary<|message|>{no", [("say", "{no")]),
    "harmony, no header": (jinja(HARMONY), "Hi there", [("say", "Hi there")]),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_has_the_same_parts_however_it_is_cut(name):
    answer_format, text, wanted = ANSWERS[name]
    assert pieces(answer_format, [text]) == wanted
    assert pieces(answer_format, text) == wanted
    for at in range(1, len(text)):
        assert pieces(answer_format, [text[:at], text[at:]]) == wanted, text[:at]


#: what answers are made of, and what looks like it
_TAGS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<function=",
    "now>",
]
_TEXTS = [
    "\\",
    '{{"name": "now"',
    "}}",
    '{"name": "now"',
    ', "arguments": {"city": "a"}}',
    "}",
    '"',
    "'",
    "{",
    "[",
    "]",
    " ",
    "\n",
    ";",
    "now",
    "weather",
    "x",
]
_PARTS = [*_TAGS, "</function>", "<parameter=days>", "</parameter>", "3", "call:now", *_TEXTS]
_SIGNS = ["<tool_call>", "<parameter=", "<|python_tag|>", "[TOOL_CALLS]", "<|tool_call_start|>", "<arg_key>", LLAMA, ""]


@given(
    sign=st.sampled_from(_SIGNS),
    text=st.lists(st.sampled_from(_PARTS), max_size=12).map("".join),
    cuts=st.lists(st.integers(0, 120), max_size=6),
)
def test_no_text_breaks_the_parser_and_no_cut_matters(sign, text, cuts):
    answer_format = jinja_answer_format("<think></think>" + sign)
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    whole = pieces(answer_format, [text])
    assert pieces(answer_format, [text[begin:end] for begin, end in pairwise(places)]) == whole
    assert pieces(answer_format, text) == whole
    said = "".join(value for kind, value in whole if kind == "say")
    if not any(kind == "call" for kind, _ in whole) and "<think>" not in text:
        assert said.split() == text.split(), "text is lost"


_VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=9)


@given(st.dictionaries(st.text(max_size=9), _VALUES | st.lists(_VALUES, max_size=3), max_size=4))
def test_arguments_come_back_as_they_were_written(arguments):
    text = json.dumps({"name": "now", "arguments": arguments})
    [(kind, (name, found))] = pieces(jinja("<tool_call>"), [f"<tool_call>{text}</tool_call>"])
    assert (kind, name) == ("call", "now")
    assert json.loads(json.dumps(found), parse_int=float) == json.loads(json.dumps(arguments), parse_int=float)


@pytest.mark.parametrize("sign", [sign for sign in _SIGNS if sign])
@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"name":' * 50_000, "<tool_call>" * 3000, '{"name": "now", "a": ' + "9" * 10_000]
)
def test_hostile_text_ends_as_content(sign, text):
    for opening in ("", "<tool_call>", "[TOOL_CALLS]now[ARGS]", "<|tool_call_start|>[now(a="):
        found = pieces(jinja(sign), [opening + text])
        assert "".join(value for kind, value in found if kind == "say") == opening + text


def test_an_answer_full_of_broken_calls_is_given_up():
    text = "<tool_call>" * 20_000
    call = '<tool_call>{"name": "now"}</tool_call>'
    assert pieces(jinja("<tool_call>"), [text]) == [("say", text)]
    assert pieces(jinja("<tool_call>"), ["<tool_call>x</tool_call>" * 100, call]) == [
        ("say", "<tool_call>x</tool_call>" * 100 + call)
    ]


def test_without_tools_there_are_no_calls():
    answer_format = jinja("<think></think><tool_call>")
    text = '<tool_call>{"name": "now"}</tool_call>'
    assert pieces(answer_format, [f"<think>a</think>{text}"], tools=()) == [("think", "a"), ("say", text)]
    assert jinja("<tool_call>").parser("", ()) is None
    harmony = " to=functions.now<|channel|>commentary<|message|>{}"
    assert pieces(jinja(HARMONY), [harmony], tools=()) == [("say", "{}")]


@pytest.mark.parametrize("end", ["<think>", "<think>\n"])
def test_a_prompt_that_opens_a_thought_is_gone_on_with(end):
    assert pieces(jinja("<think></think>"), ["a", "</think>", "b"], prompt=f"Hi{end}") == [("think", "a"), ("say", "b")]
    assert pieces(jinja("<think></think>"), ["a", "</thi"], prompt="<think></think>") == [("say", "a</thi")]


@pytest.mark.parametrize(
    ("turn", "kind"),
    [("<|channel|>analysis<|message|>So", "think"), ("<|channel|>final<|message|>So", "say"), ("", "say")],
)
def test_a_turn_of_harmony_that_has_begun_is_gone_on_with(turn, kind):
    prompt = f"<|start|>user<|message|>x<|end|><|start|>assistant{turn}"
    text = " on" if turn else "<|channel|>final<|message|> on"
    assert pieces(jinja(HARMONY), [text], prompt=prompt) == [(kind, " on")]


def test_text_is_not_held_back_for_longer_than_it_must_be():
    parser = jinja("<think></think><tool_call>").parser("", TOOLS)
    said = [
        parser.push(text) for text in ("<think>", "a", " b", " <", "x", "</think>", "\n", "c", " <tool", "s", "\n", "d")
    ]
    thoughts = [[part.text for part in parts if isinstance(part, Thought)] for parts in said[:5]]
    assert thoughts == [[], ["a"], [" b"], [], [" <x"]]
    assert said[5:] == [[], [], ["c"], [], [" <tools"], [], ["\nd"]]
    plain = jinja(LLAMA).parser("", TOOLS)
    assert [plain.push(text) for text in ('{"', "city", '"', ": 1")] == [[], [], ['{"city"'], [": 1"]]


def test_the_parser_knows_when_the_content_begins():
    parser = jinja("<think></think>").parser("")
    states = [parser.push(text) is None or parser.in_content for text in ("<think>", "a", "</think>", "b")]
    assert states == [False, False, True, True]
    assert not jinja("<think></think>").parser("<think>").in_content
    messages = jinja(HARMONY).parser("")
    texts = ("<|channel|>analysis<|message|>a", "<|end|>", "<|start|>assistant<|channel|>final<|message|>", "b")
    assert [messages.push(text) is None or messages.in_content for text in texts] == [False, False, True, True]


def test_a_vocabulary_shows_what_its_template_does_not():
    tokens = {"<|tool_call_start|>", "<think>"}
    found = jinja_answer_format("{{ tools }}", tokens.__contains__)
    assert found.calls == jinja_format("<|tool_call_start|>", lambda text: False)
    assert found.thinking is None
    default = jinja_answer_format("{{ tools }}")
    assert pieces(default, ['{"name": "now"}']) == [("call", ("now", {}))]
    assert pieces(default, ['<tool_call>{"name": "now"}</tool_call>']) == [("call", ("now", {}))]


def test_tags_that_must_be_seen():
    assert set(jinja("<|channel><|tool_call>").parser("", TOOLS).tags) >= {"<channel|>", "<tool_call|>", '<|"|>'}
    assert jinja("<think></think><tool_call>").parser("").tags == ["<think>", "</think>"]


@pytest.mark.parametrize("thinks", ["", "<think>", "</think>"])
def test_a_template_without_both_tags_does_not_think(thinks):
    assert not jinja(thinks).can_think
    assert jinja("content.split('</think>')").can_think
    assert AnswerFormat().parser("", TOOLS) is None


def test_thinking_variables():
    assert jinja("").thinking_variables(True) == {}
    think = jinja("<think></think>")
    assert think.thinking_variables(None) == {"enable_thinking": True, "thinking": True}
    assert think.thinking_variables(False) == {"enable_thinking": False, "thinking": False}
    assert think.thinking_variables("max")["reasoning_effort"] == "max"
    assert jinja(HARMONY).thinking_variables("max")["reasoning_effort"] == "high"


def test_a_thought_keeps_the_space_before_its_end_where_nothing_is_trimmed():
    parser = ThinkingParser(ThinkingTags("<t>", "</t>"))
    assert [parser.push(text) for text in (" <t> a ", " </", "t> b")] == [("a ", ""), (" ", ""), ("", "b")]
