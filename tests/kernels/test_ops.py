"""Every element-wise row of the kernel table against float64 numpy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollamacore import _core
from tests.kernels.test_attention import quantise

GUARD = 16
SIZES = [*range(1, 41), 63, 64, 65, 100, 127, 128, 255, 256, 257, 299, 300]


def rows(*ops):
    """Every runnable row of `ops`, as pytest parameters."""
    return [pytest.param(index, op, id=symbol)
            for index, (op, _, symbol, _, _, runs) in enumerate(_core.kernel_rows()) if op in ops and runs]


def placed(values, offset):
    """A copy of `values` that starts `offset` elements after a 64-byte boundary, inside a red zone."""
    values = np.asarray(values)
    raw = np.full(values.size + 2 * GUARD + 64, 77, values.dtype)
    start = (-raw.ctypes.data // raw.itemsize) % (64 // raw.itemsize) + GUARD + offset
    view = raw[start:start + values.size]
    view[:] = values
    return raw, view


def assert_red_zone(raw, view):
    start = (view.ctypes.data - raw.ctypes.data) // raw.itemsize
    assert (raw[:start] == 77).all()
    assert (raw[start + view.size:] == 77).all()


def random_floats(seed, n, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(n) * scale).astype(np.float32)


def test_every_op_has_a_reference_row():
    all_ops = {op for op, *_ in _core.kernel_rows()}
    assert all_ops >= {"rmsnorm", "layernorm", "rope", "swiglu", "geglu", "gelu", "gelu_tanh", "add", "maxima",
                       "conv", "delta",
                       "attention_f16", "attention_f32", "attention_q8_0",
                       "kv_store_f16", "kv_store_f32", "kv_store_q8_0"}
    assert all_ops == {op for op, _, _, _, isa, _ in _core.kernel_rows() if isa == "generic"}


def test_row_of_another_op_is_refused():
    index = next(i for i, row in enumerate(_core.kernel_rows()) if row[0] == "add")
    with pytest.raises(ValueError, match="not a runnable"):
        _core.op_maxima(index, np.zeros(3, np.float32), np.zeros(1, np.float32))


# ---- rmsnorm ----

def rmsnorm_reference(x, w, eps):
    x = x.astype(np.float64)
    return x / np.sqrt(np.mean(x * x) + float(np.float32(eps))) * (1.0 if w is None else w.astype(np.float64))


@pytest.mark.parametrize(("row", "op"), rows("rmsnorm"))
@pytest.mark.parametrize("weighted", [True, False])
def test_rmsnorm_sizes(row, op, weighted):
    for n in SIZES:
        x, w = random_floats(n, n, 3), random_floats(n + 1, n) if weighted else None
        _, x_view = placed(x, n % 5)
        w_view = placed(w, n % 3)[1] if weighted else None
        raw, y = placed(np.zeros(n, np.float32), n % 7)
        _core.op_rmsnorm(row, x_view, w_view, y, 1e-5)
        np.testing.assert_allclose(y, rmsnorm_reference(x, w, 1e-5), rtol=1e-5, atol=0)
        assert_red_zone(raw, y)


@pytest.mark.parametrize(("row", "op"), rows("rmsnorm"))
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-3, 1e5, 1e25])
def test_rmsnorm_extremes(row, op, scale):
    x = random_floats(1, 77) * np.float32(scale)
    y = np.empty_like(x)
    _core.op_rmsnorm(row, x, None, y, 1e-6)
    np.testing.assert_allclose(y, rmsnorm_reference(x, None, 1e-6), rtol=1e-5, atol=1e-38)


@pytest.mark.parametrize(("row", "op"), rows("rmsnorm"))
def test_rmsnorm_without_eps_of_tiny_values(row, op):
    x = random_floats(1, 77) * np.float32(1e-25)
    y = np.empty_like(x)
    _core.op_rmsnorm(row, x, None, y, 0.0)
    np.testing.assert_allclose(y, rmsnorm_reference(x, None, 0.0), rtol=1e-5)


@pytest.mark.parametrize(("row", "op"), rows("rmsnorm"))
def test_rmsnorm_in_place(row, op):
    x, w = random_floats(3, 131), random_floats(4, 131)
    y = x.copy()
    _core.op_rmsnorm(row, y, w, y, 1e-5)
    np.testing.assert_allclose(y, rmsnorm_reference(x, w, 1e-5), rtol=1e-5)


# ---- layernorm ----

def layernorm_reference(x, w, b, eps):
    x = x.astype(np.float64)
    x = x - x.mean()
    return x / np.sqrt(np.mean(x * x) + float(np.float32(eps))) * w + b


@pytest.mark.parametrize(("row", "op"), rows("layernorm"))
def test_layernorm_sizes(row, op):
    for n in SIZES:
        x, w, b = random_floats(n, n, 3) + np.float32(2), random_floats(n + 1, n), random_floats(n + 2, n)
        expected = layernorm_reference(x, w, b, 1e-5)
        raw, y = placed(np.zeros(n, np.float32), n % 7)
        _core.op_layernorm(row, placed(x, n % 5)[1], placed(w, n % 3)[1], placed(b, n % 4)[1], y, 1e-5)
        scale = 1 / np.sqrt(x.astype(np.float64).var() + 1e-5)
        assert (np.abs(y - expected) <= 1e-5 * (np.abs(x).max() * scale * np.abs(w) + np.abs(b))).all()
        assert_red_zone(raw, y)
        _core.op_layernorm(row, x, w, None, y, 1e-5)
        assert (np.abs(y - (expected - b)) <= 1e-5 * (np.abs(x).max() * scale * np.abs(w) + np.abs(b))).all()
        _core.op_layernorm(row, x, w, None, x, 1e-5)
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(("row", "op"), rows("layernorm"))
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-20, 1e-3, 1e5, 1e25])
def test_layernorm_extremes(row, op, scale):
    x, one = random_floats(1, 77) * np.float32(scale), np.ones(77, np.float32)
    y = np.empty_like(x)
    for eps in (1e-12, 0.0) if scale else (1e-12,):
        _core.op_layernorm(row, x, one, one * 0, y, eps)
        np.testing.assert_allclose(y, layernorm_reference(x, one, 0, eps), rtol=1e-5, atol=1e-6)


# ---- gelu ----

def gelu_reference(x):
    return np.array([0.5 * value * math.erfc(-value / math.sqrt(2)) for value in x.astype(np.float64)])


def gelu_tanh_reference(x):
    x = x.astype(np.float64)
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize(("row", "op"), rows("gelu_tanh"))
def test_gelu_tanh_sizes(row, op):
    for n in SIZES:
        x = random_floats(n, n, 4)
        raw, view = placed(x, n % 6)
        _core.op_gelu(row, view)
        np.testing.assert_allclose(view, gelu_tanh_reference(x), rtol=2e-6, atol=1e-6)
        assert_red_zone(raw, view)
        alone = x[n // 2:n // 2 + 1].copy()
        _core.op_gelu(row, alone)
        assert alone[0] == view[n // 2]


@pytest.mark.parametrize(("row", "op"), rows("gelu"))
def test_gelu_sizes(row, op):
    for n in SIZES:
        x = random_floats(n, n, 4)
        raw, view = placed(x, n % 6)
        _core.op_gelu(row, view)
        assert_glu(view, gelu_reference(x))
        assert_red_zone(raw, view)
        for i in (0, n // 2, n - 1):
            alone = x[i:i + 1].copy()
            _core.op_gelu(row, alone)
            assert alone[0] == view[i]


@pytest.mark.parametrize(("row", "op"), rows("gelu"))
def test_gelu_range(row, op):
    x = np.concatenate([np.linspace(-30, 30, 20001), [-3e38, -1e5, -0.0, 1e-40, 1e5, 3e38]]).astype(np.float32)
    y = x.copy()
    _core.op_gelu(row, y)
    assert_glu(y[:-6], gelu_reference(x[:-6]))
    assert (y[-6:-4] == 0).all()
    np.testing.assert_allclose(y[-4:], [0, 0, 1e5, 3e38], rtol=1e-6, atol=1e-38)
    special = np.array([np.nan, np.inf, 1.0], np.float32)
    _core.op_gelu(row, special)
    assert np.isnan(special[0])
    assert np.isposinf(special[1])


# ---- rope ----

def rope_reference(x, cos, sin, neox):
    y, half = x.astype(np.float64), len(cos)
    first = slice(0, half) if neox else slice(0, 2 * half, 2)
    second = slice(half, 2 * half) if neox else slice(1, 2 * half, 2)
    a, b = y[first].copy(), y[second].copy()
    y[first], y[second] = a * cos - b * sin, b * cos + a * sin
    return y


@pytest.mark.parametrize(("row", "op"), rows("rope"))
@pytest.mark.parametrize("neox", [True, False])
def test_rope_sizes(row, op, neox):
    for half in [*range(1, 40), 48, 64, 100, 128, 150]:
        rest = half % 4
        x = random_floats(half, 2 * half + rest)
        angle = np.random.default_rng(half).uniform(0, 1e3, half)
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        raw, view = placed(x, half % 6)
        _core.op_rope(row, view, placed(cos, 1)[1], placed(sin, 2)[1], neox)
        np.testing.assert_allclose(view, rope_reference(x, cos, sin, neox), rtol=1e-5, atol=1e-6)
        assert (view[2 * half:] == x[2 * half:]).all()
        assert_red_zone(raw, view)


# ---- gated activations ----

def glu_reference(op, gate, up):
    gate, up = gate.astype(np.float64), up.astype(np.float64)
    u = gate if op == "swiglu" else 2 * np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)
    with np.errstate(over="ignore"):
        return gate / (1 + np.exp(-u)) * up


def assert_glu(y, expected):
    assert (np.abs(y - expected) <= 2e-6 * np.abs(expected) + 1e-7).all()


@pytest.mark.parametrize(("row", "op"), rows("swiglu", "geglu"))
def test_glu_sizes(row, op):
    for n in SIZES:
        gate, up = random_floats(n, n, 4), random_floats(n + 1, n)
        raw, y = placed(np.zeros(n, np.float32), n % 7)
        _core.op_glu(row, placed(gate, n % 5)[1], placed(up, n % 3)[1], y)
        assert_glu(y, glu_reference(op, gate, up))
        assert_red_zone(raw, y)


@pytest.mark.parametrize(("row", "op"), rows("swiglu", "geglu"))
def test_glu_dense_range(row, op):
    gate = np.linspace(-110, 110, 200_003).astype(np.float32)
    up = np.ones_like(gate)
    _core.op_glu(row, gate, up, y := np.empty_like(gate))
    assert_glu(y, glu_reference(op, gate, up))


@pytest.mark.parametrize(("row", "op"), rows("swiglu", "geglu"))
def test_glu_extremes(row, op):
    sizes = [0, 1e-40, 86.9, 88.7, 89, 1e4, 1e13, 3e38]
    gate = np.array([sign * size for size in sizes for sign in (1.0, -1.0)] * 3, np.float32)
    up = np.ones_like(gate)
    _core.op_glu(row, gate, up, y := np.empty_like(gate))
    assert_glu(y, glu_reference(op, gate, up))


@pytest.mark.parametrize(("row", "op"), rows("swiglu", "geglu"))
def test_glu_nan_stays_in_its_place(row, op):
    gate = random_floats(5, 37)
    gate[11] = np.nan
    _core.op_glu(row, gate, np.ones(37, np.float32), y := np.empty_like(gate))
    assert np.flatnonzero(np.isnan(y)).tolist() == [11]


@pytest.mark.parametrize(("row", "op"), rows("swiglu", "geglu"))
def test_glu_in_place(row, op):
    gate, up = random_floats(7, 203, 3), random_floats(8, 203)
    y = gate.copy()
    _core.op_glu(row, y, up, y)
    assert_glu(y, glu_reference(op, gate, up))


# ---- add ----

@pytest.mark.parametrize(("row", "op"), rows("add"))
def test_add_sizes(row, op):
    for n in SIZES:
        x, y = random_floats(n, n), random_floats(n + 1, n)
        raw, view = placed(y, n % 7)
        _core.op_add(row, view, placed(x, n % 3)[1])
        np.testing.assert_array_equal(view, x + y)
        assert_red_zone(raw, view)


# ---- maxima ----

RUN = 32


def maxima(row, x):
    raw, view = placed(np.zeros(-(-len(x) // RUN), np.float32), len(x) % 5)
    _core.op_maxima(row, placed(x, len(x) % 7)[1], view)
    assert_red_zone(raw, view)
    return view


def maxima_reference(x):
    real = np.where(np.isnan(x), -np.inf, x)
    return np.array([real[i : i + RUN].max() for i in range(0, len(x), RUN)], np.float32)


@pytest.mark.parametrize(("row", "op"), rows("maxima"))
def test_maxima_at_every_position(row, op):
    for n in [*SIZES, RUN, 2 * RUN, 2 * RUN + 1]:
        for position in {0, n // 2, n - 1, n * 7 // 8}:
            x = random_floats(n, n)
            x[position] = 100
            np.testing.assert_array_equal(maxima(row, x), maxima_reference(x))


@pytest.mark.parametrize(("row", "op"), rows("maxima"))
@given(values=st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan]), min_size=1,
                       max_size=100))
@settings(deadline=None)
def test_maxima_with_nan_and_infinities(row, op, values):
    x = np.array(values, np.float32)
    np.testing.assert_array_equal(maxima(row, x), maxima_reference(x))


@pytest.mark.parametrize(("row", "op"), rows("maxima"))
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_maxima_of_nothing_above_infinity(row, op, value):
    assert (maxima(row, np.full(100, value, np.float32)) == -np.inf).all()


# ---- kv_store ----

@pytest.mark.parametrize(("row", "op"), rows("kv_store_f16", "kv_store_f32"))
@pytest.mark.parametrize("head_dim", [1, 5, 8, 16, 20, 64, 96, 128, 256])
def test_kv_store_writes_one_slot(row, op, head_dim):
    dtype = np.float16 if op == "kv_store_f16" else np.float32
    k, v = random_floats(1, head_dim), random_floats(2, head_dim)
    for slot in (0, 1, 15, 31):
        k_raw, k_tile = placed(np.zeros(32 * head_dim, dtype), 1)
        v_raw, v_tile = placed(np.zeros(32 * head_dim, dtype), 3)
        k_bytes, v_bytes = k_tile.view(np.uint8), v_tile.view(np.uint8)
        _core.op_kv_store(row, placed(k, 1)[1], placed(v, 1)[1], k_bytes, v_bytes, slot)
        expected_k, expected_v = np.zeros((head_dim, 32), dtype), np.zeros((32, head_dim), dtype)
        expected_k[:, slot], expected_v[slot] = k.astype(dtype), v.astype(dtype)
        assert k_tile.tobytes() == expected_k.tobytes()
        assert v_tile.tobytes() == expected_v.tobytes()
        assert_red_zone(k_raw, k_tile)
        assert_red_zone(v_raw, v_tile)


@pytest.mark.parametrize(("row", "op"), rows("kv_store_f16", "kv_store_f32", "kv_store_q8_0"))
@pytest.mark.parametrize("head_dim", [5, 96])
def test_kv_store_without_a_value_leaves_its_tile(row, op, head_dim):
    k, size = random_floats(1, head_dim), _core.kv_tile_size(op.removeprefix("kv_store_"), head_dim)
    (k_alone, v_alone), (k_tile, v_tile) = np.zeros((2, 2, size), np.uint8)
    _core.op_kv_store(row, k, None, k_alone, v_alone, 9)
    _core.op_kv_store(row, k, k, k_tile, v_tile, 9)
    assert k_alone.tobytes() == k_tile.tobytes()
    assert not v_alone.any()


@pytest.mark.parametrize(("row", "op"), rows("kv_store_f16"))
def test_kv_store_rounds_to_half_exactly(row, op):
    halves = np.arange(0, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    between = (halves[:-1] + halves[1:]) / 2
    values = np.concatenate([halves, between, np.nextafter(between.astype(np.float32), np.float32(1e9)),
                             np.nextafter(between.astype(np.float32), np.float32(0)),
                             [65519.99, 65520, 1e6, 1e-9, 2.0**-25, np.inf]]).astype(np.float32)
    values = np.concatenate([values, -values, np.zeros(-2 * values.size % 256, np.float32)])
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    k_tile, v_tile = np.zeros(32 * 256 * 2, np.uint8), np.zeros(32 * 256 * 2, np.uint8)
    for start in range(0, values.size, 256):
        chunk = values[start:start + 256]
        _core.op_kv_store(row, chunk, chunk, k_tile, v_tile, 3)
        np.testing.assert_array_equal(k_tile.view(np.uint16).reshape(256, 32)[:, 3],
                                      expected[start:start + 256].view(np.uint16))
        np.testing.assert_array_equal(v_tile.view(np.uint16).reshape(32, 256)[3],
                                      expected[start:start + 256].view(np.uint16))


@pytest.mark.parametrize(("row", "op"), rows("kv_store_f16"))
def test_kv_store_keeps_nan(row, op):
    tiles = np.zeros(32 * 8 * 2, np.uint8), np.zeros(32 * 8 * 2, np.uint8)
    _core.op_kv_store(row, np.full(8, np.nan, np.float32), np.full(8, -np.nan, np.float32), *tiles, 0)
    assert np.isnan(tiles[0].view(np.float16).reshape(8, 32)[:, 0]).all()
    assert np.isnan(tiles[1].view(np.float16).reshape(32, 8)[0]).all()


@pytest.mark.parametrize(("row", "op"), rows("kv_store_q8_0"))
@pytest.mark.parametrize("head_dim", [1, 5, 32, 40, 64, 96, 256])
def test_kv_store_q8_0_writes_codes_and_scales_of_one_slot(row, op, head_dim):
    k, v = random_floats(1, head_dim, 3), random_floats(2, head_dim, 1e-3)
    k[0], v[-1] = -50, 0
    blocks = -(-head_dim // 32)
    for slot in (0, 7, 31):
        tiles = [placed(np.full(_core.kv_tile_size("q8_0", head_dim), 5, np.uint8), 2) for _ in range(2)]
        _core.op_kv_store(row, placed(k, 1)[1], placed(v, 1)[1], tiles[0][1], tiles[1][1], slot)
        for x, (raw, tile), transposed in zip((k, v), tiles, (True, False), strict=True):
            codes, scales = quantise(x[None])
            expected = np.full(32 * head_dim, 5, np.int8).reshape((head_dim, 32) if transposed else (32, head_dim))
            expected[(slice(None), slot) if transposed else slot] = codes[0]
            expected_scales = np.full((blocks, 32), 0x0505, np.uint16).view(np.float16)
            expected_scales[:, slot] = scales[0]
            assert tile.tobytes() == expected.tobytes() + expected_scales.tobytes()
            assert_red_zone(raw, tile)


@pytest.mark.parametrize(("row", "op"), rows("kv_store_q8_0"))
@pytest.mark.parametrize(
    ("value", "scale", "code"),
    [(0.0, 0.0, 0), (1e-9, 0.0, 0), (np.nan, np.nan, 0), (-np.inf, np.nan, 0), (1e30, np.inf, 0), (-127.0, 1.0, -127),
     (127 * 2.0**-25 * 1.2, 2.0**-24, 76)],
)
def test_kv_store_q8_0_extremes(row, op, value, scale, code):
    x = np.zeros(32, np.float32)
    x[9] = value
    tiles = [np.zeros(_core.kv_tile_size("q8_0", 32), np.uint8) for _ in range(2)]
    _core.op_kv_store(row, x, x, *tiles, 4)
    for tile, at in zip(tiles, (9 * 32 + 4, 4 * 32 + 9), strict=True):
        assert tile[:1024].view(np.int8)[at] == code
        assert np.count_nonzero(tile[:1024]) == (code != 0)
        np.testing.assert_array_equal(tile[1024:].view(np.float16)[4], np.float16(scale))


@pytest.mark.parametrize("head_dim", [1, 32, 64, 80, 128])
def test_kv_tiles_of_q8_0_take_the_bytes_of_gguf(head_dim):
    assert _core.kv_tile_size("f16", head_dim) == 64 * head_dim
    assert _core.kv_tile_size("q8_0", head_dim) == 32 * (head_dim + 2 * -(-head_dim // 32))
