"""The routes and fields that Ollama does not have, with a scripted engine."""

import httpx
import pytest

from ollamacore import ModelState
from server.models.loaded import MAX_TEXTS
from tests.server.fake import BOS, N_VOCAB
from tests.server.live import TEMPLATE, write_gguf
from tests.server.test_handlers import error, lines

STATE = ModelState(1, 2, 64, 10, 4, 5, 6, 100, 30, 20, 0, 0, {"stop": 1})


# ---- tokenize, detokenize ----


def test_tokenize_a_text(http, script):
    answer = http.post("/api/tokenize", json={"model": "tiny", "content": "hé"})
    assert answer.json() == {"model": "tiny", "tokens": list("hé".encode()), "count": 3}
    answer = http.post("/api/tokenize", json={"model": "tiny", "content": "h", "add_special": True})
    assert answer.json()["tokens"] == [BOS, ord("h")]
    assert http.post("/api/tokenize", json={"model": "tiny"}).json()["tokens"] == []
    assert script.loads == []
    assert len(script.texts) == 1


def test_tokenize_messages_as_chat_does(live, http, script, tmp_path):
    live.add_model("tools", write_gguf(tmp_path / "t.gguf", template=TEMPLATE + "{{ tools }}"), system="Brief.")
    body = {"model": "tools", "messages": [{"role": "user", "content": "hi"}], "tools": [{"function": {"name": "f"}}]}
    found = http.post("/api/tokenize", json=body).json()
    http.post("/api/chat", json=body)
    assert found["tokens"] == script.prompts[0]
    assert found["count"] == len(script.prompts[0])
    assert script.rendered[0] == script.rendered[1]


def test_detokenize(http):
    answer = http.post("/api/detokenize", json={"model": "tiny", "tokens": [BOS, *"hé".encode()]})
    assert answer.json() == {"model": "tiny", "content": "hé"}


@pytest.mark.parametrize(("path", "field"), [("tokenize", {"content": "h"}), ("detokenize", {"tokens": [104]})])
def test_tokens_need_no_options_and_no_time_in_memory(http, script, path, field):
    plain = http.post(f"/api/{path}", json={"model": "tiny", **field}).json()
    body = {"model": "tiny", **field, "options": {"num_ctx": 16}, "keep_alive": "5m"}
    assert http.post(f"/api/{path}", json=body).json() == plain
    assert script.loads == []


def test_a_loaded_model_tokenizes_itself(http, script):
    http.post("/api/generate", json={"model": "tiny"})
    assert http.post("/api/tokenize", json={"model": "tiny", "content": "h"}).json()["count"] == 1
    assert script.texts == []


def test_few_vocabularies_are_kept(live, http, script, tmp_path):
    for n in range(MAX_TEXTS + 1):
        live.add_model(f"m{n}", write_gguf(tmp_path / f"{n}.gguf", salt=str(n)))
        http.post("/api/tokenize", json={"model": f"m{n}", "content": "h"})
    http.post("/api/tokenize", json={"model": f"m{MAX_TEXTS}", "content": "h"})
    assert len(script.texts) == MAX_TEXTS + 1
    http.post("/api/tokenize", json={"model": "m0", "content": "h"})
    assert len(script.texts) == MAX_TEXTS + 2


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("tokenize", {}, 400, "model is required"),
        ("tokenize", {"model": "no"}, 404, "model 'no' not found"),
        (
            "tokenize",
            {"model": "tiny", "content": "x", "messages": [{"role": "user"}]},
            400,
            "content and messages cannot be combined",
        ),
        (
            "tokenize",
            {"model": "tiny", "messages": [{"role": "user"}], "tools": [{}]},
            400,
            "registry.ollama.ai/library/tiny:latest does not support tools",
        ),
        ("detokenize", {"model": "tiny", "tokens": [N_VOCAB]}, 400, "no token"),
        (
            "detokenize",
            {"model": "tiny", "tokens": ["x"]},
            400,
            "json: cannot unmarshal string into Go struct field DetokenizeRequest.tokens of type int",
        ),
    ],
)
def test_tokens_refuse(http, path, body, status, text):
    error(http.post(f"/api/{path}", json=body), status, text)


# ---- rerank ----


@pytest.fixture
def ranker(live, tmp_path):
    live.add_model("ranker", write_gguf(tmp_path / "r.gguf", pooling=4))
    return "ranker"


def test_rerank_gives_the_best_first(http, ranker):
    body = {"model": ranker, "query": "q", "documents": ["bb", "a", "cccc", "dd"]}
    answer = http.post("/api/rerank", json=body).json()
    assert list(answer) == ["model", "results", "total_duration", "load_duration", "prompt_eval_count"]
    assert [result["index"] for result in answer["results"]] == [2, 0, 3, 1]
    assert answer["results"][0] == {"index": 2, "relevance_score": 0.04}
    assert answer["prompt_eval_count"] == 9
    answer = http.post("/api/rerank", json={**body, "top_n": 1, "return_documents": True}).json()
    assert answer["results"] == [{"index": 2, "relevance_score": 0.04, "document": "cccc"}]


def test_rerank_without_documents_loads_the_model(http, script, ranker):
    assert http.post("/api/rerank", json={"model": ranker}).json()["results"] == []
    assert len(script.loads) == 1


def test_rerank_takes_num_ctx_and_keep_alive(live, http, script, ranker):
    body = {"model": ranker, "query": "q", "documents": ["a"], "options": {"num_ctx": 77}, "keep_alive": 0}
    assert len(http.post("/api/rerank", json=body).json()["results"]) == 1
    assert [context for _, context in script.loads] == [77]
    live.until(lambda: script.unloads)
    assert http.get("/api/ps").json()["models"] == []


def test_a_model_that_ranks_says_so(http, ranker):
    assert http.post("/api/show", json={"model": ranker}).json()["capabilities"] == ["rerank"]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"model": ""}, 400, "model is required"),
        ({"model": "no"}, 404, "model 'no' not found"),
        ({"model": "tiny", "query": "q", "documents": ["a"]}, 400, '"tiny" does not support rerank'),
        ({"documents": ["a"]}, 400, "query is required"),
        ({"query": "q", "documents": ["a"], "top_n": -1}, 400, "top_n must not be negative"),
        ({"query": "q" * 3000, "documents": ["a"]}, 400, "the query length exceeds the context length"),
    ],
)
def test_rerank_refuses(http, ranker, body, status, text):
    error(http.post("/api/rerank", json={"model": ranker, **body}), status, text)


# ---- progress ----


@pytest.mark.parametrize(
    ("path", "body", "piece"),
    [
        ("generate", {"prompt": "hi"}, {"response": ""}),
        ("chat", {"messages": [{"role": "user", "content": "hi"}]}, {"message": {"role": "assistant", "content": ""}}),
    ],
)
def test_progress_comes_before_the_first_token_if_asked_for(http, script, path, body, piece):
    script.progress_records = [0, 5]
    body = {"model": "tiny", **body}
    assert not any("progress" in record for record in lines(http.post(f"/api/{path}", json=body)))
    first, second, *rest = lines(http.post(f"/api/{path}", json={**body, "progress": True}))
    total = len(script.prompts[0])
    assert first == {
        "model": "tiny",
        "created_at": first["created_at"],
        **piece,
        "done": False,
        "progress": {"prompt_tokens_done": 0, "prompt_tokens": total},
    }
    assert second["progress"] == {"prompt_tokens_done": 5, "prompt_tokens": total}
    assert not any("progress" in record for record in rest)
    assert rest[-1]["done"] is True
    assert "progress" not in http.post(f"/api/{path}", json={**body, "progress": True, "stream": False}).json()


# ---- metrics ----


def samples(http):
    """The samples of /metrics by name and labels; every line has the form that Prometheus reads."""
    answer = http.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found, typed = {}, set()
    for line in answer.text.splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        elif not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            base = name.split("{")[0]
            assert {base, base.removesuffix("_bucket"), base.removesuffix("_sum"), base.removesuffix("_count")} & typed
            found[name] = float(value)
    return found


def test_metrics_count_requests_by_route_and_status(live, http):
    http.get("/api/version")
    http.post("/api/show", json={"model": "no"})
    http.head(f"/api/blobs/sha256:{'0' * 64}")
    http.post("/api/generate", json={"model": "tiny", "prompt": "x"})
    http.post("/api/chat", json={"model": "tiny", "messages": [{"role": "user", "content": "x"}], "stream": False})
    http.get("/no/such/path")
    found = samples(http)
    counted = {key for key in found if "request_seconds_count" in key}
    assert counted == {
        f'ollamacore_request_seconds_count{{route="{route}",method="{method}",status="{status}"}}'
        for route, method, status in (
            ("/api/version", "GET", 200),
            ("/api/show", "POST", 404),
            ("/api/blobs/{digest}", "HEAD", 404),
            ("/api/generate", "POST", 200),
            ("/api/chat", "POST", 200),
        )
    }
    assert {found[key] for key in counted} == {1}
    bucket = 'ollamacore_request_seconds_bucket{route="/api/version",method="GET",status="200",le="%s"}'
    assert found[bucket % "0.001"] <= found[bucket % "300"] <= found[bucket % "+Inf"] == 1
    for route in ("/api/generate", "/api/chat"):
        assert found[f'ollamacore_first_token_seconds_count{{route="{route}"}}'] == 1
        assert found[f'ollamacore_first_token_seconds_sum{{route="{route}"}}'] > 0


def test_metrics_show_models_and_keep_the_tokens_of_those_that_left(http, script):
    script.state = STATE
    http.post("/api/generate", json={"model": "tiny"})
    found = samples(http)
    expected = {
        "requests_active": 0, "requests_waiting": 0, "models_loaded": 1, "model_loads_total": 1,
        "model_evictions_total": 0, "memory_used_bytes": 2000,
        'sequences_active{model="tiny:latest"}': 1, 'sequences_waiting{model="tiny:latest"}': 2,
        'kv_blocks{model="tiny:latest"}': 64, 'kv_blocks_used{model="tiny:latest"}': 10,
        'prompt_tokens_total{model="tiny:latest"}': 100, 'prompt_tokens_cached_total{model="tiny:latest"}': 30,
        'generated_tokens_total{model="tiny:latest"}': 20,
    }  # fmt: skip
    assert {key: found[f"ollamacore_{key}"] for key in expected} == expected
    http.post("/api/generate", json={"model": "tiny", "keep_alive": 0})
    found = samples(http)
    assert found["ollamacore_models_loaded"] == 0
    assert 'ollamacore_kv_blocks{model="tiny:latest"}' not in found
    http.post("/api/generate", json={"model": "tiny"})
    assert samples(http)['ollamacore_generated_tokens_total{model="tiny:latest"}'] == 40


def test_metrics_count_a_client_that_leaves_as_499(live, http, script):
    script.pause_s = 0.01
    script.pieces = ["x"] * 1000
    with httpx.Client(base_url=live.url) as client, client.stream(
        "POST", "/api/generate", json={"model": "tiny", "prompt": "x"}
    ) as answer:
        next(answer.iter_lines())
    live.until(lambda: bool(live.context.metrics.requests))
    assert list(live.context.metrics.requests) == [("/api/generate", "POST", 499)]


# ---- insert ----


@pytest.fixture
def coder(live, tmp_path):
    live.add_model("coder", write_gguf(tmp_path / "c.gguf", tokens=["a", "<P>", "<S>", "<M>"], insert=(1, 2, 3)))
    return "coder"


def test_a_prompt_with_a_gap(http, script, coder):
    answer = http.post("/api/generate", json={"model": coder, "prompt": "def f(", "suffix": "return 1"})
    assert script.text() == "<P>def f(<S>return 1<M>"
    assert lines(answer)[-1]["done"] is True
    shown = http.post(
        "/api/generate", json={"model": coder, "prompt": "a", "suffix": "b", "_debug_render_only": True}
    ).json()
    assert shown["_debug_info"]["rendered_template"] == "<P>a<S>b<M>"


def test_a_raw_prompt_has_no_gap(http, script, coder):
    http.post("/api/generate", json={"model": coder, "prompt": "x", "suffix": "y", "raw": True})
    assert script.text() == "x"


def test_a_gap_in_a_small_context_keeps_what_is_next_to_it(http, script, coder):
    body = {"model": coder, "prompt": "p" * 90 + "PP", "suffix": "SS" + "s" * 90, "options": {"num_ctx": 64}}
    answer = http.post("/api/generate", json={**body, "stream": False}).json()
    text = script.text()
    assert text.startswith("<P>p")
    assert text.endswith("<M>")
    assert "PP<S>SS" in text
    assert len(script.prompts[0]) < 64
    assert answer["truncated"]["prompt_tokens_dropped"] == 184 + 1 + 9 - len(script.prompts[0])
    error(http.post("/api/generate", json={**body, "truncate": False}), 400)
    script.prompts.clear()
    http.post("/api/generate", json={**body, "suffix": "S"})
    assert script.text().endswith("PP<S>S<M>")


def test_insert_is_a_capability_that_clients_see(http, coder):
    shown = http.post("/api/show", json={"model": coder}).json()
    assert "insert" in shown["capabilities"]
    assert shown["template"] == TEMPLATE + "{#- insert: <P>{{ .Prompt }}<S>{{ .Suffix }}<M> -#}"
    listed = {model["name"]: model["capabilities"] for model in http.get("/api/tags").json()["models"]}
    assert "insert" in listed["coder:latest"]
    assert "insert" not in listed["tiny:latest"]
    assert ".Suffix" not in http.post("/api/show", json={"model": "tiny"}).json()["template"]
