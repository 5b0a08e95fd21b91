"""Go templates on the wire: those of models, those of requests, and which template is in force."""

import pytest

from tests.server.live import TEMPLATE, write_gguf
from tests.server.test_handlers import error

LEGACY = "{{ if .System }}<sys>{{ .System }}{{ end }}<u>{{ .Prompt }}<a>{{ .Response }};"
FULL = "{{ range .Messages }}[{{ .Role }}]{{ .Content }}{{ end }}{{ range .Tools }}({{ .Function.Name }}){{ end }}[a]"
THOUGHTFUL = (
    "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}{{ end }}"
    "{{ if .Think }}T{{ .ThinkLevel }}{{ end }}"
)
TALK = [("system", "S"), ("user", "q1"), ("assistant", "a1"), ("user", "q2")]
MESSAGES = [{"role": role, "content": content} for role, content in TALK]
TOOLS = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture
def add(live, tmp_path):
    """Makes a model with a Go template, and a Jinja template in its file if one is given."""

    def make(name, template, jinja=None, **fields):
        path = write_gguf(tmp_path / f"{name}.gguf", template=jinja, salt=name)
        live.add_model(name, path, template=template, **fields)
        return name

    return make


def rendered(http, route="generate", **body):
    answer = http.post(f"/api/{route}", json={"_debug_render_only": True, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["_debug_info"]["rendered_template"]


# ---- the template of a request ----


def test_a_request_brings_its_own_template(http, script):
    answer = http.post("/api/generate", json={"model": "tiny", "prompt": "hi", "template": "<<{{ .Prompt }}>>"})
    assert answer.status_code == 200
    assert script.text() == "<<hi>>"
    assert script.rendered == []


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("{{ .System }}/{{ .Prompt }}", "Be brief./hi"),
        ("{{ .Prompt }}: {{ .Response }}, no more", "hi: "),
        (LEGACY, "<sys>Be brief.<u>hi<a>"),
        ("{{ range .Messages }}{{ .Role }}={{ .Content }};{{ end }}", "system=Be brief.;user=hi;"),
        ("{{ .Think }}{{ .IsThinkSet }}", "falsefalse"),
    ],
)
def test_a_template_of_a_request_sees_what_ollamas_do(http, template, wanted):
    body = {"model": "tiny", "prompt": "hi", "system": "Be brief.", "template": template}
    assert rendered(http, **body) == wanted


def test_a_template_of_a_request_sees_the_models_own_texts(live, http, tiny_gguf):
    live.add_model("told", tiny_gguf, system="Told.", messages=[{"role": "user", "content": "u"}])
    template = "{{ .System }}{{ range .Messages }}|{{ .Content }}{{ end }}"
    assert rendered(http, model="told", prompt="hi", template=template) == "Told.|Told.|u\n\nhi"
    assert rendered(http, model="told", prompt="hi", template=template, context=[65]) == "Told.|Told.|hi"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ .Prompt ", "template: :1: unclosed action"),
        ("a\n{{ nothing }}", 'template: :2: function "nothing" not defined'),
        ("{{ if .Prompt }}", "template: :1: unexpected EOF"),
        ("a\n{{ .Prompt.x }}", 'template: :2:10: executing "" at <.Prompt.x>: can\'t evaluate field x in type string'),
        ('{{ printf "%99999d" 1 }}', "template: the template asks for a width of more than"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_template_that_fails_is_a_400_with_its_line(http, template, words, stream):
    body = {"model": "tiny", "prompt": "hi", "template": template, "stream": stream}
    answer = error(http.post("/api/generate", json=body), 400)
    assert answer.json()["error"].startswith(words)


def test_a_template_fills_a_gap(http, script, add):
    add("filler", "<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}<MID>")
    http.post("/api/generate", json={"model": "filler", "prompt": "a(", "suffix": ")b"})
    assert script.text() == "<PRE>a(<SUF>)b<MID>"
    other = "{{ .Suffix }}|{{ .Prompt }}"
    assert rendered(http, model="filler", prompt="a(", suffix=")b", template=other) == ")b|a("
    shown = http.post("/api/show", json={"model": "filler"}).json()
    assert shown["capabilities"] == ["completion", "insert"]
    body = {"model": "tiny", "prompt": "a", "suffix": "b", "template": other}
    answer = error(http.post("/api/generate", json=body), 400)
    assert "does not support insert" in answer.json()["error"]


# ---- the template of a model ----


def test_an_old_template_is_run_for_every_turn(http, add):
    add("old", LEGACY)
    assert rendered(http, "chat", model="old", messages=MESSAGES) == "<sys>S<u>q1<a>a1;<u>q2<a>"
    assert rendered(http, model="old", prompt="hi", system="B") == "<sys>B<u>hi<a>"


def test_a_last_answer_is_continued(http, add):
    add("old", LEGACY)
    messages = [*MESSAGES, {"role": "assistant", "content": "It is"}]
    assert rendered(http, "chat", model="old", messages=messages).endswith("<u>q2<a>It is")


def test_a_template_of_messages_is_run_once(http, add):
    add("full", FULL)
    assert rendered(http, "chat", model="full", messages=MESSAGES) == "[system]S[user]q1[assistant]a1[user]q2[a]"
    body = {"model": "full", "messages": MESSAGES, "tools": TOOLS}
    assert rendered(http, "chat", **body).endswith("q2(now)[a]")
    http.post("/api/chat", json=body)


def test_tools_go_where_the_template_in_force_takes_them(http, add):
    add("full", FULL)
    add("old", LEGACY)
    assert http.post("/api/chat", json={"model": "full", "messages": MESSAGES, "tools": TOOLS}).status_code == 200
    answer = error(http.post("/api/chat", json={"model": "old", "messages": MESSAGES, "tools": TOOLS}), 400)
    assert answer.json()["error"] == "registry.ollama.ai/library/old:latest does not support tools"


def test_thinking_reaches_a_template_that_writes_thoughts(http, add):
    add("thoughtful", THOUGHTFUL)
    body = {"model": "thoughtful", "messages": [{"role": "assistant", "content": "a", "thinking": "hm"}]}
    assert rendered(http, "chat", **body) == "<think>hm</think>aTmedium"
    assert rendered(http, "chat", **body, think="high") == "<think>hm</think>aThigh"
    assert rendered(http, "chat", **body, think=False) == "<think>hm</think>a"
    assert rendered(http, model="thoughtful", prompt="q") == "qTmedium"
    assert "thinking" in http.post("/api/show", json={"model": "thoughtful"}).json()["capabilities"]


def test_tokenize_renders_go_templates_too(http, add):
    add("old", LEGACY)
    body = {"model": "old", "messages": [{"role": "user", "content": "hi"}]}
    tokens = http.post("/api/tokenize", json=body).json()["tokens"]
    assert bytes(tokens[1:]).decode() == "<u>hi<a>"


# ---- which template is in force ----

ABLE = TEMPLATE + "{{ tools }}{{ tool_calls }}<think></think>"


@pytest.mark.parametrize(
    ("go", "jinja", "wins", "capabilities"),
    [
        (LEGACY, None, "go", ["completion"]),
        (LEGACY, TEMPLATE, "go", ["completion"]),
        (LEGACY, ABLE, "jinja", ["completion", "tools", "thinking"]),
        (FULL, TEMPLATE, "go", ["completion", "tools"]),
        (FULL, TEMPLATE + "{{ tools }}", "go", ["completion", "tools"]),
        (FULL, TEMPLATE + "{{ tools }}{{ tool_calls }}{{ tool_response }}", "jinja", ["completion", "tools"]),
        (FULL + '{{ if eq .Role "tool" }}{{ .ToolCalls }}{{ end }}', ABLE, "go", ["completion", "tools"]),
    ],
)
def test_the_abler_template_is_in_force(http, add, script, go, jinja, wins, capabilities):
    add("both", go, jinja)
    shown = http.post("/api/show", json={"model": "both"}).json()
    assert shown["template"] == (go if wins == "go" else jinja)
    assert shown["capabilities"] == capabilities
    assert (
        next(m for m in http.get("/api/tags").json()["models"] if m["name"] == "both:latest")["capabilities"]
        == capabilities
    )
    http.post("/api/chat", json={"model": "both", "messages": MESSAGES})
    assert len(script.rendered) == (wins == "jinja")


def test_a_gap_of_marked_tokens_stands_in_a_comment_of_a_go_template(live, http, tmp_path):
    path = write_gguf(tmp_path / "c.gguf", template=None, tokens=["a", "<P>", "<S>", "<M>"], insert=(1, 2, 3))
    live.add_model("coder", path)
    shown = http.post("/api/show", json={"model": "coder"}).json()["template"]
    assert shown == "{{ .Prompt }}{{- /* insert: <P>{{ .Prompt }}<S>{{ .Suffix }}<M> */ -}}"
    assert rendered(http, model="coder", prompt="x", template=shown) == "x"


@pytest.mark.parametrize("stream", [True, False])
def test_create_refuses_what_is_no_template(live, http, stream):
    body = {"model": "new", "from": "tiny", "template": "{{ .Prompt", "stream": stream}
    answer = error(http.post("/api/create", json=body), 400)
    assert answer.json()["error"] == "template error: template: :1: unclosed action"
    assert http.post("/api/show", json={"model": "new"}).status_code == 404


def test_create_keeps_a_template_and_show_gives_it_back(http):
    body = {"model": "new", "from": "tiny", "template": LEGACY, "stream": False}
    assert http.post("/api/create", json=body).json() == {"status": "success"}
    shown = http.post("/api/show", json={"model": "new"}).json()
    assert shown["template"] == LEGACY
    assert f"TEMPLATE {LEGACY}\n" in shown["modelfile"]
    assert rendered(http, model="new", prompt="hi") == "<u>hi<a>"
