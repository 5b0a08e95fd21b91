"""Chat templates: the same text as plain Jinja2; hostile templates end in TemplateError soon and cheaply."""

# ruff: noqa: E501 - templates on one line each

import json
import threading
import tracemalloc

import pytest

from ollamacore.errors import TemplateError
from ollamacore.gguf import GGUFFile
from ollamacore.prompt import budget
from ollamacore.prompt.jinja import MAX_SOURCE, ChatTemplate
from tests.generate import plain_jinja

DATA = plain_jinja.DATA
GOLDENS = json.loads((DATA / "goldens.json").read_text())
CONVERSATIONS = json.loads((DATA / "conversations.json").read_text())
HI = [{"role": "user", "content": "Hi"}]


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>")


def render(source: str, messages=HI, **variables) -> str:
    return template(source).render(messages, **variables)


@pytest.mark.parametrize("case", GOLDENS)
def test_render_equals_plain_jinja(case):
    name, conversation = case.split("/")
    source = (DATA / f"{name}.jinja").read_text()
    assert render(source, **CONVERSATIONS[conversation]) == GOLDENS[case]


@pytest.mark.model
@pytest.mark.parametrize("model", ["smollm2_path", "qwen05_path"])
@pytest.mark.parametrize("conversation", ["hello", "system", "finished", "tools"])
def test_render_of_real_templates_equals_plain_jinja(model, conversation, request):
    with GGUFFile.open(request.getfixturevalue(model)) as file:
        source = file.get("tokenizer.chat_template", str)
    case = CONVERSATIONS[conversation]
    assert render(source, **case) == plain_jinja.render(source, **case)


PLAIN = {
    "arithmetic": "{{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 7 % 3 }} {{ -3 * 2 }} {{ 1.5 + 2 }}",
    "strings": "{{ 'ab' * 3 }} {{ 'a' ~ 1 ~ none ~ [1] }} {{ '%s-%03d' % ('x', 7) }} {{ 'abc'[::-1] }}",
    "format-method": "{{ '{0} {b:>5} {0!r}'.format('x', b=2) }} {{ '{:.2f}'.format(3.14159) }}",
    "methods": "{{ 'a,b,c'.split(',') }} {{ ' x '.strip() }} {{ 'abc'.replace('b', 'xx') }} {{ ','.join(['a', 'b']) }}",
    "more-methods": "{{ 'a b c'.split(none, 1) }} {{ 'a\nb'.splitlines() }} {{ 'x'.center(5) }} {{ '7'.zfill(3) }}",
    "mapping": "{% for k, v in {'a': 1, 'b': [2]}.items() %}{{ k }}={{ v }};{% endfor %}{{ {'x': 1}.get('y', 5) }}",
    "lists": "{{ ([1, 2] + [3])[1:] }} {{ [1] * 3 }} {{ (1, 2) }} {{ [1, 2].index(2) }} {{ 2 in [1, 2] }}",
    "filters": "{{ [3, 1, 2] | sort | join('-') }} {{ 'a b' | title }} {{ 'x' | center(5) }} {{ '5' | int + 1 }}",
    "list-filters": "{{ [1, 2, 3, 4, 5] | batch(2, 0) | list }} {{ [1, 1, 2] | unique | list }} {{ [1, 2] | sum }}",
    "select": "{{ [1, 2, 3] | select('odd') | list }} {{ [{'a': 1}, {'a': 2}] | map(attribute='a') | list }}",
    "groupby": "{% for g in [{'a': 1}, {'a': 2}, {'a': 1}] | groupby('a') %}{{ g.grouper }}:{{ g.list }}{% endfor %}",
    "dictsort": "{{ {'b': 1, 'a': 2} | dictsort }} {{ {'a': 1} | items | list }} {{ [1, 2] | first }} {{ 'ab' | last }}",
    "indent": "{{ 'a\nb\n\nc' | indent(2) }}|{{ 'a\nb' | indent('> ', true, true) }}",
    "tojson": "{{ {'b': '<é>', 'a': [1, none, true]} | tojson }} {{ {'b': 1, 'a': 2} | tojson(indent=2, sort_keys=true) }}",
    "tojson-separators": "{{ [1, {'a': 'é'}] | tojson(separators=(',', ':'), ensure_ascii=true) }}",
    "undefined": "[{{ nothing }}] {{ nothing is defined }} {{ nothing | default('d') }} {{ messages[0].nothing }}",
    "loop": "{% for x in 'abc' %}{{ loop.index }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{% endfor %}",
    "loop-filter": "{% for x in range(9) if x is even %}{{ loop.index }}:{{ x }} {% else %}none{% endfor %}",
    "loop-controls": "{% for x in range(9) %}{% if x == 2 %}{% continue %}{% elif x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "loop-cycle": "{% for x in [1, 1, 2] %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x) }} {% endfor %}",
    "loop-recursive": "{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}@{{ loop.depth }} {% endfor %}",
    "macro": "{% macro m(a, b=2) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }} {{ m(1, 3, 4, k=5) }}",
    "call-block": "{% macro m() %}<{{ caller('x') }}>{% endmacro %}{% call(v) m() %}v={{ v }}{% endcall %}",
    "namespace": "{% set ns = namespace(a=1) %}{% for x in range(3) %}{% set ns.a = ns.a + x %}{% endfor %}{{ ns.a }}",
    "set-block": "{% set x | upper %}abc {{ 1 }}{% endset %}{{ x }}{% filter upper %}q{% endfilter %}",
    "tests": "{{ 1 is number }} {{ 'a' is string }} {{ [] is sequence }} {{ {} is mapping }} {{ 4 is divisibleby 2 }} {{ 'A' is upper }}",
    "compare": "{{ 1 < 2 <= 2 }} {{ [1, [2]] == [1, [2]] }} {{ 'a' not in 'bc' }} {{ {'a': 1} == {'a': 1} }}",
    "keys-before-methods": "{{ {'items': 1}['items'] }} {{ {'a': 1}.items() | list }} {{ {'content': 'c'}.content }}",
    "dict-call": "{{ dict(a=1) }} {{ dict([('a', 1)], b=2) }}",
    "with": "{% with a = 1 %}{{ a }}{% endwith %}{{ 'y' if 1 > 2 else 'n' }}",
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_language_equals_plain_jinja(name):
    assert render(PLAIN[name]) == plain_jinja.render(PLAIN[name], HI)


def test_safe_adds_no_html_escapes():
    assert render("{{ '<a>' | safe + '<b>' }}{{ '<c>' | escape }}") == "<a><b>&lt;c&gt;"


def test_value_of_a_mapping_wins_over_a_method_that_is_not_offered():
    assert render("{{ messages[0].pop }} {{ messages[0].copy }}", [{"pop": "p", "copy": "c"}]) == "p c"


def test_from_json_reads_arguments():
    assert render("""{{ ('{"a": [1]}' | from_json).a[0] }}""") == "1"


def test_strftime_now_is_todays_date():
    assert render("{{ strftime_now('%Y') }}") == plain_jinja.render("{{ strftime_now('%Y') }}", HI)


def test_raise_exception_carries_the_message_and_line():
    with pytest.raises(TemplateError, match="line 3: only users may speak"):
        render("{# a #}\n{% if true %}\n{{ raise_exception('only users may speak') }}\n{% endif %}")


def test_error_inside_a_macro_names_the_innermost_line():
    with pytest.raises(TemplateError, match="line 2: 'nothing' is undefined"):
        render("{% macro m() %}\n{{ nothing.more }}\n{% endmacro %}\n\n{{ m() }}")


@pytest.mark.parametrize(
    ("source", "line"), [("a\n{% if %}", 2), ("{{ 1", 1), ("\n\n{{ x | no_such_filter }}", 3), ("{% for %}", 1)]
)  # fmt: skip
def test_syntax_error_names_the_line(source, line):
    with pytest.raises(TemplateError, match=f"line {line}"):
        template(source)


def test_variables_tell_what_the_template_reads():
    variables = template("{{ tools }}{% if enable_thinking %}{% endif %}{% set a = 1 %}{{ a }}").variables
    assert variables == {"tools", "enable_thinking", "a"}


def test_needs_parts_is_found_out_and_served():
    typed = template((DATA / "parts.jinja").read_text())
    assert typed.needs_parts
    assert "Hi" in typed.render(HI)
    assert not template("{{ messages[0].content }}").needs_parts
    assert not template("no messages at all").needs_parts


def test_messages_are_left_alone():
    messages = [{"role": "user", "content": "Hi", "tool_calls": []}]
    before = json.dumps(messages)
    for name in ("chatml-tools", "header", "parts"):
        render((DATA / f"{name}.jinja").read_text(), messages)
    assert json.dumps(messages) == before


def test_long_conversation_fits_the_budget():
    messages = [{"role": ("user", "assistant")[i % 2], "content": f"{i} " * 50} for i in range(3000)]
    for name in ("chatml-tools", "header", "parts"):
        assert len(render((DATA / f"{name}.jinja").read_text(), messages)) > 600_000


def test_long_message_fits_the_budget():
    content = "word é " * 1_000_000
    expected = render("{{ messages[0].content | trim + '<end>' }}", [{"role": "user", "content": content}])
    assert expected == content.strip() + "<end>"


def test_threads_have_budgets_of_their_own():
    chat = template("{% for i in range(50000) %}{% endfor %}{{ messages[0].content }}")
    found = []
    threads = [threading.Thread(target=lambda: found.append(chat.render(HI))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["Hi"] * 4


def test_wall_clock_limit_is_at_most_five_seconds():
    assert budget.SECONDS <= 5


NESTED = "{% set ns = namespace(v=['x']) %}{% for i in range(40) %}{% set ns.v = [ns.v, ns.v] %}{% endfor %}"
OTHER = NESTED + "{% set o = namespace(v=['x']) %}{% for i in range(40) %}{% set o.v = [o.v, o.v] %}{% endfor %}"
KEYS = "{% set ns = namespace(v=('x',)) %}{% for i in range(40) %}{% set ns.v = (ns.v, ns.v) %}{% endfor %}"
DOUBLING = "{% set ns = namespace(v=START) %}{% for i in range(60) %}{% set ns.v = STEP %}{% endfor %}"

HOSTILE = {
    "percent-width": "{{ '%999999999d' | format(1) }}",
    "percent-operator": "{{ '%999999999d' % 1 }}",
    "percent-precision": "{{ '%.999999999f' % 1.5 }}",
    "percent-star": "{{ '%*d' % (999999999, 1) }}",
    "percent-key": "{{ '%(a)999999999d' % {'a': 1} }}",
    "percent-nested-key": "{{ '%((a))999999999d' % {'(a)': 1} }}",
    "percent-many": "{{ ('%(a)s' * 10000) % {'a': 'x' * 100000} }}",
    "percent-by-test": "{{ '%999999999d' is divisibleby 1 }}",
    "percent-by-odd": "{{ '%0999999999d' is odd }}",
    "format-width": "{{ '{:>999999999}'.format(1) }}",
    "format-zero-width": "{{ '{:0000000000999999999}'.format(1) }}",
    "format-long-spec": "{{ ('{:' ~ '0' * 100 ~ '999999999}').format(1) }}",
    "format-nested-width": "{{ '{:{}}'.format(1, 999999999) }}",
    "format-map-width": "{{ '{a:>999999999}'.format_map({'a': 1}) }}",
    "format-many": "{{ ('{0}' * 10000).format('x' * 100000) }}",
    "format-attribute": "{{ '{0.__class__}'.format('') }}",
    "format-item": "{{ '{0[__class__]}'.format('') }}",
    "string-times": "{{ 'x' * 100000000 }}",
    "times-string": "{{ 1000000000 * 'x' }}",
    "list-times": "{{ [1] * 100000000 }}",
    "tuple-times": "{{ ((1, 2) * 100000000) | length }}",
    "power": "{{ 9 ** 999999999 }}",
    "negative-power": "{{ 9 ** -999999999 }}",
    "factorial": "{% set ns = namespace(n=3) %}{% for i in range(100) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "round-precision": "{{ 1 | round(-999999999) }}",
    "round-precision-ceil": "{{ 1 | round(999999999, 'ceil') }}",
    "doubling-plus": DOUBLING.replace("START", "'x'").replace("STEP", "ns.v + ns.v"),
    "doubling-tilde": DOUBLING.replace("START", "'x'").replace("STEP", "ns.v ~ ns.v"),
    "doubling-list": DOUBLING.replace("START", "[1]").replace("STEP", "ns.v + ns.v"),
    "doubling-join": DOUBLING.replace("START", "'x'").replace("STEP", "[ns.v, ns.v] | join"),
    "doubling-replace": DOUBLING.replace("START", "'x'").replace("STEP", "ns.v | replace('x', 'xx')"),
    "doubling-format": DOUBLING.replace("START", "'x'").replace("STEP", "'%s%s' % (ns.v, ns.v)"),
    "doubling-block": "{% set ns = namespace(v='x') %}{% for i in range(60) %}{% set b %}{{ ns.v }}{{ ns.v }}{% endset %}{% set ns.v = b %}{% endfor %}",
    "doubling-macro": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% else %}x{% endif %}{% endmacro %}{{ m(40) }}",
    "wide-characters": "{% for i in range(1000) %}{{ 'x' * 1000000 + '\U0001f600' }}{% endfor %}",
    "keep-many-lists": "{% set ns = namespace(a=[]) %}{% for i in range(9999) %}{% set ns.a = [ns.a, range(99999) | list] %}{% endfor %}",
    "keep-many-slices": "{% set l = range(99999) | list %}{% set ns = namespace(a=[]) %}{% for i in range(9999) %}{% set ns.a = [ns.a, l[1:]] %}{% endfor %}",
    "keep-many-blocks": "{% set ns = namespace(a=[]) %}{% for i in range(99999) %}{% set b %}" + "x" * 5000 + "{% endset %}{% set ns.a = [ns.a, b ~ i] %}{% endfor %}",
    "center-filter": "{{ 'x' | center(999999999) }}",
    "center-method": "{{ 'x'.center(999999999) }}",
    "ljust": "{{ 'x'.ljust(999999999) }}",
    "zfill": "{{ 'x'.zfill(999999999) }}",
    "expandtabs": "{{ '\t'.expandtabs(999999999) }}",
    "indent-width": "{{ 'a\nb' | indent(999999999) }}",
    "indent-string": "{{ ('a\n' * 100000) | indent('x' * 4000) }}",
    "join-separator": "{{ range(100000) | join('x' * 100000) }}",
    "join-method": "{{ ('x' * 100000).join(('a ' * 100000).split()) }}",
    "replace-empty": "{{ ('x' * 100000) | replace('', 'y' * 100000) }}",
    "replace-method": "{{ ('x' * 100000).replace('', 'y' * 100000) }}",
    "batch-fill": "{{ [1] | batch(999999999, 0) | list }}",
    "slice-many": "{{ [1] | slice(999999999) | list }}",
    "split-many": "{{ ('x' * 4000000).split('x') | length }}",
    "splitlines-many": "{{ ('\n' * 4000000).splitlines() | length }}",
    "list-of-characters": "{{ ('x' * 4000000) | list | length }}",
    "tojson-indent": "{{ {'a': 1} | tojson(indent=10000000) }}",
    "tojson-indent-deep": "{% set ns = namespace(v=[1]) %}{% for i in range(500) %}{% set ns.v = [ns.v] %}{% endfor %}{{ ([ns.v] * 1000) | tojson(indent=4000) }}",
    "tojson-nested": NESTED + "{{ ns.v | tojson }}",
    "print-nested": NESTED + "{{ ns.v }}",
    "print-nested-view": NESTED + "{{ {'a': ns.v}.values() }}",
    "string-nested": NESTED + "{{ ns.v | string | length }}",
    "upper-nested": NESTED + "{{ ns.v | upper | length }}",
    "tilde-nested": NESTED + "{{ (ns.v ~ '') | length }}",
    "join-nested": NESTED + "{{ ns.v | join | length }}",
    "percent-nested": NESTED + "{{ ('%s' % [ns.v]) | length }}",
    "format-nested": NESTED + "{{ '{}'.format(ns.v) | length }}",
    "format-repr-nested": NESTED + "{{ '{!r}'.format(ns.v) | length }}",
    "lower-test-nested": NESTED + "{{ ns.v is lower }}",
    "raise-nested": NESTED + "{{ raise_exception(ns.v) }}",
    "compare-nested": OTHER + "{{ ns.v == o.v }}",
    "less-nested": OTHER + "{{ ns.v < o.v }}",
    "in-nested": OTHER + "{{ ns.v in [o.v] }}",
    "equalto-nested": OTHER + "{{ ns.v is eq(o.v) }}",
    "select-nested": OTHER + "{{ [ns.v] | select('eq', o.v) | list | length }}",
    "index-nested": OTHER + "{{ [ns.v].index(o.v) }}",
    "sort-nested": OTHER + "{{ [ns.v, o.v] | sort | length }}",
    "changed-nested": OTHER + "{% for x in [ns.v, o.v] %}{{ loop.changed(x) }}{% endfor %}",
    "hash-literal": KEYS + "{{ {ns.v: 1} | length }}",
    "hash-item": KEYS + "{{ {}[ns.v] }}",
    "hash-get": KEYS + "{{ {}.get(ns.v) }}",
    "hash-dict": KEYS + "{{ dict([(ns.v, 1)]) }}",
    "hash-unique": KEYS + "{{ [ns.v] | unique | list }}",
    "hash-in": KEYS + "{{ ns.v in {} }}",
    "range-huge": "{% for i in range(10 ** 9) %}{% endfor %}",
    "range-huge-length": "{{ range(1000000000) | length }}",
    "loops-nested": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops-without-calls": "{% set r = range(99999) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}",
    "loops-with-kept-text": "{% set b %}{% for i in range(99999) %}" + "x" * 2000 + "{% endfor %}{% endset %}{{ b | length }}",
    "loops-filtered": "{% for i in range(99999) if false %}{% endfor %}" * 12,
    "loops-with-text": "{% for i in range(99999) %}" + "x" * 1000 + "{% endfor %}",
    "loops-in-filters": "{% for i in range(99999) %}{{ range(99999) | map('string') | join | length }}{% endfor %}",
    "loops-in-select": "{{ range(99999) | select('in', range(99999) | list) | list | length }}",
    "loops-of-compares": "{% set a = range(99999) | list %}{% for i in range(99999) %}{% if a == a[:] %}{% endif %}{% endfor %}",
    "loop-recursion": "{% for x in [1] recursive %}{{ loop([x]) }}{% endfor %}",
    "macro-recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "macro-mutual": "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    "caller-recursion": "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}",
    "class-attribute": "{{ ''.__class__ }}",
    "class-item": "{{ ''['__class__'] }}",
    "class-mro": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "class-by-filter": "{{ '' | attr('__class__') }}",
    "class-by-map": "{{ [''] | map(attribute='__class__') | list }}",
    "function-globals": "{{ raise_exception.__globals__ }}",
    "function-code": "{{ range.__init__ }}",
    "macro-internals": "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "namespace-internals": "{{ namespace.__init__.__globals__ }}",
    "loop-internals": "{% for x in [1] %}{{ loop._iterable }}{{ loop.__class__ }}{% endfor %}",
    "context-internals": "{{ self._TemplateReference__context }}",
    "undefined-internals": "{{ nothing.__class__ }}",
    "list-append": "{{ messages.append(1) }}",
    "list-clear": "{{ messages.clear() }}",
    "dict-update": "{{ messages[0].update({'role': 'system'}) }}",
    "dict-setdefault": "{{ messages[0].setdefault('a', 1) }}",
    "string-encode": "{{ 'abc'.encode() }}",
    "string-translate": "{{ 'abc'.translate({97: 'x' * 1000}) }}",
    "call-of-a-number": "{{ 5() }}",
    "lipsum": "{{ lipsum(n=100000) }}",
    "cycler": "{{ cycler(1, 2) }}",
    "import": "{% import 'os' as os %}",
    "include": "{% include '/etc/passwd' %}",
    "extends": "{% extends '/etc/passwd' %}",
    "block-recursion": "{% block a %}{{ self.a() }}{% endblock %}",
    "autoescape": "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    "deep-parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep-lists": "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "deep-ifs": "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    "deep-loops": "{% for i in [1] %}" * 60 + "{% endfor %}" * 60,
    "long-sum": "{{ 1" + " + 1" * 3000 + " }}",
    "long-list": "{{ [" + "a," * 11000 + "] }}",
    "deep-sums": ("{{ 1" + " + a" * 300 + " }}") * 9,
    "too-long": " " * (MAX_SOURCE + 1),
    "divide-by-zero": "{{ 1 / 0 }}",
    "number-plus-text": "{{ 1 + 'a' }}",
    "json-deep": "{{ ('[' * 100000) | from_json }}",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_template_ends_in_template_error(name, monkeypatch):
    monkeypatch.setattr(budget, "SECONDS", 0.2)
    messages = [{"role": "user", "content": "Hi"}]
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError):
            template(HOSTILE[name]).render(messages)
        assert tracemalloc.get_traced_memory()[1] < 80 << 20
    finally:
        tracemalloc.stop()
    assert messages == HI


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("macro-recursion", "recurses deeper than 64"),
        ("loop-recursion", "recurses deeper than 64"),
        ("loops-with-text", "too much text"),
        ("loops-with-kept-text", "too much text"),
        ("percent-width", "width of more than"),
        ("string-times", "too much text"),
        ("print-nested", "parts|seconds"),
        ("range-huge", "range"),
        ("class-attribute", "__class__"),
        ("list-append", "append"),
        ("include", "include is not available"),
        ("deep-sums", "nested too deeply"),
        ("call-of-a-number", "int cannot be called"),
    ],
)
def test_hostile_template_is_told_why(name, message):
    with pytest.raises(TemplateError, match=message):
        render(HOSTILE[name])


def test_loop_turns_are_counted(monkeypatch):
    monkeypatch.setattr(budget, "TURNS", 100)
    assert render("{% for i in range(50) %}{% for j in 'a' %}.{% endfor %}{% endfor %}") == "." * 50
    with pytest.raises(TemplateError, match="more than 100 loop turns"):
        render("{% for i in range(51) %}{% for j in 'a' %}.{% endfor %}{% endfor %}")


def test_deep_value_in_a_message_is_an_error_not_a_crash():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for source in ("{{ messages[0].content | tojson }}", "{{ messages[0].content }}"):
        with pytest.raises(TemplateError):
            render(source, [{"role": "user", "content": deep}])


def test_cyclic_message_is_an_error_not_a_hang():
    cycle: list = []
    cycle.append(cycle)
    with pytest.raises(TemplateError, match="parts"):
        render("x", [{"role": "user", "content": cycle}])
