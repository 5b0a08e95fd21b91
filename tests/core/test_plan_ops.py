"""Ops of plans that only some architectures have, one at a time against numpy; and operands that do not fit them."""

from array import array

import numpy as np
import pytest

from ollamacore import InvalidOptionError, _core
from tests.generate.tiny import noise

WIDTH, N_VOCAB, EPS = 64, 20, 1e-6
#: one token, computed by every thread for itself, and several
STEPS = [[7], [3, 19, 0, 7]]
EMBEDDING = noise(1, "embedding", (N_VOCAB, WIDTH))


class Bench:
    """A plan that embeds, runs the ops of a test, and gives the norm of a buffer."""

    def __init__(self):
        self.engine = _core.Engine(
            n_threads=2, max_tokens=8, max_outputs=8, max_seqs=1, kv=[(1, 8, 0)], kv_type="f32", kv_blocks=1
        )
        self.residual = self.buffer()
        self.engine.add_op("embed", dst=self.residual, matrix=self.matrix(EMBEDDING))

    def matrix(self, values):
        data = memoryview(np.ascontiguousarray(values, np.float32).tobytes())
        return self.engine.add_matrix(0, *values.shape, data)

    def table(self, values):
        return self.engine.add_table(0, *values.shape, memoryview(values.tobytes()))

    def vector(self, values):
        return self.engine.add_vector(np.ascontiguousarray(values, np.float32).ravel())

    def buffer(self, width=WIDTH):
        return self.engine.add_buffer(width)

    def linear(self, name, rows, src=None, **operands):
        """A buffer that is not private, and what it holds of the embedding."""
        weights = noise(2, name, (rows, WIDTH))
        dst = self.buffer(rows)
        self.engine.add_op(
            "linear", src=self.residual if src is None else src, dst=dst, matrix=self.matrix(weights), **operands
        )
        return dst, weights

    def finish(self, stream, width=WIDTH):
        self.engine.add_op("norm", flags=("select",), dst=self.buffer(width), dst2=stream, eps=EPS)
        self.engine.finish(0)

    def run(self, tokens, buffer, width=WIDTH, *, is_shared=False):
        """The norm of `buffer` for each token; a shared one is added to a stream that is still zero."""
        stream = self.buffer(width) if is_shared else buffer
        if is_shared:
            self.engine.add_op("norm", flags=("plain",), src=buffer, dst=stream, dst2=stream)
        self.finish(stream, width)
        self.engine.load()
        sequence = _core.Sequence(self.engine)
        assert self.engine.step([(sequence, array("i", tokens), len(tokens))]) == _core.STEP_OK
        out = np.empty((len(tokens), width), np.float32)
        for row in range(len(tokens)):
            self.engine.pool_hidden(row, 1, "first", out[row])
        return out


def rms(x):
    return np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + EPS)


def normed(x):
    return x / rms(x)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.fixture
def bench():
    return Bench()


@pytest.mark.parametrize("tokens", STEPS)
def test_gather_adds_rows_and_the_first_for_tokens_without_one(bench, tokens):
    raised, weights = bench.linear("raise", 96)
    table = noise(3, "table", (8, 96))
    bench.engine.add_op("gather", dst=raised, matrix=bench.table(table), scale=2.5)
    rows = [token if token < len(table) else 0 for token in tokens]
    expected = EMBEDDING[tokens] @ weights.T + 2.5 * table[rows]
    np.testing.assert_allclose(bench.run(tokens, raised, 96, is_shared=True), normed(expected), atol=2e-5)


@pytest.mark.parametrize("tokens", STEPS)
def test_norm_of_parts_and_scale(bench, tokens):
    raised, weights = bench.linear("raise", 96)
    gains = noise(3, "gains", (24,)) + 2
    bench.engine.add_op("norm", dst=raised, dst2=raised, vector=bench.vector(gains), n_head=4, eps=EPS, scale=0.01)
    raw = 0.01 * (EMBEDDING[tokens] @ weights.T).reshape(-1, 4, 24)
    expected = (normed(raw) * gains).reshape(-1, 96)
    np.testing.assert_allclose(bench.run(tokens, raised, 96, is_shared=True), normed(expected), atol=2e-5)


@pytest.mark.parametrize("tokens", STEPS)
def test_plain_norm_multiplies_by_its_weights(bench, tokens):
    gains, scaled = noise(3, "gains", (WIDTH,)), bench.buffer()
    bench.engine.add_op("norm", flags=("plain",), dst=scaled, dst2=bench.residual, vector=bench.vector(gains))
    np.testing.assert_allclose(bench.run(tokens, scaled), normed(EMBEDDING[tokens] * gains), atol=2e-5)


@pytest.mark.parametrize("tokens", STEPS)
def test_linear_is_multiplied_by_factors(bench, tokens):
    factors, factor_weights = bench.linear("factors", 128)
    raised, weights = bench.linear("raise", 32, flags=("gelu",), src2=factors, offset=70)
    x = EMBEDDING[tokens]
    expected = gelu(x @ weights.T) * (x @ factor_weights.T)[:, 70:102]
    np.testing.assert_allclose(bench.run(tokens, raised, 32, is_shared=True), normed(expected), atol=2e-5)


@pytest.mark.parametrize("tokens", STEPS)
@pytest.mark.parametrize("deviations", [-1.0, 0.0, 1.6])
def test_sparse_glu_keeps_what_is_above_the_cutoff(bench, tokens, deviations):
    width = 1320  # three pieces of a lone column
    (gate, gate_weights), (up, up_weights) = bench.linear("gate", width), bench.linear("up", width)
    kept = bench.buffer(width)
    bench.engine.add_op("sparse_glu", src=gate, src2=up, dst=kept, scale=deviations)
    gates = (EMBEDDING[tokens] @ gate_weights.T).astype(np.float64)
    cutoff = gates.mean(-1, keepdims=True) + deviations * gates.std(-1, keepdims=True)
    expected = gelu(np.maximum(gates - cutoff, 0)) * (EMBEDDING[tokens] @ up_weights.T)
    found = bench.run(tokens, kept, width, is_shared=True)
    np.testing.assert_allclose(found, normed(expected), atol=1e-4)
    assert (found[expected == 0] == 0).all()


def add_streams(bench, n):
    """The streams of a token: its embedding and others made of it; numpy's as (n, tokens, width)."""
    weights = [np.eye(WIDTH, dtype=np.float32)]
    made = []
    for _ in range(1, n):
        bench.buffer()
    for i in range(1, n):
        made.append(bench.linear(f"stream {i}", WIDTH))
        weights.append(made[-1][1])
    for i, (src, _) in enumerate(made, 1):
        bench.engine.add_op("match", src=src, src2=bench.residual, dst=bench.residual + i)
    return np.stack(weights)


def streams_of(weights, tokens):
    made = np.einsum("nij,tj->nti", weights, EMBEDDING[tokens])
    return made * (rms(made[0]) / rms(made))


@pytest.mark.parametrize("tokens", STEPS)
@pytest.mark.parametrize("stream", [0, 1, 3, "block"])
def test_predict_mixes_streams_by_coefficients_of_the_token(bench, tokens, stream):
    weights = add_streams(bench, 4)
    modalities, router = bench.linear("router", 4, softcap=1.0)
    coefficients, block = noise(4, "predict", (16, 4)), bench.buffer()
    bench.engine.add_op(
        "predict", src=modalities, dst=bench.residual, dst2=block, vector=bench.vector(coefficients), n_stream=4
    )
    before = streams_of(weights, tokens)
    mix = (np.tanh(EMBEDDING[tokens] @ router.T) @ coefficients.T).reshape(-1, 4, 4)
    expected = before + np.einsum("tji,itd->jtd", mix, before)
    index = 0 if stream == "block" else stream
    found = bench.run(tokens, block if stream == "block" else bench.residual + stream)
    np.testing.assert_allclose(found, normed(expected[index]), atol=5e-5)


@pytest.mark.parametrize("tokens", STEPS)
@pytest.mark.parametrize("stream", [0, 1, 3])
def test_correct_adds_what_the_block_changed(bench, tokens, stream):
    weights = add_streams(bench, 4)
    modalities, router = bench.linear("router", 4, softcap=1.0)
    coefficients, zeros = noise(4, "correct", (4, 4)), np.zeros((16, 4))
    news, news_weights = bench.linear("news", WIDTH)
    block = bench.buffer()
    bench.engine.add_op(
        "predict", src=modalities, dst=bench.residual, dst2=block, vector=bench.vector(zeros), n_stream=4
    )
    bench.engine.add_op("norm", flags=("plain",), src=news, dst=bench.residual, dst2=bench.residual)
    bench.engine.add_op(
        "correct", src=modalities, dst=bench.residual, dst2=block, vector=bench.vector(coefficients), n_stream=4
    )
    x = EMBEDDING[tokens]
    factors = 1 + np.tanh(x @ router.T) @ coefficients.T
    expected = streams_of(weights, tokens) + factors.T[:, :, None] * (x @ news_weights.T)
    np.testing.assert_allclose(bench.run(tokens, bench.residual + stream), normed(expected[stream]), atol=5e-5)


def spoil_gather_table(bench, raised):
    bench.engine.add_op("gather", dst=raised, matrix=1)


def spoil_gather_width(bench, raised):
    bench.engine.add_op("gather", dst=raised, matrix=bench.table(EMBEDDING))


def spoil_gather_private(bench, raised):
    bench.engine.add_op("gather", dst=bench.residual, matrix=bench.table(EMBEDDING))


def spoil_sparse_in_place(bench, raised):
    bench.engine.add_op("sparse_glu", src=raised, src2=raised, dst=raised)


def spoil_factors_range(bench, raised):
    bench.linear("more", 32, src2=raised, offset=65)


def spoil_factors_overflow(bench, raised):
    bench.linear("more", 32, src2=raised, offset=(1 << 31) - 1)


def spoil_norm_parts(bench, raised):
    bench.engine.add_op("norm", dst=raised, dst2=raised, n_head=5, eps=EPS)


def spoil_plain_copy(bench, raised):
    bench.engine.add_op("norm", flags=("plain",), dst=bench.buffer(), dst2=bench.residual)


def spoil_stream_count(bench, raised):
    vector = bench.vector(np.zeros(9 * 81))
    bench.engine.add_op("predict", src=raised, dst=0, dst2=bench.buffer(), vector=vector, n_stream=9)


def spoil_stream_vector(bench, raised):
    bench.buffer()
    bench.engine.add_op("correct", src=raised, dst=2, dst2=0, vector=bench.vector(np.zeros(5)), n_stream=2)


def spoil_stream_shared(bench, raised):
    """A stream that a matrix writes: threads would add to it more than once."""
    first, _ = bench.linear("first", WIDTH)
    bench.linear("second", WIDTH)
    vector = bench.vector(np.zeros(4))
    bench.engine.add_op("correct", src=raised, dst=first, dst2=bench.residual, vector=vector, n_stream=2)


def spoil_match_itself(bench, raised):
    bench.engine.add_op("match", src=bench.residual, src2=bench.residual, dst=bench.residual)


def spoil_value_is_key(bench, raised):
    operands = {"n_head": 1, "n_kv_head": 1, "head_dim": 8}
    bench.engine.add_op("rope_kv", src=bench.residual, src2=raised, src3=raised, **operands)


def spoil_value_alone(bench, raised):
    operands = {"n_head": 1, "n_kv_head": 1, "head_dim": 8}
    bench.engine.add_op("rope_kv", src=bench.residual, src3=raised, **operands)


def spoil_norm_source(bench, raised):
    """A thread that is late to the norm would find what the next op has written in its place."""
    addend, weights = bench.linear("addend", WIDTH)
    normed = bench.buffer()
    bench.engine.add_op("norm", src=addend, dst=normed, dst2=bench.residual, eps=EPS)
    bench.engine.add_op("linear", src=normed, dst=addend, matrix=bench.matrix(weights))


def spoil_router_factors(bench, raised):
    bench.engine.add_op("route", src=raised, vector2=bench.vector(np.zeros(9)), n_expert=8, n_used=2)


def test_operands_that_fit_are_not_refused(bench):
    bench.linear("raise", 96)
    bench.finish(bench.residual)


@pytest.mark.parametrize("spoil", [value for name, value in globals().items() if name.startswith("spoil_")])
def test_operands_that_do_not_fit_are_refused(bench, spoil):
    raised, _ = bench.linear("raise", 96)
    spoil(bench, raised)
    with pytest.raises(InvalidOptionError):
        bench.finish(bench.residual)
