"""Loading, sharing memory, expiring and unloading over real HTTP, with real models: tiny ones of random weights."""

import json
import threading
import time
from datetime import datetime

import httpx
import pytest

from ollamacore import Model
from server.models.engine import LocalLoader
from server.times import FOREVER
from tests.generate.tiny import tiny_model
from tests.server.live import LiveServer

NAMES = "abc"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return {
        name: tiny_model(folder / f"{name}.gguf", "llama", tensor_type="Q8_0", seed=seed)
        for seed, name in enumerate(NAMES)
    }


def serve(folder, files, loader=None, **settings):
    settings = {"keep_alive_ns": FOREVER, "context_length": 256, "max_loaded_models": 9} | settings
    live = LiveServer(folder / "models", loader or LocalLoader(1), **settings)
    for name, path in files.items():
        live.add_model(name, path)
    return live


@pytest.fixture(scope="module")
def live(tmp_path_factory, files):
    with serve(tmp_path_factory.mktemp("live"), files) as server:
        yield server


def ask(live, name, prompt="hello", **extra):
    body = {"model": name, "prompt": prompt, "raw": True, "stream": False, **extra}
    body["options"] = {"num_predict": 3, "temperature": 0} | body.get("options", {})
    return httpx.post(f"{live.url}/api/generate", json=body, timeout=120)


def listed(live):
    return {model["name"].removesuffix(":latest"): model for model in httpx.get(f"{live.url}/api/ps").json()["models"]}


def left(model):
    """Seconds until a model of /api/ps expires."""
    return datetime.fromisoformat(model["expires_at"]).timestamp() - time.time()


def test_models_beyond_the_budget_take_turns(tmp_path, files):
    needs = Model.memory_needed(files["a"], context=256, kv_bytes=1 << 20)
    with Model.load(files["a"], kv_bytes=1 << 20, context=256) as model:
        reserved = model.reserved_bytes
    room_for_two = needs + reserved * 3 // 2
    with serve(tmp_path, files, LocalLoader(1, kv_bytes=1 << 20), memory=room_for_two) as live:
        texts = {}
        for name in "abacbcab":
            answer = ask(live, name)
            assert answer.status_code == 200
            assert texts.setdefault(name, answer.json()["response"]) == answer.json()["response"]
            state = live.call(live.context.models.state)
            assert state.memory_used <= state.memory_budget
            assert name in listed(live)
            assert len(listed(live)) <= 2
        assert state.evictions == 4
        assert state.loads == 6


def test_a_model_larger_than_memory_is_refused_in_ollamas_words(tmp_path, files):
    with serve(tmp_path, files, memory=1 << 20) as live:
        answer = ask(live, "a")
        assert answer.status_code == 500
        text = answer.json()["error"]
        assert text.startswith("model requires more system memory (")
        assert text.endswith(") than is available (1.0 MiB)")
        assert listed(live) == {}
        assert live.call(live.context.models.state).loads == 0


def test_a_context_larger_than_memory_is_refused_and_the_loaded_model_stays(tmp_path, files):
    needs = Model.memory_needed(files["a"], context=64)
    wide = tiny_model(tmp_path / "wide.gguf", "llama", tensor_type="Q8_0", context=1 << 20)
    with serve(tmp_path, {"wide": wide}, memory=needs + (8 << 20)) as live:
        assert ask(live, "wide", options={"num_ctx": 64}).status_code == 200
        answer = ask(live, "wide", options={"num_ctx": 2**31})
        assert answer.status_code == 500
        assert "requires more system memory" in answer.json()["error"]
        assert list(listed(live)) == ["wide"]
        assert ask(live, "wide", options={"num_ctx": 64}).status_code == 200
        assert live.call(live.context.models.state).loads == 1


def test_another_num_ctx_is_a_view_and_never_reloads(live):
    before = live.call(live.context.models.state).loads
    texts = set()
    for context in (64, 512, 33, 256, 1 << 31, 400):
        texts.add(ask(live, "a", options={"num_ctx": context}).json()["response"])
        assert listed(live)["a"]["context_length"] == min(context, 512)
    assert len(texts) == 1
    assert live.call(live.context.models.state).loads - before <= 1
    answer = ask(live, "a", prompt="hello " * 60, options={"num_ctx": 33})
    assert answer.json()["prompt_eval_count"] < 33, "the view is a limit"


@pytest.mark.parametrize(
    ("keep_alive", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        ("90", None),
        ("2m", 120),
        ("1h30m", 5400),
        ("90s", 90),
        (-1, 1e9),
        ("-1m", 1e9),
        (-0.5, 1e9),
    ],
)
def test_keep_alive_of_every_form(live, keep_alive, seconds):
    answer = ask(live, "b", keep_alive=keep_alive)
    if seconds is None:  # a duration without a unit
        assert answer.status_code == 400
        return
    assert answer.status_code == 200
    found = listed(live).get("b")
    if found is None:
        assert seconds < 1, "expired already"
    else:
        assert (left(found) <= seconds) if seconds < 1e9 else left(found) > 1e9
        assert seconds > 60 or left(found) < 60


def test_keep_alive_null_and_absent_leave_it_as_it_is(live):
    ask(live, "c", keep_alive="10m")
    for extra in ({}, {"keep_alive": None}):
        ask(live, "c", **extra)
        assert 500 < left(listed(live)["c"]) <= 600


def test_keep_alive_zero_unloads_after_the_request(live):
    ask(live, "c")
    assert ask(live, "c", keep_alive=0).status_code == 200
    live.until(lambda: "c" not in live.context.models.state().models)
    live.until(lambda: all(model.source.name != "c:latest" for model in live.context.models.running()))
    assert "c" not in listed(live)


def test_empty_prompt_loads_and_keep_alive_zero_unloads(live):
    ask(live, "c", prompt="", keep_alive=0)
    assert "c" not in listed(live)
    answer = ask(live, "c", prompt="", keep_alive="5m").json()
    assert (answer["done"], answer["done_reason"], answer["response"]) == (True, "load", "")
    found = listed(live)["c"]
    assert (found["size_vram"], found["context_length"]) == (0, 256)
    assert found["size"] > 100_000
    assert ask(live, "c", prompt="", keep_alive=0).json()["done_reason"] == "unload"
    assert "c" not in listed(live)


def test_expiry_unloads(live):
    ask(live, "c", keep_alive=0.02)
    live.until(lambda: all(model.source.name != "c:latest" for model in live.context.models.running()))
    assert "c" not in listed(live)


def test_unload_while_a_request_runs_waits_for_it_and_shows_no_time_left(live):
    reading = threading.Event()
    texts = []

    def stream():
        body = {"model": "c", "prompt": "hi", "raw": True, "options": {"num_predict": 400, "num_ctx": 512}}
        with httpx.stream("POST", f"{live.url}/api/generate", json=body, timeout=120) as answer:
            for line in answer.iter_lines():
                reading.set()
                texts.append(json.loads(line))

    thread = threading.Thread(target=stream)
    thread.start()
    assert reading.wait(120)
    assert ask(live, "c", prompt="", keep_alive=0).json()["done_reason"] == "unload"
    found = listed(live).get("c")
    assert found is None or left(found) <= 0
    thread.join()
    assert texts[-1]["done_reason"] in ("length", "stop")
    live.until(lambda: all(model.source.name != "c:latest" for model in live.context.models.running()))


def test_the_loop_answers_while_a_model_loads_and_unloads(tmp_path, files):
    """Every step of a real load runs in other threads: the loop passes through its turns meanwhile."""
    steps = []
    with serve(tmp_path, files) as live:
        stop = threading.Event()

        def watch():
            with httpx.Client(base_url=live.url, timeout=120) as client:
                while not stop.is_set():
                    steps.append(client.get("/api/ps").status_code)

        thread = threading.Thread(target=watch)
        thread.start()
        for name in "abcabc":
            assert ask(live, name, keep_alive=0).status_code == 200
        stop.set()
        thread.join()
    assert set(steps) == {200}


def test_a_stuck_load_is_given_up_and_leaves_nothing(tmp_path, files, monkeypatch):
    """The load hangs in its thread, as on a disk that does not answer, until the thread is let go."""
    let_go = threading.Event()
    load = Model.load
    ended = threading.Event()

    def stuck(path, *, on_progress, **arguments):
        try:
            on_progress(0.25)
            let_go.wait(120)
            return load(path, on_progress=on_progress, **arguments)
        finally:
            ended.set()

    with serve(tmp_path, files, load_timeout_s=0.1) as live:
        monkeypatch.setattr(Model, "load", stuck)
        answer = ask(live, "a")
        assert answer.status_code == 500
        assert answer.json()["error"].startswith("timed out waiting for the model to load: no progress for 0.1 s")
        monkeypatch.setattr(Model, "load", load)
        assert ask(live, "b").status_code == 200, "others are not held up"
        let_go.set()
        assert ended.wait(120)
        live.until(lambda: [model.source.name for model in live.context.models.running()] == ["b:latest"])
        assert ask(live, "a").status_code == 200
