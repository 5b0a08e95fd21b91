"""The engine below the scheduler: plans, sequences, steps. Weights come from a tiny generated model."""

import os
from array import array
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ollamacore import (
    ClosedError,
    EngineError,
    InvalidFileError,
    InvalidOptionError,
    SamplingOptions,
    UnsupportedModelError,
    _core,
)
from ollamacore.arch import build_plan, supports
from ollamacore.gguf import GGUFFile
from tests.core.engines import feed, open_engine
from tests.generate.deepseek import deepseek_model
from tests.generate.gemmas import GEMMAS, gemma_model
from tests.generate.moe import MOE_SHAPES, moe_model
from tests.generate.tiny import tiny_model

TOKENS = array("i", [(7 * i + 3) % 300 for i in range(90)])


MODELS = ["llama", "qwen2", "gemma3", "qwen2moe", "gpt-oss", "gemma3n", "gemma4-26b-a4b", "v3"]


@pytest.fixture(scope="module", params=MODELS)
def path(request, tmp_path_factory):
    target = tmp_path_factory.mktemp("engine") / f"{request.param}.gguf"
    if request.param == "v3":
        return deepseek_model(target, request.param, tensor_type="Q8_0")
    if request.param in GEMMAS:
        return gemma_model(target, request.param, "Q8_0")
    make = moe_model if request.param in MOE_SHAPES else tiny_model
    return make(target, request.param, tensor_type="Q8_0")


#: crosses two borders between the parts of 256 keys in which attention is summed up
LONG = array("i", [(11 * i * i + 5 * i + 1) % 300 for i in range(600)])


def test_logits_do_not_depend_on_chunks_or_threads(path):
    reference = None
    for n_threads in (1, 2, 3):
        engine = open_engine(path, n_threads=n_threads)
        for chunk in (1, 7, 64):
            logits = feed(engine, _core.Sequence(engine), TOKENS, chunk)
            reference = logits if reference is None else reference
            assert np.array_equal(logits, reference), f"{n_threads} threads, chunks of {chunk}"


@pytest.mark.parametrize("kv_type", _core.KV_TYPES)
def test_logits_of_long_context_do_not_depend_on_chunks_or_threads(path, kv_type):
    reference = None
    for n_threads, chunk, one_by_one in ((1, 64, 0), (2, 59, 0), (1, 64, 100), (3, 50, 100)):
        engine = open_engine(path, n_threads=n_threads, kv_type=kv_type)
        sequence = _core.Sequence(engine)
        prompt = len(LONG) - one_by_one
        logits = feed(engine, sequence, LONG[:prompt], chunk)
        if one_by_one:
            logits = feed(engine, sequence, LONG[prompt:], 1)
        reference = logits if reference is None else reference
        assert np.array_equal(logits, reference), f"{n_threads} threads, chunks of {chunk}"
    assert np.isfinite(reference).all()


@pytest.mark.parametrize("kv_type", _core.KV_TYPES)
def test_logits_do_not_depend_on_room_to_split_the_keys(path, kv_type):
    """Eight sequences share the blocks of one, so their parts are more than the pool alone could hold."""
    engine = open_engine(path, kv_blocks=40, kv_type=kv_type)
    first = _core.Sequence(engine)
    alone = feed(engine, first, LONG, 64)
    first.truncate(512)
    sequences = [first, *(_core.Sequence(engine) for _ in range(7))]
    for sequence in sequences[1:]:
        sequence.share(first.blocks())
    together = np.empty((8, engine.n_vocab), np.float32)
    for position in range(512, 543):
        assert engine.step([(s, LONG[position], 1) for s in sequences]) == _core.STEP_OK
    for row in range(8):
        engine.copy_logits(row, together[row])
    assert (together == together[0]).all()
    for sequence in sequences[1:]:
        sequence.close()
    assert engine.step([(first, LONG[543:], 1)]) == _core.STEP_OK
    engine.copy_logits(0, together[0])
    assert np.array_equal(together[0], alone)


def test_logits_do_not_depend_on_threads_that_lose_their_cores(path):
    """More threads than cores: at any moment some are off theirs, their chunks done over and their steps over."""

    def every_row(n_threads):
        engine = open_engine(path, n_threads=n_threads)
        sequence, row, at = _core.Sequence(engine), np.empty(engine.n_vocab, np.float32), 0
        while at < len(LONG):
            chunk = LONG[at : at + (1, 1, 2, 1, 9)[at % 5]]
            assert engine.step([(sequence, chunk, 1)]) == _core.STEP_OK
            at += len(chunk)
            engine.copy_logits(0, row)
            yield row.copy()

    for ours, reference in zip(every_row(2 * os.cpu_count() + 1), every_row(1), strict=True):
        assert np.array_equal(ours, reference)


def test_logits_do_not_depend_on_neighbours(path):
    engine = open_engine(path)
    alone = feed(engine, _core.Sequence(engine), TOKENS, 40)
    ours, decoding, other = (_core.Sequence(engine) for _ in range(3))
    engine.step([(decoding, TOKENS[:5], 0)])
    engine.step([(decoding, 9, 1), (ours, TOKENS[:40], 0), (other, TOKENS[3:20], 1)])
    engine.step([(ours, TOKENS[40:80], 0), (decoding, 11, 1)])
    engine.step([(other, TOKENS[20:30], 1), (ours, TOKENS[80:], 1)])
    together = np.empty(engine.n_vocab, np.float32)
    engine.copy_logits(1, together)
    assert np.array_equal(alone, together)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_sampling_a_step_equals_sampling_its_logits(path, n_threads):
    """The maxima that the head leaves for the sampler are those of the logits, in every row."""
    engine = open_engine(path, n_threads=n_threads)
    assert engine.step([(_core.Sequence(engine), TOKENS[:60], 4)]) == _core.STEP_OK
    logits = np.empty(engine.n_vocab, np.float32)
    for row in range(4):
        engine.copy_logits(row, logits)
        for options in (SamplingOptions(seed=row, top_k=5), SamplingOptions(temperature=0.0)):
            one, two = _core.Sampler(options, 64), _core.Sampler(options, 64)
            drawn = [one.sample(engine, row) for _ in range(20)]
            assert drawn == [two.sample_from(logits) for _ in range(20)]
        assert drawn[0] == logits.argmax()


def test_truncated_sequence_continues_as_if_new(path):
    engine = open_engine(path)
    sequence = _core.Sequence(engine)
    feed(engine, sequence, TOKENS, 64)
    sequence.truncate(33)
    assert len(sequence) == 33
    again = feed(engine, sequence, TOKENS[33:], 64)
    assert np.array_equal(again, feed(engine, _core.Sequence(engine), TOKENS, 64))


def test_blocks_return_to_the_pool(path):
    engine = open_engine(path, kv_blocks=8)
    for _ in range(5):
        sequence = _core.Sequence(engine)
        feed(engine, sequence, TOKENS, 64)
        assert engine.kv_blocks_free == 8 - 3
        sequence.close()
        assert engine.kv_blocks_free == 8


HUGE_PAGE = 2 << 20


def resident():
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_committed_blocks_have_their_memory_before_a_step_takes_them(path):
    engine = open_engine(path, kv_blocks=2000)
    block_bytes = engine.kv_bytes / 2000
    n_blocks = int(9 * HUGE_PAGE / block_bytes)
    before, used = resident(), [0]
    while engine.commit(n_blocks):
        used.append(engine.kv_bytes_used)
    assert max(b - a for a, b in pairwise(used)) == HUGE_PAGE, "a call takes no longer than one page does"
    assert n_blocks * block_bytes <= used[-1] < n_blocks * block_bytes + HUGE_PAGE
    assert resident() - before >= used[-1]
    sequence = _core.Sequence(engine)
    feed(engine, sequence, TOKENS, 64)
    assert (engine.kv_bytes_used, engine.commit(n_blocks - 3)) == (used[-1], False), "the step took of them"
    assert engine.commit(n_blocks + int(HUGE_PAGE / block_bytes)), "there is less than this in front of the next one"
    sequence.close()


def test_blocks_that_were_used_before_need_no_memory(path):
    engine = open_engine(path, kv_blocks=2000)
    sequence = _core.Sequence(engine)
    feed(engine, sequence, TOKENS, 64)
    sequence.close()
    assert not engine.commit(3)
    assert engine.commit(4)


def test_commit_ends_with_the_pool(path):
    engine = open_engine(path, kv_blocks=300)
    while engine.commit(2**63 - 1):
        pass
    assert 0 <= engine.kv_bytes - engine.kv_bytes_used < HUGE_PAGE
    feed(engine, _core.Sequence(engine), TOKENS, 64)


def test_commit_between_steps_changes_no_result(path):
    engine = open_engine(path, kv_blocks=2000)
    expected = feed(engine, _core.Sequence(engine), TOKENS, 64)
    engine = open_engine(path, kv_blocks=2000)
    sequence = _core.Sequence(engine)
    for token in TOKENS[:-1]:
        engine.commit(len(sequence))
        assert engine.step([(sequence, token, 0)]) == _core.STEP_OK
    assert np.array_equal(feed(engine, sequence, TOKENS[-1:]), expected)


def test_a_step_gets_memory_for_blocks_that_come_later_and_gives_the_same(path):
    engine = open_engine(path, kv_blocks=2000)
    expected = feed(engine, _core.Sequence(engine), TOKENS, 64)
    engine = open_engine(path, kv_blocks=2000)
    sequence, used, ahead = _core.Sequence(engine), [0], int(5 * HUGE_PAGE / engine.kv_bytes * 2000)
    assert engine.needs_memory(ahead)
    for token in TOKENS[:-1]:
        assert engine.step([(sequence, token, 0)], 0, ahead) == _core.STEP_OK
        used.append(engine.kv_bytes_used)
    assert max(b - a for a, b in pairwise(used)) == HUGE_PAGE, "a step gets no more"
    assert not engine.needs_memory(ahead)
    assert np.array_equal(feed(engine, sequence, TOKENS[-1:]), expected)


def test_bell_rings_once_when_the_interpreter_is_free(path):
    engine, (rings, bell) = open_engine(path, kv_blocks=8), os.pipe()
    os.set_blocking(rings, False)
    sequence = _core.Sequence(engine)
    for let_go in (engine.let_go, lambda: engine.step([(sequence, 5, 0)])):
        engine.ring(bell)
        with pytest.raises(BlockingIOError):
            os.read(rings, 8)
        let_go()
        assert len(os.read(rings, 16)) == 8
        let_go()
        with pytest.raises(BlockingIOError):
            os.read(rings, 8)
    os.close(bell)
    engine.ring(bell)
    engine.let_go()  # to nobody: no harm
    os.close(rings)


def test_full_pool_changes_no_sequence(path):
    engine = open_engine(path, kv_blocks=3)
    first, second = _core.Sequence(engine), _core.Sequence(engine)
    assert engine.step([(first, TOKENS[:32], 0)]) == _core.STEP_OK
    assert engine.step([(first, TOKENS[32:60], 1), (second, TOKENS[:36], 1)]) == _core.STEP_FULL
    assert (len(first), len(second), engine.kv_blocks_free) == (32, 0, 2)
    assert engine.step([(first, TOKENS[32:60], 1), (second, TOKENS[:30], 1)]) == _core.STEP_OK
    assert (len(first), len(second), engine.kv_blocks_free) == (60, 30, 0)


def test_cancelled_prompt_changes_no_sequence(path):
    engine = open_engine(path, kv_blocks=64)
    leaving, staying = _core.Sequence(engine), _core.Sequence(engine)
    leaving.cancel()
    batch = [(staying, TOKENS[:5], 1), (leaving, TOKENS[:20], 1)]
    assert engine.step(batch) == _core.STEP_CANCELLED
    assert (len(staying), len(leaving), engine.kv_blocks_free) == (0, 0, 64)
    assert engine.step(batch[:1]) == _core.STEP_OK


@pytest.mark.parametrize(
    ("tokens", "outputs"),
    [([-1], 0), ([1 << 30], 0), ([1, 2], 3), ([], 0), (list(range(65)), 0)],
)
def test_bad_batch_is_refused_and_the_engine_lives(path, tokens, outputs):
    engine = open_engine(path)
    sequence = _core.Sequence(engine)
    with pytest.raises(InvalidOptionError):
        engine.step([(sequence, array("i", tokens), outputs)])
    assert len(sequence) == 0
    assert engine.step([(sequence, 1, 1)]) == _core.STEP_OK


def test_sequence_twice_in_a_batch_is_refused(path):
    engine = open_engine(path)
    sequence = _core.Sequence(engine)
    with pytest.raises(InvalidOptionError, match="twice"):
        engine.step([(sequence, 1, 0), (sequence, 2, 0)])


def test_foreign_sequence_is_refused(path):
    engine = open_engine(path)
    other = open_engine(path)
    with pytest.raises(InvalidOptionError):
        engine.step([(_core.Sequence(other), 1, 0)])


@pytest.mark.parametrize("name", ["", "plan", "decoder", "../llama", "os.path", "Llama", "mamba9"])
def test_unknown_architecture_is_not_supported(name):
    assert not supports(name)


def test_missing_tensor_is_named(path, monkeypatch):
    file = GGUFFile.open(path)
    kept = {name: info for name, info in file.tensors.items() if name != "blk.1.attn_output.weight"}
    monkeypatch.setattr(file, "tensors", kept)
    with pytest.raises(InvalidFileError, match=r"blk\.1\.attn_output\.weight"):
        build_plan(file)


def test_unsupported_tensor_type_is_named(path):
    plan = build_plan(GGUFFile.open(path))
    info = plan.file.tensors["blk.0.attn_output.weight"]
    changed = info._replace(type=99, type_name="Q99")
    plan.file.tensors = {**plan.file.tensors, info.name: changed}
    engine = _core.Engine(
        n_threads=1,
        max_tokens=8,
        max_outputs=1,
        max_seqs=1,
        kv=[(1, 8, 0)],
        kv_type="f16",
        kv_blocks=1,
    )
    with pytest.raises(UnsupportedModelError, match=r"blk\.0\.attn_output\.weight.*Q99"):
        plan.install(engine)


def test_attention_without_its_keys_and_values_is_refused():
    engine = _core.Engine(
        n_threads=1, max_tokens=8, max_outputs=1, max_seqs=1, kv=[(1, 32, 0)], kv_type="q8_0",
        kv_blocks=1,
    )
    matrix = engine.add_matrix(0, 32, 32, memoryview(bytes(4 * 32 * 32)))
    residual, normed, attended, logits = (engine.add_buffer(32) for _ in range(4))
    engine.add_op("embed", dst=residual, matrix=matrix)
    engine.add_op("attention", src=residual, dst=attended, n_head=1, n_kv_head=1, head_dim=32)
    engine.add_op("norm", flags=("select",), src=attended, dst=normed, dst2=residual, eps=1e-5)
    engine.add_op("linear", src=normed, dst=logits, matrix=matrix)
    with pytest.raises(InvalidOptionError, match="op 1 of kind 5"):
        engine.finish(32)


@pytest.mark.parametrize("spoil", ["width", "missing", "order"])
def test_plan_that_does_not_fit_is_refused(spoil):
    engine = _core.Engine(
        n_threads=1,
        max_tokens=8,
        max_outputs=1,
        max_seqs=1,
        kv=[(1, 8, 0)],
        kv_type="f16",
        kv_blocks=1,
    )
    matrix = engine.add_matrix(0, 16, 32, memoryview(bytes(4 * 16 * 32)))
    residual = engine.add_buffer(40 if spoil == "width" else 32)
    normed, logits = engine.add_buffer(32), engine.add_buffer(16)
    if spoil != "missing":
        engine.add_op("embed", dst=residual, matrix=matrix)
    engine.add_op("norm", flags=() if spoil == "order" else ("select",), dst=normed, dst2=residual, eps=1e-5)
    engine.add_op("linear", src=normed, dst=logits, matrix=matrix)
    with pytest.raises(InvalidOptionError):
        engine.finish(16)


def test_closed_engine_refuses_and_has_no_memory(path):
    engine = open_engine(path)
    sequence = _core.Sequence(engine)
    with pytest.raises(EngineError, match="1 sequences are open"):
        engine.close()
    sequence.close()
    engine.close()
    engine.close()
    assert (engine.weight_bytes, engine.kv_bytes, engine.scratch_bytes, engine.kv_blocks_free) == (0, 0, 0, 0)
    with pytest.raises(ClosedError):
        _core.Sequence(engine)
    with pytest.raises(ClosedError):
        engine.step([])
