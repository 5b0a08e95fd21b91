"""Hybrid models: their logits, and the state that sequences carry beside keys and values."""

from array import array
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import ollamacore
from ollamacore import InvalidOptionError, _core
from tests.core.engines import feed, open_engine, row
from tests.generate.recurrent import CONTEXT, HYBRIDS, KEPT, TOKENS, recurrent_model

GOLDENS = Path(__file__).parents[1] / "data" / "recurrent.npz"
PROMPT = array("i", [(7 * i * i + 5 * i + 3) % 340 + 3 for i in range(150)])


@pytest.fixture(scope="module", params=HYBRIDS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def path(name, tmp_path_factory):
    return recurrent_model(tmp_path_factory.mktemp("recurrent") / "m.gguf", name, "Q8_0")


def test_logits_equal_transformers(tmp_path, name):
    path = recurrent_model(tmp_path / "m.gguf", name)
    with closing(ollamacore.Model.load(path, context=CONTEXT, threads=2, kv_type="f32")) as model:
        ours = model.logits(TOKENS, last=KEPT)
    assert np.abs(ours - np.load(GOLDENS)[name]).max() < 1e-4


@pytest.mark.parametrize("tensor_type", ["F32", "Q8_0"])
@pytest.mark.parametrize("form", ["is_old", "says_which"])
def test_files_that_say_it_otherwise_are_the_same_model(tmp_path, form, tensor_type):
    """qwen3next with one tensor for q, k, v and gate; with a list of the layers that have no attention."""
    expected = recurrent_model(tmp_path / "n.gguf", "qwen3next", tensor_type)
    path = recurrent_model(tmp_path / "m.gguf", "qwen3next", tensor_type, **{form: True})
    found = [feed(engine, _core.Sequence(engine), array("i", TOKENS)) for engine in map(open_engine, (path, expected))]
    np.testing.assert_array_equal(*found)


def test_logits_do_not_depend_on_chunks_or_threads(path):
    found = [
        feed(engine, _core.Sequence(engine), PROMPT, chunk)
        for engine in (open_engine(path, n_threads) for n_threads in (1, 2, 3))
        for chunk in (1, 7, 64)
    ]
    assert all(np.array_equal(logits, found[0]) for logits in found)


def test_logits_do_not_depend_on_neighbours(path):
    engine = open_engine(path)
    alone = feed(engine, _core.Sequence(engine), PROMPT)
    others = [_core.Sequence(engine) for _ in range(2)]
    feed(engine, others[0], PROMPT[:40])
    for first in range(0, 150, 30):  # prompt chunks beside a stream
        batch = [(others[0], PROMPT[first], 1), (others[1], PROMPT[first : first + 30], int(first == 120))]
        assert engine.step(batch) == _core.STEP_OK
    assert np.array_equal(row(engine, 1), alone)


def test_cancelled_step_leaves_the_state_of_all_as_it_was(path):
    engine = open_engine(path)
    expected = feed(engine, _core.Sequence(engine), PROMPT)
    kept, given_up = _core.Sequence(engine), _core.Sequence(engine)
    feed(engine, kept, PROMPT[:100])
    given_up.cancel()
    assert engine.step([(kept, PROMPT[100:110], 0), (given_up, PROMPT[:20], 1)]) == _core.STEP_CANCELLED
    assert (len(kept), len(given_up)) == (100, 0)
    assert np.array_equal(feed(engine, kept, PROMPT[100:]), expected)


def test_saved_state_resumes_with_the_same_bits(path):
    engine = open_engine(path)
    first = _core.Sequence(engine)
    feed(engine, first, PROMPT[:70])
    state, blocks = first.save(), first.blocks()
    expected = feed(engine, first, PROMPT[70:])
    second = _core.Sequence(engine)
    second.resume(blocks, 70, state)
    assert len(second) == 70
    assert np.array_equal(feed(engine, second, PROMPT[70:], 33), expected)
    with pytest.raises(ValueError):
        second.resume(blocks, 70, state)  # is not empty


def test_a_sequence_with_state_goes_back_to_its_start_only(path):
    engine = open_engine(path)
    sequence = _core.Sequence(engine)
    expected = feed(engine, sequence, PROMPT)
    sequence.truncate(len(PROMPT))
    assert len(sequence) == len(PROMPT)
    sequence.truncate(100)
    assert len(sequence) == 0
    assert np.array_equal(feed(engine, sequence, PROMPT), expected)
    with pytest.raises(ValueError):
        _core.Sequence(engine).share(sequence.blocks()[:1])


def test_states_are_as_many_as_the_pool_has(path):
    engine = open_engine(path, n_sequences=1, n_saved=1)
    sequence = _core.Sequence(engine)
    with pytest.raises(ollamacore.OllamaCoreError):
        _core.Sequence(engine)
    feed(engine, sequence, PROMPT[:5])
    saved = sequence.save()
    assert (sequence.save(), engine.states_saved) == (None, 1)
    engine.release_state(saved)
    assert engine.states_saved == 0
    with pytest.raises(InvalidOptionError):
        engine.release_state(saved)
    sequence.close()
    again = _core.Sequence(engine)
    feed(engine, again, PROMPT[:5])
    assert again.save() is not None
