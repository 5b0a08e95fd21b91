"""The formats: decoders against the gguf package, and the packed layout against the decoders."""

import gguf
import numpy as np
import pytest

from ollamacore import _core
from tests.kernels.weights import FORMATS, PACK_ROWS, WEIGHT_FILLS, decoded, packed, weights

ids = pytest.mark.parametrize("gguf_type", FORMATS, ids=[row[0] for row in FORMATS.values()])


def same_bits(a, b):
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


def row_length(gguf_type, n_blocks):
    block = FORMATS[gguf_type][1]
    return n_blocks * block if block > 1 else 13 * n_blocks


def test_table_holds_the_supported_formats():
    names = {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"}
    names |= {"Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS", "MXFP4", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S"}
    names |= {"IQ3_XXS", "IQ3_S", "TQ1_0", "TQ2_0"}
    assert {row[0] for row in FORMATS.values()} == names


@ids
def test_table_agrees_with_gguf(gguf_type):
    kind = gguf.GGMLQuantizationType(gguf_type)
    assert (kind.name, *gguf.GGML_QUANT_SIZES[kind]) == FORMATS[gguf_type][:3]


@ids
def test_packed_size_is_close_to_the_file(gguf_type):
    """Formats below 4 bits that are packed with 4 may take 4.6 bits a weight."""
    name, block, block_bytes, group_bytes, _ = FORMATS[gguf_type]
    widened = name.startswith(("IQ1", "IQ2", "IQ3", "TQ"))
    assert 8 * block_bytes <= group_bytes <= max(1.04 * 8 * block_bytes, widened * 4.6 * block)


@ids
@pytest.mark.parametrize("fill", WEIGHT_FILLS)
def test_dequantize_equals_gguf_decoder(gguf_type, fill):
    k = row_length(gguf_type, 3)
    data = weights(gguf_type, 20, k, fill)
    for row, expected in zip(data, decoded(gguf_type, data), strict=True):
        y = np.empty(k, np.float32)
        _core.dequantize(gguf_type, row, y)
        assert same_bits(y, expected)


@ids
@pytest.mark.parametrize("n_rows", [1, 7, 8, 9, 31])
@pytest.mark.parametrize("n_blocks", [1, 2, 5])
def test_unpack_row_equals_dequantize(gguf_type, n_rows, n_blocks):
    k = row_length(gguf_type, n_blocks)
    data = weights(gguf_type, n_rows, k, rng=np.random.default_rng(n_rows))
    matrix = packed(gguf_type, data, k)
    for other in range(len(PACK_ROWS[gguf_type])):
        assert np.array_equal(packed(gguf_type, data, k, other), matrix), "the layout is the same everywhere"
    for row in range(-(-n_rows // 8) * 8):
        y, expected = np.empty(k, np.float32), np.zeros(k, np.float32)
        _core.unpack_row(gguf_type, matrix, row, y)
        if row < n_rows:
            _core.dequantize(gguf_type, data[row], expected)
            assert same_bits(y, expected)
        else:
            assert not y.any(), "rows past the end are zero"


@ids
def test_pack_in_ranges_equals_whole(gguf_type):
    k = row_length(gguf_type, 2)
    data = weights(gguf_type, 31, k)
    out = np.full(_core.packed_bytes(gguf_type, 31, k), 0xA5, np.uint8)
    group, row = len(out) // 4, PACK_ROWS[gguf_type][-1]
    _core.run_pack(row, data.reshape(-1), 31, k, out, 1, 3)
    assert (out[:group] == 0xA5).all()
    assert (out[3 * group :] == 0xA5).all()
    _core.run_pack(row, data.reshape(-1), 31, k, out, 3, 4)
    _core.run_pack(row, data.reshape(-1), 31, k, out, 0, 1)
    assert np.array_equal(out, packed(gguf_type, data, k))


@ids
def test_nan_and_infinite_scales_are_decoded_as_they_are(gguf_type):
    k = row_length(gguf_type, 1)
    data = weights(gguf_type, 1, k)[0]
    for bits in (0x7E00, 0x7C00, 0xFC00):
        data[:] = np.resize(np.array([bits], "<u2").view(np.uint8), len(data))
        y, again = np.empty(k, np.float32), np.empty(k, np.float32)
        _core.dequantize(gguf_type, data, y)
        _core.unpack_row(gguf_type, packed(gguf_type, data[None], k), 0, again)
        assert np.array_equal(y, again, equal_nan=True)


def test_mxfp4_exponents_are_decoded():
    data = weights(39, 256, 32)
    data[:, 0] = np.arange(256)
    matrix, again = packed(39, data, 32), np.empty(32, np.float32)
    for row, expected in enumerate(decoded(39, data)):
        _core.unpack_row(39, matrix, row, again)
        assert same_bits(again, expected)


def test_unsupported_type_is_refused():
    with pytest.raises(ValueError, match="type 4 is not supported"):
        _core.packed_bytes(4, 8, 32)


def test_buffers_of_another_size_are_refused():
    with pytest.raises(ValueError, match="multiple of the block"):
        _core.packed_bytes(12, 8, 32)
    with pytest.raises(ValueError, match="not one row"):
        _core.dequantize(2, np.zeros(18, np.uint8), np.empty(33, np.float32))
    with pytest.raises(ValueError, match="out has another size"):
        _core.run_pack(PACK_ROWS[2][0], np.zeros(18, np.uint8), 1, 32, np.zeros(143, np.uint8))
