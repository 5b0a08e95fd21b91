"""Every attention row of the kernel table against float64 numpy, and row by row against itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollamacore import _core

TILE = 32
ROWS = [pytest.param(index, op.removeprefix("attention_"), id=symbol)
        for index, (op, _, symbol, _, _, runs) in enumerate(_core.kernel_rows())
        if op.startswith("attention_") and runs]
DTYPES = {"f16": np.float16, "f32": np.float32, "q8_0": np.int8}


def quantise(x):
    """Q8_0 of rows of x: codes, and the float16 scales (rows, blocks of 32)."""
    padded = np.pad(x.astype(np.float32), ((0, 0), (0, -x.shape[1] % 32))).reshape(len(x), -1, 32)
    with np.errstate(invalid="ignore", divide="ignore"):
        scales = (np.abs(padded).max(axis=2) * np.float32(1 / 127)).astype(np.float16)
        scales[~np.isfinite(padded).all(axis=2)] = np.nan
        inverse = np.where(scales > 0, np.float32(1) / scales.astype(np.float32), np.float32(0))
        codes = np.nan_to_num(np.clip(np.rint(padded * inverse[:, :, None]), -127, 127)).astype(np.int8)
    return codes.reshape(len(x), -1)[:, :x.shape[1]], scales


class Case:
    """Queries over one sequence whose tiles lie shuffled in a pool; slots never written hold NaN."""

    def __init__(self, kind, head_dim, ranges, *, seed=0, q_scale=1.0, v_scale=1.0, softcap=0.0, pad=0, alibi=False,
                 value_dim=0):
        rng = np.random.default_rng(seed)
        self.kind, self.head_dim, self.softcap = kind, head_dim, softcap
        self.slope = (2.0 ** -rng.uniform(0, 8, len(ranges))).astype(np.float32) if alibi else None
        self.position = rng.integers(0, max(b for _, b in ranges), len(ranges)).astype(np.int32) if alibi else None
        dtype = np.float16 if kind == "f16" else np.float32
        self.first = np.array([a for a, _ in ranges], np.int32)
        self.last = np.array([b for _, b in ranges], np.int32)
        n_keys, n_rows = int(self.last.max()), len(ranges)
        n_tiles = -(-n_keys // TILE)
        self.q = np.full((n_rows, head_dim + pad), np.nan, np.float32)
        self.q[:, :head_dim] = rng.standard_normal((n_rows, head_dim)) * q_scale / np.sqrt(head_dim)
        self.k = rng.standard_normal((n_keys, head_dim)).astype(dtype)
        self.v = (rng.standard_normal((n_keys, head_dim)) * v_scale).astype(dtype)
        self.table = rng.permutation(n_tiles).astype(np.int32)
        self.pad = pad
        self.value_dim = value_dim  # > 0: values are this much of their keys
        self.fill()
        if value_dim:
            self.v, self.v_pool = self.k[:, :value_dim], np.zeros_like(self.v_pool)

    def fill(self):
        """Lay k and v out in tiles; afterwards they are what can be read back."""
        lowest, n_tiles = int(self.first.min()), len(self.table)
        self.k[lowest:], k_rows, k_scales = self.stored(self.k[lowest:])
        self.v[lowest:], v_rows, v_scales = self.stored(self.v[lowest:])
        unused = np.nan if self.kind != "q8_0" else 99
        k_pool = np.full((n_tiles, self.head_dim, TILE), unused, DTYPES[self.kind])
        v_pool = np.full((n_tiles, TILE, self.head_dim), unused, DTYPES[self.kind])
        scale_pool = np.full((2, n_tiles, k_scales.shape[1], TILE), np.nan, np.float16)
        for i, position in enumerate(range(lowest, int(self.last.max()))):
            tile, slot = self.table[position // TILE], position % TILE
            k_pool[tile, :, slot], v_pool[tile, slot] = k_rows[i], v_rows[i]
            scale_pool[0, tile, :, slot], scale_pool[1, tile, :, slot] = k_scales[i], v_scales[i]
        self.k_pool, self.v_pool = (
            np.hstack([pool.reshape(n_tiles, -1).view(np.uint8), scale.reshape(n_tiles, -1).view(np.uint8)])
            for pool, scale in zip((k_pool, v_pool), scale_pool, strict=True)
        )

    def stored(self, x):
        """(what is read back, elements, scales) of rows; no scales but for Q8_0."""
        if self.kind != "q8_0":
            return x, x, np.empty((len(x), 0), np.float16)
        codes, scales = quantise(x)
        return codes * np.repeat(scales.astype(np.float32), 32, axis=1)[:, :x.shape[1]], codes, scales

    def run(self, row, keep=slice(None)):
        first, last, q = self.first[keep].copy(), self.last[keep].copy(), np.ascontiguousarray(self.q[keep])
        out = np.full((len(first) + 2, self.head_dim + self.pad), 77, np.float32)
        top, total = np.full((2, len(first)), np.nan, np.float32)
        scratch = np.full(_core.op_attention_scratch(self.head_dim) + 8, np.nan, np.float32)
        scratch[-7:] = 77
        table = self.table.copy()
        used = np.zeros(len(table), bool)
        for a, b in zip(first, last, strict=True):
            used[a // TILE:-(-b // TILE)] = True
        table[~used] = -1  # a tile that no row attends to does not exist
        slope, position = (None if x is None else x[keep].copy() for x in (self.slope, self.position))
        _core.op_attention(row, q, first, last, self.k_pool, self.v_pool, table, out[1:-1], top, total,
                           scratch[1:], self.head_dim, self.softcap, value_dim=self.value_dim, slope=slope,
                           position=position)
        assert (out[[0, -1]] == 77).all()
        assert (out[:, self.v.shape[1]:] == 77).all()
        assert (scratch[-7:] == 77).all()
        return out[1:-1, :self.v.shape[1]] / total[:, None]

    def reference(self):
        out = np.empty((len(self.first), self.v.shape[1]))
        for i, (a, b) in enumerate(zip(self.first, self.last, strict=True)):
            score = self.k[a:b].astype(np.float64) @ self.q[i, :self.head_dim].astype(np.float64)
            if self.softcap:
                score = self.softcap * np.tanh(score / self.softcap)
            if self.slope is not None:
                score -= float(self.slope[i]) * np.abs(np.arange(a, b) - self.position[i])
            weight = np.exp(score - score.max())
            out[i] = weight / weight.sum() @ self.v[a:b].astype(np.float64)
        return out

    def check(self, row, tolerance=1e-5):
        out = self.run(row)
        largest = np.abs(self.v.astype(float)).max()
        np.testing.assert_allclose(out, self.reference(), rtol=0, atol=tolerance * largest)
        return out


@pytest.mark.parametrize(("row", "kind"), ROWS)
@pytest.mark.parametrize("head_dim", [8, 16, 24, 40, 64, 72, 80, 96, 112, 128, 192, 256])
def test_attention_head_sizes(row, kind, head_dim):
    Case(kind, head_dim, [(0, 70)] * 3, seed=head_dim).check(row)


@pytest.mark.parametrize(("row", "kind"), ROWS)
@pytest.mark.parametrize("head_dim", [1, 4, 7, 20, 100])
def test_attention_head_sizes_off_the_vector_width(row, kind, head_dim):
    Case(kind, head_dim, [(0, 70), (3, 40)], seed=head_dim).check(row)


@pytest.mark.parametrize(("row", "kind"), ROWS)
@pytest.mark.parametrize(("head_dim", "value_dim"), [(576, 512), (96, 64), (48, 48), (40, 24), (20, 12), (7, 3)])
def test_attention_to_values_that_are_part_of_their_keys(row, kind, head_dim, value_dim):
    ranges = [(0, 70)] * 7 + [(5, 33), (40, 41)]
    for alibi in (False, True):
        case = Case(kind, head_dim, ranges, seed=head_dim, value_dim=value_dim, alibi=alibi)
        out = case.check(row)
        for i in (0, 7, 8):
            assert case.run(row, slice(i, i + 1))[0].tobytes() == out[i].tobytes()


@pytest.mark.parametrize(("row", "kind"), ROWS)
def test_attention_every_length_to_three_hundred(row, kind):
    for length in range(1, 301):
        Case(kind, 16, [(0, length)], seed=length).check(row)


@pytest.mark.parametrize(("row", "kind"), ROWS)
def test_attention_of_a_single_key_is_its_value(row, kind):
    for position in (0, 1, 31, 32, 63, 200):
        case = Case(kind, 64, [(position, position + 1)], seed=position, q_scale=30)
        np.testing.assert_array_equal(case.run(row)[0], case.v[position].astype(np.float32))


@pytest.mark.parametrize(("row", "kind"), ROWS)
@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 40])
def test_attention_row_counts(row, kind, n_rows):
    Case(kind, 64, [(0, 129)] * n_rows, seed=n_rows, pad=5).check(row)


@pytest.mark.parametrize(("row", "kind"), ROWS)
def test_attention_causal_chunk(row, kind):
    ranges = [(0, position + 1) for position in range(37, 137) for _ in range(3)]
    Case(kind, 64, ranges, seed=5).check(row)


@pytest.mark.parametrize(("row", "kind"), ROWS)
def test_attention_sliding_windows_that_start_inside_a_tile(row, kind):
    ranges = [(max(0, position - 49), position + 1) for position in range(150, 260)]
    Case(kind, 32, ranges, seed=6).check(row)


@pytest.mark.parametrize(("row", "kind"), ROWS)
def test_attention_gap_between_rows_is_never_read(row, kind):
    Case(kind, 32, [(3, 20), (330, 333)], seed=7).check(row)


@pytest.mark.parametrize(("row", "kind"), ROWS)
def test_attention_thousands_of_keys(row, kind):
    Case(kind, 64, [(0, 5000), (0, 4999), (1234, 4321)], seed=8, q_scale=4).check(row)


@pytest.mark.parametrize(("row", "kind"), ROWS)
@pytest.mark.parametrize("head_dim", [64, 128, 136])
def test_attention_many_rows_and_parts(row, kind, head_dim):
    case = Case(kind, head_dim, [(7 * i, 600 + i) for i in range(40)], seed=16)
    out = case.check(row)
    assert case.run(row, slice(30, 31))[0].tobytes() == out[30].tobytes()


@pytest.mark.parametrize(("row", "kind"), ROWS)
@pytest.mark.parametrize("softcap", [1.0, 30.0, 50.0])
def test_attention_softcap(row, kind, softcap):
    Case(kind, 64, [(0, 100), (5, 77)], seed=9, q_scale=40, softcap=softcap).check(row)


@pytest.mark.parametrize(("row", "kind"), ROWS)
@pytest.mark.parametrize("head_dim", [20, 64])
def test_attention_bias_by_distance(row, kind, head_dim):
    ranges = [(0, 300)] * 7 + [(40, 55), (120, 290), (0, 1)]
    Case(kind, head_dim, ranges, seed=15, q_scale=3, alibi=True).check(row)


@pytest.mark.parametrize(("row", "kind"), ROWS)
def test_attention_large_logits(row, kind):
    case = Case(kind, 16, [(0, 200)] * 2, seed=10)
    case.q *= 20_000
    best = [int(np.argmax(case.k.astype(np.float64) @ q[:16])) for q in case.q.astype(np.float64)]
    np.testing.assert_array_equal(case.run(row), case.v[best].astype(np.float32))


@pytest.mark.parametrize(("row", "kind"), ROWS)
@pytest.mark.parametrize("shift", [-3e4, 0.0, 3e4])
def test_attention_equal_scores_give_the_mean(row, kind, shift):
    case = Case(kind, 8, [(0, 77)], seed=11)
    case.k[:] = 1
    case.q[:] = shift
    case.fill()
    np.testing.assert_allclose(case.run(row)[0], case.v.astype(np.float64).mean(axis=0), rtol=0, atol=3e-6)


@pytest.mark.parametrize(("row", "kind"), ROWS)
def test_attention_score_that_only_grows(row, kind):
    case = Case(kind, 8, [(0, 300)], seed=12)
    case.k[:] = np.linspace(0, 100, 300)[:, None]
    case.q[:] = 1 / 8
    case.fill()
    case.check(row)


@pytest.mark.parametrize(("row", "kind"), ROWS)
def test_attention_masked_infinity_has_no_influence(row, kind):
    case = Case(kind, 16, [(10, 50), (0, 60)], seed=13)
    expected = case.run(row)[0]
    for position in (*range(10), *range(50, 60)):
        case.k[position], case.v[position] = -np.inf, np.inf
    case.fill()
    assert case.run(row)[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize(("row", "kind"), ROWS)
def test_attention_nan_query_shows(row, kind):
    case = Case(kind, 16, [(0, 50), (0, 50)], seed=14)
    clean = case.run(row)
    case.q[0, 3] = np.nan
    out = case.run(row)
    assert np.isnan(out[0]).all()
    assert out[1].tobytes() == clean[1].tobytes()


@pytest.mark.parametrize(("row", "kind"), ROWS)
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_attention_bits_of_a_row_do_not_depend_on_the_other_rows(row, kind, data):
    head_dim = data.draw(st.sampled_from([8, 24, 64, 80, 128]), "head_dim")
    start = st.integers(0, 100)
    pair = st.tuples(start, st.integers(1, 120)).map(lambda p: (p[0], p[0] + p[1]))
    runs = data.draw(st.lists(st.tuples(pair, st.integers(1, 20)), min_size=1, max_size=5), "equal ranges")
    case = Case(kind, head_dim, [r for r, count in runs for _ in range(count)],
                seed=data.draw(st.integers(0, 99)), softcap=data.draw(st.sampled_from([0.0, 20.0])),
                alibi=data.draw(st.booleans()))
    out = case.check(row)
    for i in range(len(case.first)):
        assert case.run(row, slice(i, i + 1))[0].tobytes() == out[i].tobytes()
    half = slice(0, len(case.first), 2)
    assert case.run(row, half).tobytes() == out[half].tobytes()
