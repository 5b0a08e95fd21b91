"""Every matmul row of kernels.def against float64 arithmetic on the decoded weights and activations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollamacore import _core
from tests.kernels.rows import is_runnable, run_matmul
from tests.kernels.weights import (
    ACTIVATION_FILLS,
    FORMATS,
    WEIGHT_FILLS,
    Activations,
    decoded,
    packed,
    set_first_scale,
    weights,
)

GUARD = np.float32(-12345.5)
ROWS = [
    pytest.param(index, row[3], id=row[2])
    for index, row in enumerate(_core.kernel_rows())
    if row[0] == "matmul" and is_runnable(row)
]
each_row = pytest.mark.parametrize(("index", "gguf_type"), ROWS)
each_quantised_row = pytest.mark.parametrize(
    ("index", "gguf_type"), [row for row in ROWS if not FORMATS[row.values[1]][4]]
)


def generic_row(gguf_type):
    rows = enumerate(_core.kernel_rows())
    return next(i for i, row in rows if row[0] == "matmul" and row[3:5] == (gguf_type, "generic"))


def multiply(index, matrix, x, n_rows, g0=0, g1=None):
    """Run a row for groups [g0, g1) between red zones; the result is (columns, rows rounded up to 8)."""
    n_groups = -(-n_rows // 8)
    g1 = n_groups if g1 is None else g1
    ldy = 8 * n_groups + 16
    y = np.full((x.n, ldy), GUARD, np.float32)
    apart = np.pad(x.f32, ((0, 0), (0, -x.k % 8)), constant_values=np.nan)  # columns that begin at multiples of 8
    flat = [a.reshape(-1) for a in (apart, x.codes, x.scale, x.sum)]
    run_matmul(index, matrix, *flat, x.n, x.k, y.reshape(-1), ldy, g0, g1)
    assert (y[:, : 8 * g0] == GUARD).all(), "wrote before its first group"
    assert (y[:, 8 * g1 :] == GUARD).all(), "wrote behind its last group"
    return y[:, 8 * g0 : 8 * g1]


def allowed_error(w, x):
    """1e-5 of the sum over blocks of 32 of max|w| * sum|x|, per output."""
    pad = -w.shape[1] % 32
    w, x = (np.pad(np.abs(a), ((0, 0), (0, pad))).reshape(len(a), -1, 32) for a in (w, x))
    return 1e-5 * x.sum(-1) @ w.max(-1).T


def check(index, gguf_type, n_rows, k, x, data):
    """Compare one call with the exact product."""
    w = decoded(gguf_type, data).astype(np.float64)
    values = x.read_by(gguf_type)
    y = multiply(index, packed(gguf_type, data, k), x, n_rows)
    assert (y[:, n_rows:] == 0).all(), "rows past the end are zero"
    error = np.abs(y[:, :n_rows] - values @ w.T)
    assert (error <= allowed_error(w, values)).all(), error.max()
    return y


@each_row
@pytest.mark.parametrize("weight_fill", WEIGHT_FILLS)
@pytest.mark.parametrize("activation_fill", ACTIVATION_FILLS)
def test_matmul_equals_exact_product(index, gguf_type, weight_fill, activation_fill):
    k = max(64, FORMATS[gguf_type][1])
    data = weights(gguf_type, 9, k, weight_fill)
    check(index, gguf_type, 9, k, Activations(2, k, activation_fill), data)


@each_row
@settings(max_examples=15, deadline=None)
@given(n_rows=st.integers(1, 33), n_blocks=st.integers(1, 4), n=st.integers(1, 14), seed=st.integers(0))
def test_matmul_of_any_shape(index, gguf_type, n_rows, n_blocks, n, seed):
    block = FORMATS[gguf_type][1]
    k = n_blocks * block if block > 1 else seed % 70 + 1
    rng = np.random.default_rng(seed)
    data = weights(gguf_type, n_rows, k, rng=rng)
    x = Activations(n, k, rng=rng)
    y = check(index, gguf_type, n_rows, k, x, data)
    w = decoded(gguf_type, data).astype(np.float64)
    reference = multiply(generic_row(gguf_type), packed(gguf_type, data, k), x, n_rows)
    assert (np.abs(y - reference)[:, :n_rows] <= allowed_error(w, x.read_by(gguf_type))).all()


@each_quantised_row
def test_matmul_with_unit_scales_is_exact(index, gguf_type):
    """No float operation rounds here, so every integer must be right."""
    k = max(96, FORMATS[gguf_type][1])
    data = weights(gguf_type, 24, k, unit=True, rng=np.random.default_rng(7))
    x = Activations(7, k, unit=True)
    expected = x.values @ decoded(gguf_type, data).astype(np.float64).T
    assert np.array_equal(multiply(index, packed(gguf_type, data, k), x, 24), expected)


@each_quantised_row
@pytest.mark.parametrize("weight_fill", ["max", "min", "alternating"])
@pytest.mark.parametrize("activation_fill", ["plus", "minus", "alternating"])
def test_matmul_of_extreme_codes_is_exact(index, gguf_type, weight_fill, activation_fill):
    """Codes that would overflow 16-bit sums in a wrong kernel, in narrow tiles and in panels."""
    k = max(64, FORMATS[gguf_type][1])
    data = weights(gguf_type, 8, k, weight_fill)
    for n_columns in (6, 18):
        x = Activations(n_columns, k, activation_fill, unit=True)
        expected = x.values @ decoded(gguf_type, data).astype(np.float64).T
        assert np.array_equal(multiply(index, packed(gguf_type, data, k), x, 8), expected)


@each_row
def test_bits_do_not_depend_on_columns_or_groups(index, gguf_type):
    k = max(160, 2 * FORMATS[gguf_type][1])
    data = weights(gguf_type, 37, k)
    matrix, x = packed(gguf_type, data, k), Activations(13, k)
    whole = multiply(index, matrix, x, 37)
    for c in range(x.n):
        assert np.array_equal(multiply(index, matrix, x.column(c), 37)[0], whole[c])
    for g0 in range(5):
        for g1 in range(g0, 6):
            part = multiply(index, matrix, x, 37, g0, g1)
            assert np.array_equal(part, whole[:, 8 * g0 : 8 * g1])


@each_row
def test_bits_do_not_depend_on_the_strip_of_a_column(index, gguf_type):
    k = max(256 + 160, 2 * FORMATS[gguf_type][1])  # of blocks of 32, a part of a panel too
    matrix, x = packed(gguf_type, weights(gguf_type, 76, k), k), Activations(197, k)
    whole = multiply(index, matrix, x, 76)
    for c in (0, 50, 95, 96, 191, 192, 196):
        assert np.array_equal(multiply(index, matrix, x.column(c), 76)[0], whole[c])
    assert np.array_equal(multiply(index, matrix, x, 76, 1, 6), whole[:, 8:48])


@pytest.mark.parametrize(
    ("index", "gguf_type"), [row for row in ROWS if FORMATS[row.values[1]][0] == "MXFP4"]
)
def test_mxfp4_exponents_that_are_subnormal_or_huge(index, gguf_type):
    data = weights(gguf_type, 16, 32, "max")
    data[:, 0] = (0, 1, 2, 3, 4, 100, 126, 127, 128, 129, 200, 230, 240, 241, 242, 243)
    x = Activations(3, 32, "one_hot", unit=True)
    expected = x.values @ decoded(gguf_type, data).astype(np.float64).T
    assert np.array_equal(multiply(index, packed(gguf_type, data, 32), x, 16), expected)


@pytest.mark.parametrize(
    ("index", "gguf_type"), [row for row in ROWS if FORMATS[row.values[1]][0] != "MXFP4"]
)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scales_that_are_not_finite_stay_in_their_row(index, gguf_type, bad):
    k = max(64, FORMATS[gguf_type][1])
    data = weights(gguf_type, 8, k)
    x = Activations(3, k)
    before = multiply(index, packed(gguf_type, data, k), x, 8)
    set_first_scale(gguf_type, data[3], bad)
    after = multiply(index, packed(gguf_type, data, k), x, 8)
    others = np.arange(8) != 3
    assert not np.isfinite(after[:, 3]).any()
    assert np.array_equal(after[:, others], before[:, others])


@each_row
def test_activations_that_are_not_finite_stay_in_their_column(index, gguf_type):
    k = max(64, FORMATS[gguf_type][1])
    matrix, x = packed(gguf_type, weights(gguf_type, 8, k), k), Activations(7, k)
    before = multiply(index, matrix, x, 8)
    x.f32[4] = x.scale[4] = x.sum[4] = np.nan
    after = multiply(index, matrix, x, 8)
    others = np.arange(7) != 4
    assert np.isnan(after[4]).all()
    assert np.array_equal(after[others], before[others])


@pytest.mark.parametrize("gguf_type", FORMATS, ids=[row[0] for row in FORMATS.values()])
def test_vector_rows_agree_to_the_bit(gguf_type):
    """Moving to a processor with wider vectors does not change what a model says."""
    rows = [i for i, row in enumerate(_core.kernel_rows()) if row[0] == "matmul" and row[3] == gguf_type]
    rows = [i for i in rows if is_runnable(_core.kernel_rows()[i]) and i != generic_row(gguf_type)]
    k = max(160, 2 * FORMATS[gguf_type][1])
    matrix, x = packed(gguf_type, weights(gguf_type, 24, k), k), Activations(5, k)
    results = [multiply(i, matrix, x, 24) for i in rows]
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_every_format_has_a_reference():
    for gguf_type in FORMATS:
        assert _core.kernel_rows()[generic_row(gguf_type)][1] == FORMATS[gguf_type][0]


def test_row_of_another_op_is_refused():
    quantize = next(i for i, row in enumerate(_core.kernel_rows()) if row[0] == "quantize")
    with pytest.raises(ValueError, match="no matmul kernel"):
        multiply(quantize, np.zeros(9, np.uint8), Activations(1, 32), 8)
