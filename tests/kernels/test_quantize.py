"""Every quantize row of kernels.def against the contract, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollamacore import _core

ROWS = [
    pytest.param(index, id=row[2], marks=() if row[5] else pytest.mark.skip("not on this processor"))
    for index, row in enumerate(_core.kernel_rows())
    if row[0] == "quantize"
]
each_row = pytest.mark.parametrize("index", ROWS)


def quantize(index, x):
    """Run a row on a (rows, k) array between red zones."""
    x = np.ascontiguousarray(x, np.float32)
    n, k = x.shape
    codes = np.full(n * k + 64, 99, np.int8)
    scale, total = np.full(n * k // 16 + 16, 99, np.float32), np.full(n * k // 32 + 16, 99, np.float32)
    inner = codes[32:-32], scale[8:-8], total[8:-8]
    _core.run_quantize(index, x.reshape(-1), k, *inner)
    for array, zone in ((codes, 32), (scale, 8), (total, 8)):
        assert (array[:zone] == 99).all()
        assert (array[-zone:] == 99).all()
    return inner[0].reshape(n, k), inner[1].reshape(n, -1), inner[2].reshape(n, -1)


def expected(x):
    """Write down the contract of oc_quantize_fn."""
    blocks = np.asarray(x, np.float32).reshape(len(x), -1, 16)
    peak = np.abs(blocks).max(-1, keepdims=True)
    with np.errstate(all="ignore"):
        codes = np.rint(blocks * (np.float32(127) / peak))
    codes[~(np.isfinite(peak) & (peak >= 2.0**-100))[..., 0]] = 0
    scale = np.where(peak >= 2.0**-100, peak / np.float32(127), np.float32(0))
    scale[~np.isfinite(peak)] = np.nan
    products = scale.astype(np.float64) * codes.sum(-1, keepdims=True)
    with np.errstate(over="ignore"):
        total = (products[:, ::2] + products[:, 1::2]).astype(np.float32)
    return codes.astype(np.int8).reshape(x.shape), scale[..., 0], total[..., 0]


def check(index, x):
    for ours, theirs in zip(quantize(index, x), expected(x), strict=True):
        assert np.array_equal(ours, theirs, equal_nan=ours.dtype == np.float32)


@each_row
@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 3), n_blocks=st.integers(1, 5), exponent=st.integers(-110, 120), seed=st.integers(0))
def test_quantize_random(index, n, n_blocks, exponent, seed):
    rng = np.random.default_rng(seed)
    check(index, rng.standard_normal((n, 32 * n_blocks)) * 2.0**exponent)


@each_row
def test_quantize_rounds_ties_to_even(index):
    x = np.arange(-16, 16)[None] + np.float32(0.5)
    x[0, 0] = x[0, 31] = 127
    codes, scale, _ = quantize(index, x)
    assert (scale == 1).all()
    assert np.array_equal(codes, np.rint(x))


@each_row
@pytest.mark.parametrize("peak", [0.0, 1e-45, 2.0**-101, 2.0**-100, 3.4e38, np.inf, -np.inf, np.nan])
def test_quantize_extreme_peaks(index, peak):
    x = np.zeros((1, 96), np.float32)
    x[0, 32:64] = np.linspace(-1, 1, 32)
    x[0, 40] = peak
    x[0, 64:] = np.float32(peak) / 3
    x[0, 95] = peak
    check(index, x)


@each_row
def test_quantize_error_is_half_a_step(index):
    x = np.random.default_rng(0).standard_normal((2, 256)).astype(np.float32)
    codes, scale, total = quantize(index, x)
    values = codes.reshape(2, 16, 16) * scale[..., None].astype(np.float64)
    assert (np.abs(values - x.reshape(2, 16, 16)) <= 0.5001 * scale[..., None]).all()
    assert (np.abs(codes.reshape(2, 16, 16)).max(-1) == 127).all()
    np.testing.assert_allclose(total, values.reshape(2, 8, 32).sum(-1), rtol=1e-6, atol=1e-6)
