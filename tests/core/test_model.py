"""Model and scheduler over scripted and tiny models: what comes back, to the character, and how generations end."""

import threading
import time
from array import array

import pytest

import ollamacore
from ollamacore import (
    ClosedError,
    ContextLengthError,
    EngineError,
    InvalidFileError,
    InvalidOptionError,
    InvalidPromptError,
    OutOfMemoryError,
    SamplingOptions,
    TemplateError,
    UnsupportedModelError,
    crop,
    machine,
)
from tests.generate.gguf_bytes import GGUFBytes, text_entry
from tests.generate.scripted import scripted_model
from tests.generate.tiny import tiny_model

ANSWER = ["Hel", "lo", " ", b"\xe2\x82", b"\xac", " \U0001f600", " bye"]
TEXT = "Hello € \U0001f600 bye"


@pytest.fixture(scope="module")
def hello(tmp_path_factory):
    path = scripted_model(tmp_path_factory.mktemp("scripted") / "hello.gguf", ANSWER)
    with ollamacore.load(path, threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    path = scripted_model(tmp_path_factory.mktemp("scripted") / "endless.gguf", ["tick ", "tock "], loop=True)
    with ollamacore.load(path, threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "llama", tensor_type="Q8_0")
    with ollamacore.load(path, threads=2) as model:
        yield model


def test_generate_gives_the_script_to_the_character(hello):
    generation = hello.generate("<|go|>")
    chunks = list(generation)
    assert "".join(chunk.text for chunk in chunks) == TEXT
    assert [chunk.text for chunk in chunks] == ["Hel", "lo", " ", "€", " \U0001f600", " bye", ""]
    assert [chunk.done_reason for chunk in chunks] == [None] * 6 + ["stop"]
    assert chunks[3].tokens == tuple(generation_tokens(chunks)[3:5])
    stats = generation.stats
    assert (stats.prompt_tokens, stats.generated_tokens) == (1, 8)
    assert stats.prompt_ns > 0
    assert stats.eval_ns > 0


def generation_tokens(chunks):
    return [token for chunk in chunks for token in chunk.tokens]


def test_chat_renders_the_template(hello):
    assert hello.render_chat([{"role": "user", "content": "hi"}]) == "<|user|>hi<|go|>"
    assert hello.chat([{"role": "user", "content": "hi"}]).text() == TEXT


def test_default_sampling_stays_on_a_certain_path(hello):
    for seed in range(3):
        assert hello.generate("<|go|>", seed=seed, temperature=1.5).text() == TEXT


@pytest.mark.parametrize(
    ("stop", "text"),
    [(("lo",), "Hel"), (("€ \U0001f600",), "Hello "), (("llo € ",), "He"), ((" bye!",), TEXT), (("zz", "o"), "Hell")],
)
def test_stop_strings_end_the_text(hello, stop, text):
    generation = hello.generate("<|go|>", stop=stop)
    assert generation.text() == text
    assert generation.done_reason == "stop"


@pytest.mark.parametrize(("limit", "text"), [(1, "Hel"), (3, "Hello "), (4, "Hello "), (5, "Hello €"), (0, "")])
def test_num_predict_ends_with_length(hello, limit, text):
    generation = hello.generate("<|go|>", num_predict=limit)
    assert generation.text() == text
    assert generation.done_reason == "length"
    assert generation.stats.generated_tokens == limit


def test_logprobs_cover_every_token(hello):
    chunks = list(hello.generate("<|go|>", logprobs=True, top_logprobs=2))
    entries = [entry for chunk in chunks for entry in chunk.logprobs]
    assert b"".join(entry.bytes for entry in entries) == TEXT.encode()
    assert len(entries) == len(ANSWER)
    for entry in entries:
        assert entry.logprob == pytest.approx(0.0, abs=1e-6)
        assert [entry.id, entry.logprob] == [entry.top[0].id, entry.top[0].logprob]
        assert len(entry.top) == 2
        assert entry.top[1].logprob == pytest.approx(-64.0, abs=1e-2)


def test_cancel_ends_an_endless_generation(endless):
    generation = endless.generate("<|go|>")
    chunks = iter(generation)
    assert next(chunks).text == "tick "
    generation.cancel()
    *_, last = chunks
    assert last.done_reason == "cancelled"
    assert endless.counts == (0, 0)


def test_leaving_the_iterator_frees_the_sequence(endless):
    free = endless.kv_blocks_free
    for chunk in endless.generate("<|go|>"):
        if chunk.text == "tock ":
            break
    endless.generate("<|go|>", num_predict=1).text()  # a later pass: the cancelled run is gone by now
    assert endless.counts == (0, 0)
    assert endless.kv_blocks_free == free


def test_full_context_without_shift_ends_with_length(endless):
    generation = endless.generate("<|go|>", num_ctx=16, shift=False)
    assert generation.text() == "tick tock " * 8
    assert generation.done_reason == "length"


def test_full_context_is_shifted(endless):
    generation = endless.generate("<|go|>", num_ctx=16, num_predict=100)
    assert generation.text() == "tick tock " * 50
    assert generation.stats.context_shifts > 5


@pytest.mark.parametrize("num_ctx", [1, 2, 3, 5, 6])
def test_tiny_context_is_shifted_again_and_again(endless, num_ctx):
    text = endless.generate("<|go|>", num_ctx=num_ctx, num_predict=40).text()
    assert text == "tick tock " * (min(40, 10 * num_ctx) // 2)


def test_many_generations_at_once_equal_single_ones(tiny):
    prompts = [[(11 * i + 5 * j) % 250 + 3 for j in range(3 + 7 * i)] for i in range(20)]
    options = SamplingOptions(seed=7, num_predict=24)
    alone = [tiny.generate(prompt, options).text() for prompt in prompts]
    assert len(set(alone)) > 10
    together = [tiny.generate(prompt, options) for prompt in prompts]
    assert [generation.text() for generation in together] == alone


def test_small_pool_parks_runs_and_loses_none(tmp_path):
    path = tiny_model(tmp_path / "tiny.gguf", "llama", tensor_type="Q8_0")
    options = SamplingOptions(seed=3, num_predict=60, num_ctx=200)
    prompts = [[5 + i] * 40 for i in range(6)]
    with ollamacore.load(path) as model:
        expected = [model.generate(prompt, options).text() for prompt in prompts]
        block_bytes = model._engine.kv_bytes // (model.kv_blocks_free)
    with ollamacore.load(path, kv_bytes=8 * block_bytes, context=200) as model:
        assert model.kv_blocks_free == 8
        generations = [model.generate(prompt, options) for prompt in prompts]
        assert [generation.text() for generation in generations] == expected
        assert model.kv_blocks_free == 8


def test_parked_run_goes_on_when_all_others_have_ended(tmp_path):
    """Nobody else comes who would wake the engine."""
    path = scripted_model(tmp_path / "loop.gguf", ["tick "], loop=True)
    with ollamacore.load(path) as model:
        block_bytes = model._engine.kv_bytes // model.kv_blocks_free
    with ollamacore.load(path, kv_bytes=8 * block_bytes, context=200) as model:
        generations = [model.generate("<|go|>", num_predict=160, num_ctx=200) for _ in range(2)]
        assert [generation.text() for generation in generations] == ["tick " * 160] * 2
        assert model.state.parked == 1


def test_memory_in_use_grows_with_blocks_in_use(tmp_path):
    path = tiny_model(tmp_path / "tiny.gguf", "llama", tensor_type="Q8_0")
    with ollamacore.load(path) as model:
        empty = model.memory_bytes
        model.generate([5] * 100, num_predict=1).text()
        used = model.memory_bytes
        assert used > empty > model.weight_bytes
        model.generate([5] * 100, num_predict=1).text()
        assert model.memory_bytes - used <= used - empty


def test_blocks_have_their_memory_before_streams_take_them(tmp_path):
    path = tiny_model(tmp_path / "tiny.gguf", "llama", tensor_type="Q8_0")
    with ollamacore.load(path) as model:
        model.generate([5] * 40, num_predict=8).text()
        assert model._engine.kv_bytes_used < 1 << 20, "a stream alone takes what it needs"
        streams = [model.generate([5 + i] * 40, num_predict=8) for i in range(3)]
        assert all(stream.text() for stream in streams)
        assert model._engine.kv_bytes_used == model._engine.kv_bytes < 2 << 20
        assert not model._scheduler.call(lambda engine: engine.commit(1))


def test_blocks_for_later_requests_get_their_memory_while_nothing_is_to_be_done(tmp_path):
    path = tiny_model(tmp_path / "tiny.gguf", "llama", tensor_type="Q8_0", context=32768)
    with ollamacore.load(path, kv_bytes=16 << 20) as model:
        model.generate([5] * 9000, num_predict=1).text()
        touched = model.state.kv_blocks_used * model._engine.kv_bytes // model.state.kv_blocks
        deadline = time.monotonic() + 20
        while model._engine.kv_bytes_used < touched + (3 << 20) and time.monotonic() < deadline:
            time.sleep(0.01)
        ahead = model._engine.kv_bytes_used - touched
        assert 3 << 20 <= ahead <= 6 << 20, "a quarter of the pool, in pages of 2 MiB"


def test_threads_may_share_a_model(hello):
    texts = []
    threads = [
        threading.Thread(target=lambda: texts.append(hello.generate("<|go|>").text())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [TEXT] * 8


def test_callback_gets_every_chunk_and_may_fail(hello):
    done = threading.Event()
    chunks = []

    def receive(chunk):
        chunks.append(chunk)
        if chunk.done_reason:
            done.set()

    hello.submit(hello.tokenize("<|go|>"), SamplingOptions(), receive)
    assert done.wait(60)
    assert "".join(chunk.text for chunk in chunks) == TEXT

    def fail(chunk):
        raise RuntimeError("receiver broke")

    hello.submit(hello.tokenize("<|go|>"), SamplingOptions(), fail)
    assert hello.generate("<|go|>").text() == TEXT


def test_defect_ends_its_generations_and_not_the_thread(tmp_path, monkeypatch, caplog):
    path = scripted_model(tmp_path / "loop.gguf", ["tick "], loop=True)
    with ollamacore.load(path) as model:
        chunks = iter(model.generate("<|go|>"))
        next(chunks)
        with monkeypatch.context() as patch:
            patch.setattr(model._scheduler, "_compose", lambda: 1 / 0)
            with pytest.raises(EngineError, match="ZeroDivisionError"):
                list(chunks)
        assert "generation failed" in caplog.text
        assert model.generate("<|go|>", num_predict=2).text() == "tick tick "


@pytest.mark.parametrize("prompt", [[], [-1], [1 << 20]])
def test_bad_prompts_are_refused(hello, prompt):
    with pytest.raises(InvalidPromptError):
        hello.generate(prompt)


def test_bias_of_a_token_that_is_none_is_refused(hello):
    with pytest.raises(InvalidOptionError, match="logit_bias"):
        hello.generate([5], logit_bias={1 << 20: 1.0})


def test_long_prompt_without_shift_is_refused(endless):
    with pytest.raises(ContextLengthError, match="20 tokens, the context holds 16"):
        endless.generate([5] * 20, num_ctx=16, shift=False)


def test_long_prompt_is_cropped_with_shift(endless):
    generation = endless.generate([5] * 20, num_ctx=16, num_keep=4, num_predict=1)
    generation.text()
    stats = generation.stats
    assert (stats.prompt_tokens, stats.dropped_tokens, stats.context_shifts) == (10, 10, 0)


@pytest.mark.parametrize(
    ("length", "num_ctx", "num_keep", "expected"),
    [
        (20, 16, 4, [0, 1, 2, 3, 14, 15, 16, 17, 18, 19]),
        (20, 16, 0, [12, 13, 14, 15, 16, 17, 18, 19]),
        (20, 4, 100, [0, 1, 19]),
        (3, 2, -1, [2]),
    ],
)
def test_crop_keeps_the_start_and_the_newest(length, num_ctx, num_keep, expected):
    assert list(crop(array("i", range(length)), num_ctx, num_keep)) == expected


def test_close_ends_running_generations(tmp_path):
    path = scripted_model(tmp_path / "loop.gguf", ["tick "], loop=True)
    model = ollamacore.load(path)
    generation = model.generate("<|go|>")
    chunks = iter(generation)
    next(chunks)
    model.close()
    *_, last = chunks
    assert last.done_reason == "cancelled"
    model.close()
    with pytest.raises(ClosedError):
        model.generate("<|go|>")


def test_logits_of_several_positions_equal_single_ones(tiny):
    tokens = [3 + (i * 13) % 200 for i in range(50)]
    rows = tiny.logits(tokens, last=20)
    for back in (1, 7, 20):
        single = tiny.logits(tokens[: len(tokens) - back + 1])
        assert (rows[-back] == single[0]).all()


def test_model_without_template_says_so(tmp_path):
    path = scripted_model(tmp_path / "plain.gguf", ["x"], chat_template=None)
    with ollamacore.load(path) as model, pytest.raises(TemplateError, match="no chat template"):
        model.chat([{"role": "user", "content": "hi"}])


def test_unknown_architecture_is_named(tmp_path):
    path = tmp_path / "other.gguf"
    path.write_bytes(bytes(GGUFBytes(entries=[text_entry("general.architecture", "mamba9")])))
    with pytest.raises(UnsupportedModelError, match="mamba9"):
        ollamacore.load(path)


def test_file_that_is_no_gguf_is_refused(tmp_path):
    path = tmp_path / "text.gguf"
    path.write_text("hello" * 100)
    with pytest.raises(InvalidFileError):
        ollamacore.load(path)


def test_context_beyond_memory_is_refused(tmp_path):
    path = tiny_model(tmp_path / "tiny.gguf", "llama", tensor_type="F32")
    with pytest.raises(OutOfMemoryError, match="context of 512 tokens"):
        ollamacore.load(path, kv_bytes=1)


def test_unknown_kv_type_is_refused(tmp_path):
    with pytest.raises(InvalidOptionError, match="kv_type"):
        ollamacore.load(tmp_path / "any.gguf", kv_type="q3")


@pytest.mark.parametrize(("wanted", "used"), [(0, 2), (1, 1), (3, 3), (99, 3), (-1, 2)])
def test_num_thread_chooses_the_threads_of_its_steps(tmp_path, monkeypatch, wanted, used):
    monkeypatch.setattr(machine, "allowed_cpus", lambda: {0, 1, 2})
    path = tiny_model(tmp_path / "tiny.gguf", "llama", tensor_type="Q8_0")
    threads, done = set(), threading.Event()

    def receive(chunk):
        threads.add(model._engine.n_threads)
        if chunk.done_reason:
            done.set()

    with ollamacore.load(path, threads=2) as model:
        model.submit([5, 6, 7], SamplingOptions(num_predict=8, num_thread=wanted), receive)
        assert done.wait(60)
    assert threads == {used}
