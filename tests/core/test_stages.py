"""A prompt chunk that takes several steps, some stages of the model in each: the same bits, whatever the cuts."""

import os
from array import array
from dataclasses import replace

import numpy as np
import pytest

from ollamacore import InvalidOptionError, _core
from tests.core.engines import feed, open_engine, row
from tests.generate import recurrent
from tests.generate.deepseek import deepseek_model
from tests.generate.gemmas import GEMMAS, gemma_model
from tests.generate.moe import MOE_SHAPES, moe_model
from tests.generate.recurrent import recurrent_model
from tests.generate.tiny import tiny_model

PROMPT = array("i", [(11 * i * i + 5 * i + 1) % 300 for i in range(330)])
#: models whose layers carry state; here with attention in every other one of six, so that there are three stages
HYBRIDS = {"lfm2": {}, "qwen35": {"says_which": True}}
MODELS = ["llama", "gemma3", "qwen2moe", "gemma3n", "gemma4-26b-a4b", "v3", *HYBRIDS]


def make_model(path, name):
    if name in HYBRIDS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recurrent, "N_LAYER", 6)
            patch.setitem(recurrent.HYBRIDS, name, replace(recurrent.HYBRIDS[name], attention=(1, 3, 5), n_dense=6))
            return recurrent_model(path, name, "Q8_0", **HYBRIDS[name])
    if name == "v3":
        return deepseek_model(path, name, tensor_type="Q8_0")
    if name in GEMMAS:
        return gemma_model(path, name, "Q8_0")
    return (moe_model if name in MOE_SHAPES else tiny_model)(path, name, tensor_type="Q8_0")


@pytest.fixture(scope="module", params=MODELS)
def path(request, tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("stages") / "m.gguf", request.param)


@pytest.fixture
def engine(path):
    return open_engine(path, max_tokens=128)


def begin(engine, tokens):
    """A sequence of these tokens, in whole steps, and the logits of the last."""
    sequence = _core.Sequence(engine)
    return sequence, feed(engine, sequence, tokens)


def test_logits_do_not_depend_on_stages_or_streams(path):
    """A prompt in chunks and cuts of all kinds, while streams come and go; theirs and its logits are those alone."""
    _, expected = begin(open_engine(path), PROMPT)
    alone, start = open_engine(path, max_tokens=128), 40
    tokens = array("i", range(50, 150))
    stream, _ = begin(alone, PROMPT[:start])
    alone_rows = []
    for token in tokens:
        alone.step([(stream, int(token), 1)])
        alone_rows.append(row(alone, 0))
    for n_threads in (1, 2, 3):
        engine = open_engine(path, n_threads, max_tokens=128)
        streams = [begin(engine, PROMPT[:start])[0] for _ in range(3)]
        prompt, steps, chunk = _core.Sequence(engine), 0, 1
        while len(prompt) < len(PROMPT):
            part = PROMPT[len(prompt) : len(prompt) + chunk]
            done = prompt.staged[1]
            end = min(max(done + (1, 1, 1, 0, 2, 1, 0, 3, 2)[steps % 9], 1), engine.n_stages)
            is_last = end == engine.n_stages and len(prompt) + len(part) == len(PROMPT)
            running = streams[: steps % 4]  # columns of the chunk move
            batch = [(s, int(tokens[len(s) - start]), 1) for s in running]
            assert engine.step([*batch, (prompt, part, int(is_last))], end) == _core.STEP_OK
            for i, s in enumerate(running):
                assert np.array_equal(row(engine, i), alone_rows[len(s) - start - 1]), "a stream beside stages"
            chunk = {1: 30, 30: 100, 100: 2, 2: 90}.get(chunk, 64) if prompt.staged == (0, 0) else chunk
            steps += 1
        assert np.array_equal(row(engine, len(running)), expected), f"{n_threads} threads"
        assert steps >= 6, "several chunks of several steps"


def test_logits_do_not_depend_on_threads_that_lose_their_cores(path):
    """More threads than cores, in steps of streams, of stages and of whole chunks."""

    def every_row(n_threads):
        engine = open_engine(path, n_threads, max_tokens=128)
        streams = [begin(engine, PROMPT[n : n + 30])[0] for n in range(3)]
        for start in range(0, 96, 16):
            prompt = _core.Sequence(engine)
            for end in (1, engine.n_stages, engine.n_stages):
                chunk = PROMPT[len(prompt) : len(prompt) + 16 + start]
                token = int(PROMPT[len(streams[0])])
                is_whole = end == engine.n_stages
                engine.step([*((s, token, 1) for s in streams), (prompt, chunk, int(is_whole))], end)
                yield [row(engine, n).copy() for n in range(3 + is_whole)]
            prompt.close()

    for ours, reference in zip(every_row(2 * os.cpu_count() + 1), every_row(1), strict=True):
        assert np.array_equal(ours, reference)


def test_sequence_does_not_grow_before_the_last_stage(engine):
    sequence = _core.Sequence(engine)
    for stage in range(1, engine.n_stages):
        engine.step([(sequence, PROMPT[:40], 0)], stage)
        assert (len(sequence), sequence.staged) == (0, (40, stage))
    engine.step([(sequence, PROMPT[:40], 1)], engine.n_stages)
    assert (len(sequence), sequence.staged) == (40, (0, 0))


def test_item_waits_in_steps_that_compute_none_of_its_stages(engine):
    _, expected = begin(engine, PROMPT[:40])
    stream, _ = begin(engine, PROMPT[40:69])
    sequence = _core.Sequence(engine)
    engine.step([(stream, 7, 1), (sequence, PROMPT[:40], 0)], 1)
    for token in range(5):
        engine.step([(stream, token, 1), (sequence, PROMPT[:40], 0)], 1)
        assert (len(stream), len(sequence), sequence.staged) == (31 + token, 0, (40, 1))
    engine.step([(sequence, PROMPT[:40], 0)], 1)
    assert (len(sequence), sequence.staged) == (0, (40, 1)), "nor alone"
    engine.step([(stream, 7, 1), (sequence, PROMPT[:40], 1)])
    assert np.array_equal(row(engine, 1), expected)
    assert stream.blocks()[1] > max(sequence.blocks()), "it kept those it had, and did not begin again"


def other_tokens(engine, sequence):
    engine.step([(sequence, PROMPT[1:41], 0)], 1)


def fewer_tokens(engine, sequence):
    engine.step([(sequence, PROMPT[:39], 0)], 1)


def stage_before(engine, sequence):
    engine.step([(sequence, PROMPT[:40], 0)], 1)


@pytest.mark.parametrize("step", [other_tokens, fewer_tokens, stage_before])
def test_another_item_begins_at_the_first_stage(engine, step):
    _, expected = begin(engine, PROMPT[:40])
    sequence = _core.Sequence(engine)
    engine.step([(sequence, PROMPT[:40], 0)], engine.n_stages - 1)
    step(engine, sequence)
    engine.step([(sequence, PROMPT[:40], 1)])
    assert np.array_equal(row(engine, 0), expected)


def another_step(engine, sequence):
    other = _core.Sequence(engine)
    engine.step([(other, PROMPT[100:160], 1)])
    other.close()


def truncated(engine, sequence):
    sequence.truncate(0)


def refused_for_room(engine, sequence):
    others = [_core.Sequence(engine) for _ in range(4)]
    for _ in range(12):
        if engine.step([(other, PROMPT[:32], 0) for other in others]) != _core.STEP_OK:
            break
    for other in others:
        other.close()


def cancelled(engine, sequence):
    other = _core.Sequence(engine)
    other.cancel()
    assert engine.step([(other, PROMPT[:9], 0), (sequence, PROMPT[:40], 0)], 2) == _core.STEP_CANCELLED


@pytest.mark.parametrize("event", [another_step, truncated, refused_for_room, cancelled])
def test_what_comes_between_loses_the_stages_and_nothing_else(engine, event):
    _, expected = begin(engine, PROMPT[:40])
    free = engine.kv_blocks_free
    sequence = _core.Sequence(engine)
    engine.step([(sequence, PROMPT[:40], 0)], 1)
    event(engine, sequence)
    assert (len(sequence), sequence.staged, engine.kv_blocks_free) == (0, (0, 0), free)
    engine.step([(sequence, PROMPT[:40], 1)])
    assert np.array_equal(row(engine, 0), expected)


def test_closed_sequence_leaves_nothing(engine):
    free = engine.kv_blocks_free
    sequence = _core.Sequence(engine)
    engine.step([(sequence, PROMPT[:40], 0)], 1)
    sequence.close()
    assert (sequence.staged, engine.kv_blocks_free) == ((0, 0), free)
    begin(engine, PROMPT[:40])


@pytest.mark.parametrize(("outputs", "end"), [(1, 1), (0, -1), (0, 99)])
def test_stages_that_do_not_exist_and_outputs_before_the_last_are_refused(engine, outputs, end):
    sequence = _core.Sequence(engine)
    with pytest.raises(InvalidOptionError, match="stage"):
        engine.step([(sequence, PROMPT[:40], outputs)], end)
    assert (len(sequence), sequence.staged) == (0, (0, 0))
    assert engine.step([(sequence, PROMPT[:40], 1)]) == _core.STEP_OK
