"""Every row of conv and delta against float64 numpy, and against itself in pieces."""

import numpy as np
import pytest

from ollamacore import _core
from tests.kernels.test_ops import assert_red_zone, placed, random_floats, rows

CHANNELS = [1, 7, 8, 31, 63, 64, 65, 130]


def convolved(x, before, after, w, state):
    """Outputs and the next state, in float64; w is (width, channels)."""
    inputs = x.astype(np.float64) * (1 if before is None else before)
    history = np.concatenate([state, inputs])
    width = len(w)
    y = np.array([(w * history[t : t + width]).sum(0) for t in range(len(x))])
    size = np.array([np.abs(w * history[t : t + width]).sum(0) for t in range(len(x))])
    factor = 1 if after is None else after.astype(np.float64)
    return y * factor, size * np.abs(factor), history[len(x) :]


def run_conv(row, x, before, after, w, state):
    raw, y = placed(np.zeros(x.size, np.float32), 3)
    raw_next, after_last = placed(np.zeros(state.size, np.float32), 1)
    flat = [None if part is None else placed(part.ravel(), 2)[1] for part in (x, before, after, w, state)]
    _core.op_conv(row, *flat, after_last, y, n_tokens=len(x), width=len(w))
    assert_red_zone(raw, y)
    assert_red_zone(raw_next, after_last)
    return y.reshape(x.shape), after_last.reshape(state.shape)


@pytest.mark.parametrize(("row", "op"), rows("conv"))
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize(("width", "n_tokens"), [(2, 1), (3, 5), (4, 9), (16, 3)])
def test_conv_agrees_with_numpy(row, op, gated, width, n_tokens):
    for n in CHANNELS:
        x, before, after = (random_floats(seed + n, n_tokens * n).reshape(n_tokens, n) for seed in (1, 2, 3))
        w, state = random_floats(4 + n, width * n).reshape(width, n), random_floats(5, (width - 1) * n).reshape(-1, n)
        before, after = (before, after) if gated else (None, None)
        y, state_after = run_conv(row, x, before, after, w, state)
        expected, size, last = convolved(x, before, after, w, state)
        assert (np.abs(y - expected) <= 2e-6 * (size + np.abs(expected)) + 1e-7).all()
        np.testing.assert_array_equal(state_after, last.astype(np.float32))


@pytest.mark.parametrize(("row", "op"), rows("conv"))
@pytest.mark.parametrize("cut", [1, 2, 6])
def test_conv_in_pieces_gives_the_same_bits(row, op, cut):
    width, n, n_tokens = 4, 65, 7
    x, w = random_floats(1, n_tokens * n).reshape(-1, n), random_floats(2, width * n).reshape(-1, n)
    state = random_floats(3, (width - 1) * n).reshape(-1, n)
    whole, last = run_conv(row, x, None, None, w, state)
    first, between = run_conv(row, x[:cut], None, None, w, state)
    second, end = run_conv(row, x[cut:], None, None, w, between)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)
    np.testing.assert_array_equal(end, last)


def run_delta(row, state, q, k, v, decay, beta, is_scan=False):
    raw, y = placed(np.zeros(len(v), np.float32), 5)
    raw_next, after = placed(np.zeros(state.size, np.float32), 1)
    flat = [placed(part.ravel(), 2)[1] for part in (state, q, k, v)]
    _core.op_delta(row, flat[0], after, *flat[1:], y, decay, beta, is_scan)
    assert_red_zone(raw, y)
    assert_red_zone(raw_next, after)
    return y, after.reshape(state.shape)


@pytest.mark.parametrize(("row", "op"), rows("delta"))
@pytest.mark.parametrize(("n_k", "n_v"), [(1, 1), (5, 31), (32, 32), (16, 70), (128, 128)])
@pytest.mark.parametrize(("decay", "beta"), [(0.9, 0.3), (0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("is_scan", [False, True], ids=["delta rule", "state space"])
def test_delta_agrees_with_numpy(row, op, n_k, n_v, decay, beta, is_scan):
    state, v = random_floats(1, n_k * n_v).reshape(n_k, n_v), random_floats(2, n_v)
    q, k = (random_floats(seed, n_k) / np.float32(n_k**0.5) for seed in (3, 4))
    y, after = run_delta(row, state, q, k, v, decay, beta, is_scan)
    moved = np.float64(np.float32(decay)) * state
    change = v if is_scan else v - k.astype(np.float64) @ moved
    moved = moved + np.outer(k, np.float64(np.float32(beta)) * change)
    np.testing.assert_allclose(after, moved, rtol=0, atol=2e-5)
    np.testing.assert_allclose(y, q.astype(np.float64) @ moved, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("row", "op"), rows("delta"))
def test_delta_in_place_gives_the_same_bits(row, op):
    state, q, k, v = random_floats(1, 64 * 40), random_floats(2, 64), random_floats(3, 64), random_floats(4, 40)
    y, after = run_delta(row, state, q, k, v, 0.8, 0.4)
    again = np.empty_like(y)
    _core.op_delta(row, state, state, q, k, v, again, 0.8, 0.4)
    np.testing.assert_array_equal(again, y)
    np.testing.assert_array_equal(state, after)


@pytest.mark.parametrize(("row", "op"), rows("delta"))
def test_delta_of_no_number_stays_in_its_column(row, op):
    state, q, k, v = np.ones((8, 40), np.float32), random_floats(2, 8), random_floats(3, 8), random_floats(4, 40)
    state[3, 17] = np.nan
    y, after = run_delta(row, state, q, k, v, 0.8, 0.4)
    assert np.flatnonzero(np.isnan(y)).tolist() == [17]
    assert np.isnan(after).any(0).sum() == 1
