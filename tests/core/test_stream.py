"""A stream's step in two halves: what happens in between, and what giving it up leaves behind."""

import threading
import time
from array import array
from contextlib import contextmanager

import pytest

import ollamacore
from ollamacore import _core
from ollamacore._core import STEP_FULL, STEP_OK, Sampler, Sequence, StepCosts, Stream
from ollamacore.errors import EngineError, InvalidOptionError
from tests.generate.scripted import scripted_model
from tests.generate.tiny import tiny_model

PROMPT = array("i", range(5, 25))
GREEDY = ollamacore.SamplingOptions(temperature=0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tiny_model(tmp_path_factory.mktemp("tiny") / "m.gguf", "llama", tensor_type="Q8_0")
    with ollamacore.load(path, threads=2, lookup=False) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    path = scripted_model(tmp_path_factory.mktemp("scripted") / "m.gguf", [f"w{i} " for i in range(12)], loop=True)
    with ollamacore.load(path, threads=2, lookup=False) as loaded:
        yield loaded


@contextmanager
def opened(engine):
    """A stream whose prompt is computed, and the token that follows. No step is left under way: others wait for it."""
    sequence = Sequence(engine)
    stream = Stream(sequence, Sampler(GREEDY, 4096), None, StepCosts())
    try:
        assert engine.step([(sequence, PROMPT, 1)]) == STEP_OK
        yield sequence, stream, stream.choose(0)
    finally:
        stream.give_up()
        sequence.close()


def continued(engine, count, interrupt=None):
    """Tokens after the prompt; `interrupt` is called in the middle of each step."""
    with opened(engine) as (sequence, stream, token):
        tokens = [token]
        assert stream.begin(token, 10**6) == STEP_OK
        while len(tokens) < count:
            if interrupt:
                interrupt(sequence, stream, tokens[-1])
            tokens += stream.advance()
        stream.give_up()
        assert len(sequence) == len(PROMPT) + len(tokens) - 1
        return tokens


def in_engine(model, function, *arguments):
    return model._scheduler.call(lambda engine: function(engine, *arguments))


def test_step_that_is_given_up_was_never_begun(model):
    def restart(sequence, stream, token):
        length = len(sequence)
        stream.give_up()
        assert (stream.under_way, len(sequence)) == (False, length)
        assert stream.begin(token, 10**6) == STEP_OK
        assert stream.under_way

    expected = in_engine(model, continued, 30)
    assert in_engine(model, continued, 30, restart) == expected


def test_logits_stay_until_the_caller_joins(model):
    seen = []

    def look(sequence, stream, token):
        seen.append(_core.logprobs(sequence_engine, 0, token, 1)[1] == [token])

    def run(engine):
        nonlocal sequence_engine
        sequence_engine = engine
        return continued(engine, 10, look)

    sequence_engine = None
    model._scheduler.call(run)
    assert len(seen) == 9
    assert all(seen)


def test_no_other_step_is_made_meanwhile(model):
    def run(engine):
        with opened(engine) as (_, stream, token):
            other = Sequence(engine)
            stream.begin(token, 10**6)
            with pytest.raises(InvalidOptionError, match="under way"):
                engine.step([(other, 5, 1)])
            stream.give_up()
            assert engine.step([(other, 5, 1)]) == STEP_OK
            other.close()

    in_engine(model, run)


def test_no_step_is_begun_beyond_what_is_wanted(model):
    def run(engine):
        with opened(engine) as (_, stream, token):
            stream.begin(token, 1)
            assert (len(stream.advance()), stream.under_way) == (1, True)
            assert (len(stream.advance()), stream.under_way) == (1, False)
            with pytest.raises(InvalidOptionError, match="no step"):
                stream.advance()

    in_engine(model, run)


@pytest.mark.parametrize("wait", [0.0, 0.05])
def test_cancelled_step_brings_nothing(model, wait):
    """However far the other threads have come."""

    def run(engine):
        with opened(engine) as (sequence, stream, token):
            stream.begin(token, 10**6)
            time.sleep(wait)
            sequence.cancel()
            assert (stream.advance(), stream.under_way, len(sequence)) == ([], False, len(PROMPT))

    in_engine(model, run)


def test_full_pool_ends_the_steps_and_not_the_tokens(model):
    def run(engine):
        with opened(engine) as (_, stream, token):
            hold = Sequence(engine)
            free = engine.kv_blocks_free
            for _ in range(free - 1):
                engine.step([(hold, array("i", [5] * 32), 0)])
            stream.begin(token, 10**6)
            tokens = [token]
            while stream.under_way:
                tokens += stream.advance()
            assert len(tokens) > 32
            assert stream.begin(tokens[-1], 1) == STEP_FULL
            hold.close()

    in_engine(model, run)


def test_stop_string_is_found_while_the_next_step_is_under_way(scripted):
    """It costs a step that is given up, and the blocks of that step."""
    free = scripted.kv_blocks_free
    for _ in range(2):
        assert scripted.generate("<|go|>", stop=("w7",), num_predict=50).text() == "w0 w1 w2 w3 w4 w5 w6 "
    assert scripted.generate("<|go|>", num_predict=9).text() == "".join(f"w{i} " for i in range(9))
    assert scripted.kv_blocks_free == free


def test_request_is_not_kept_waiting_by_a_stream(scripted):
    """Receivers run beside a step; one that brings another request ends the stream's loneliness, not its text."""
    texts, ended = ["", ""], [threading.Event(), threading.Event()]

    def receive(index, chunk):
        texts[index] += chunk.text
        if index == 0 and texts[0] == "w0 w1 w2 ":
            submit(1, 5)
        if chunk.done_reason:
            ended[index].set()

    def submit(index, count):
        options = ollamacore.SamplingOptions(num_predict=count)
        scripted.submit(scripted.tokenize("<|go|>"), options, lambda chunk: receive(index, chunk))

    submit(0, 12)
    assert all(event.wait(60) for event in ended)
    assert texts == ["".join(f"w{i} " for i in range(12)), "".join(f"w{i} " for i in range(5))]


def small_engine():
    limits = {"n_threads": 2, "max_tokens": 1, "max_outputs": 1, "max_seqs": 1, "kv_blocks": 1}
    return _core.Engine(**limits, kv=[(1, 64, 0)], kv_type="f16")


def test_engine_closes_while_another_streams(scripted):
    """It must not wait for that one, which may wait for the GIL, to hand out its token."""
    begun = threading.Event()
    options = ollamacore.SamplingOptions(num_predict=10**6)
    stream = scripted.submit(scripted.tokenize("<|go|>"), options, lambda chunk: begun.set())
    assert begun.wait(60)
    for _ in range(100):
        small_engine().close()
    assert stream.done_reason is None
    stream.cancel()


def test_engine_is_collected_by_a_thread_whose_step_is_under_way(model):
    """Garbage is collected wherever it is found."""

    def run(engine):
        with opened(engine) as (_, stream, token):
            stream.begin(token, 10**6)
            small_engine()  # and gone

    in_engine(model, run)


class EndOfThreadError(BaseException):
    """As SystemExit: no Exception."""


@pytest.mark.parametrize("error", [RuntimeError, EndOfThreadError])
def test_receiver_that_fails_ends_its_stream(scripted, error):
    done = threading.Event()
    chunks = []

    def receive(chunk):
        chunks.append(chunk)
        if chunk.done_reason:
            done.set()
        if len(chunks) == 3:
            raise error("no more")

    scripted.submit(scripted.tokenize("<|go|>"), ollamacore.SamplingOptions(), receive)
    assert done.wait(60)
    assert (len(chunks), chunks[-1].done_reason) == (4, "cancelled")
    assert scripted.generate("<|go|>", num_predict=2).text() == "w0 w1 "


def test_report_that_fails_ends_its_generation(scripted):
    done, chunks = threading.Event(), []

    def receive(chunk):
        chunks.append(chunk)
        done.set()

    def report(_):
        raise EndOfThreadError

    scripted.submit(scripted.tokenize("<|go|>"), GREEDY, receive, on_progress=report)
    assert done.wait(60)
    assert isinstance(chunks[0].error, EngineError)
    assert scripted.generate("<|go|>", num_predict=2).text() == "w0 w1 "


def test_receiver_cannot_wait_for_a_model(model, scripted, tmp_path):
    """The other model's step would wait for the end of the one under way here."""
    waits = {
        "iterate": lambda: model.generate([5], num_predict=1).text(),
        "call": lambda: model.logits([5]),
        "close": model.close,
        "load": lambda: ollamacore.load(tmp_path),
    }
    done, refused = threading.Event(), set()

    def receive(chunk):
        for name, wait in waits.items():
            with pytest.raises(EngineError, match="receiver"):
                wait()
            refused.add(name)
        if chunk.done_reason:
            done.set()

    scripted.submit(scripted.tokenize("<|go|>"), ollamacore.SamplingOptions(num_predict=3), receive)
    assert done.wait(60)
    assert refused == set(waits)


def test_stream_that_is_dropped_gives_its_step_up(model):
    def run(engine):
        sequence = Sequence(engine)
        stream = Stream(sequence, Sampler(GREEDY, 4096), None, StepCosts())
        assert stream.begin(5, 1) == STEP_OK
        del stream
        assert engine.step([(sequence, 5, 1)]) == STEP_OK
        sequence.close()

    in_engine(model, run)
