"""Go's template language: Go itself is the reference, and no template may hang, crash or fill the memory."""

import json
import string
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamacore import TemplateError
from ollamacore.prompt import budget
from ollamacore.prompt.gotemplate import MAX_SOURCE, GoTemplate
from ollamacore.prompt.gotemplate.lexer import quoted
from ollamacore.prompt.gotemplate.values import from_json, json_text

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "gotemplate" / "language.json").read_text())
DATA = from_json(GOLDEN["data"])


def outcome(source, data=DATA):
    """The output of a template, or its error up to the type that Go names: it says interface {} more often."""
    try:
        return GoTemplate(source).render(data)
    except TemplateError as error:
        return f"error: {error}".split(" in type ")[0]


@pytest.mark.parametrize("example", GOLDEN["examples"], ids=lambda example: example["template"][:60])
def test_go_says_the_same(example):
    wanted = example.get("output", "")
    if "error" in example:
        wanted = f"error: {example['error']}".split(" in type ")[0]
    assert outcome(example["template"]) == wanted


def test_a_number_that_is_too_long_is_an_error():
    assert outcome("{{ " + "9" * 100_000 + " }}").startswith("error: template: :1: integer overflow")


def test_dates():
    days = GoTemplate('{{ currentDate }} {{ yesterdayDate "ignored" }}').render({}).split()
    today, yesterday = (time.strptime(day, "%Y-%m-%d") for day in days)
    assert time.mktime(today) > time.mktime(yesterday)
    assert outcome("{{ currentDate 3 }}").endswith("expected string; found 3")


@pytest.mark.parametrize(
    "source",
    [
        '{{ define "r" }}{{ template "r" . }}{{ end }}{{ template "r" . }}',
        '{{ $s := "aaaaaaaaaa" }}{{ range 100 }}{{ $s = printf "%s%s" $s $s }}{{ end }}{{ len $s }}',
        '{{ $s := "aaaaaaaaaa" }}{{ range 100 }}{{ $s = print $s $s }}{{ end }}{{ len $s }}',
        '{{ $s := "<<<<<<<<<<" }}{{ range 100 }}{{ $s = html $s $s }}{{ end }}{{ len $s }}',
        '{{ $s := "<<<<<<<<<<" }}{{ range 100 }}{{ $s = json $s }}{{ end }}{{ len $s }}',
        '{{ printf "%999999999d" 1 }}',
        '{{ printf "%*d" 999999999 1 }}',
        '{{ printf "%.999999999f" 1.5 }}',
        "{{ range 9223372036854775807 }}{{ end }}",
        "{{ range 900000 }}{{ range 900000 }}{{ end }}{{ end }}",
        "{{ range 999999 }}" + "x" * 100 + "{{ end }}",
    ],
    ids=str.split,
)
def test_what_costs_too_much_is_refused(source, monkeypatch):
    monkeypatch.setattr(budget, "SECONDS", 0.5)
    with pytest.raises(TemplateError):
        GoTemplate(source).render({})


@pytest.mark.parametrize(
    "source",
    [
        "{{ if . }}" * 1000 + "{{ end }}" * 1000,
        "{{ if . }}" + "{{ else if . }}" * 1000 + "{{ end }}",
        "{{ " + "(" * 1000 + "1" + ")" * 1000 + " }}",
        '{{ block "a" . }}' * 1000 + "{{ end }}" * 1000,
        "x" * (MAX_SOURCE + 1),
    ],
    ids=["if", "else if", "parentheses", "block", "long"],
)
def test_what_is_nested_too_deeply_or_too_long_is_refused(source):
    with pytest.raises(TemplateError):
        GoTemplate(source)


def test_values_that_are_deep_are_refused():
    value = {}
    for _ in range(5000):
        value = {"a": value}
    with pytest.raises(TemplateError, match="nested too deeply"):
        GoTemplate("{{ json . }}").render(value)


@given(st.text().filter(lambda text: "{{" not in text))
def test_text_comes_out_as_it_is(text):
    assert GoTemplate(text).render({}) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_quoted_text_comes_out_as_it_is(text):
    assert GoTemplate("{{ %s }}" % quoted(text)).render({}) == text  # noqa: UP031  braces
    assert GoTemplate("{{ .x }}").render({"x": text}) == text


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.none() | st.booleans() | NUMBERS | st.text(string.printable + "é<\u2028")
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


@given(VALUES)
def test_json_is_read_back(value):
    text = json_text_of(value)
    assert json.loads(text, parse_int=float) == value
    assert not set(text) & set("<>&\u2028\u2029")


def json_text_of(value):
    with budget.started(1000):
        return json_text(value)


WORDS = str.split(
    "{{ }} {{- -}} if else end range with define template block break continue nil true . .a .l .m.k $ $x := = , | ( ) "
    "and or not eq ne lt len index slice print printf json \"s\" `r` 'c' 1 -2 1.5 0x1F %d /* */ text"
)


@given(st.lists(st.sampled_from([*WORDS, " ", "\n"]), max_size=40))
def test_any_template_ends_in_text_or_an_error(words):
    source = " ".join(words)
    data = {"a": 1.0, "l": ["x", None], "m": {"k": "v"}}
    assert isinstance(outcome(source, data), str)


@given(st.text(alphabet="{}-. $a\"'`%\\/*()|:=,\n1", max_size=60))
def test_any_text_is_a_template_or_an_error(text):
    assert isinstance(outcome("{{ " + text, {"a": "v"}), str)


def test_rendering_leaves_the_data_alone():
    data = {"l": ["a", "b"], "m": {"k": "v"}}
    before = json.dumps(data)
    GoTemplate('{{ $l := .l }}{{ $l = slice $l 1 }}{{ range $k, $v := .m }}{{ $v = "x" }}{{ end }}').render(data)
    assert json.dumps(data) == before
