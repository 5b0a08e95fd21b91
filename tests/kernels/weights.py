"""Weight matrices in every GGUF format and activations, random or extreme, for the tests of this folder."""

import gguf
import numpy as np

from ollamacore import _core

#: GGUF type id -> (name, block, block_bytes, group_bytes, needs_f32)
FORMATS = {row[0]: row[1:] for row in _core.format_rows()}
#: GGUF type id -> rows of the kernel table that pack it and can run here, in rising preference
PACK_ROWS: dict[int, list[int]] = {gguf_type: [] for gguf_type in FORMATS}
for _index, (_op, _, _, _type, _, _runs) in enumerate(_core.kernel_rows()):
    if _op == "pack" and _runs:
        PACK_ROWS[_type].append(_index)
WEIGHT_FILLS = ("random", "zero", "max", "min", "alternating", "subnormal", "one_block")
ACTIVATION_FILLS = ("random", "zero", "plus", "minus", "alternating", "one_hot")

_F16 = ("d", "<f2")
#: fields of a GGUF block, in file order; d, m and e are scales, minima and exponents, all others are codes
BLOCKS = {
    "Q4_0": [_F16, ("qs", "u1", 16)],
    "Q4_1": [_F16, ("m", "<f2"), ("qs", "u1", 16)],
    "Q5_0": [_F16, ("qs", "u1", 20)],
    "Q5_1": [_F16, ("m", "<f2"), ("qs", "u1", 20)],
    "Q8_0": [_F16, ("qs", "i1", 32)],
    "Q2_K": [("scales", "u1", 16), ("qs", "u1", 64), _F16, ("m", "<f2")],
    "Q3_K": [("qs", "u1", 96), ("scales", "u1", 12), _F16],
    "Q4_K": [_F16, ("m", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)],
    "Q5_K": [_F16, ("m", "<f2"), ("scales", "u1", 12), ("qs", "u1", 160)],
    "Q6_K": [("qs", "u1", 192), ("scales", "i1", 16), _F16],
    "IQ1_S": [_F16, ("qs", "u1", 48)],
    "IQ1_M": [("qs", "u1", 48), ("top", "<u2", 4)],  # d is in the top nibbles
    "IQ2_XXS": [_F16, ("qs", "u1", 64)],
    "IQ2_XS": [_F16, ("qs", "u1", 72)],
    "IQ2_S": [_F16, ("qs", "u1", 80)],
    "IQ3_XXS": [_F16, ("qs", "u1", 96)],
    "IQ3_S": [_F16, ("qs", "u1", 108)],
    "TQ1_0": [("qs", "u1", 52), _F16],
    "TQ2_0": [("qs", "u1", 64), _F16],
    "IQ4_NL": [_F16, ("qs", "u1", 16)],
    "MXFP4": [("e", "u1"), ("qs", "u1", 16)],
    "IQ4_XS": [_F16, ("scales", "u1", 6), ("qs", "u1", 128)],
}


def _float_weights(name, shape, fill, rng):
    """F32, F16 and BF16 matrices as bytes."""
    values = {
        "random": rng.standard_normal(shape),
        "zero": np.zeros(shape),
        "max": np.full(shape, 60000.0),
        "min": np.full(shape, -60000.0),
        "alternating": np.where(np.arange(shape[1]) % 2, 60000.0, -60000.0) * np.ones(shape),
        "subnormal": np.full(shape, 2.0**-24 if name == "F16" else 2.0**-130),
        "one_block": np.where(np.arange(shape[1]) == shape[1] // 2, 3.0, 0.0) * np.ones(shape),
    }[fill].astype(np.float32)
    if name == "F16":
        return values.astype(np.float16)
    return gguf.quantize(values, gguf.GGMLQuantizationType.BF16) if name == "BF16" else values


def _codes(blocks, fill, rng):
    """Fill the code fields in place."""
    for field in blocks.dtype.names:
        part = blocks[field]
        if field in ("d", "m", "e"):
            continue
        low, high = np.iinfo(part.dtype).min, np.iinfo(part.dtype).max
        if fill in ("random", "subnormal", "one_block"):
            part[...] = rng.integers(low, high, part.shape, endpoint=True)
        elif fill == "alternating":
            part[...] = np.where(np.arange(part.shape[-1]) % 2, high, low)
        else:
            part[...] = {"zero": 0, "max": high, "min": low}[fill]


def weights(gguf_type, n_rows, k, fill="random", rng=None, unit=False):
    """Return a (n_rows, row bytes) matrix; `unit` makes every scale 1 and every minimum -1, 0 or 1."""
    rng = rng or np.random.default_rng(0)
    name, block = FORMATS[gguf_type][:2]
    if name not in BLOCKS:
        return _float_weights(name, (n_rows, k), fill, rng).view(np.uint8).reshape(n_rows, -1)
    blocks = np.zeros((n_rows, k // block), BLOCKS[name])
    _codes(blocks, fill, rng)
    if "e" in blocks.dtype.names:  # 2 ** (e - 128)
        constant = {"zero": 0, "max": 128, "min": 128, "alternating": 128, "subnormal": 0}
        values = 128 if unit else rng.integers(120, 132, blocks.shape)
        blocks["e"] = constant.get(fill, values)
    for field in ("d", "m"):
        if unit:
            values = 1 if field == "d" else rng.integers(-1, 1, blocks.shape, endpoint=True)
        else:
            values = rng.standard_normal(blocks.shape) * 0.1
        constant = {"zero": 0, "max": 1, "min": 1, "alternating": 1, "subnormal": 2.0**-24}
        _set_scale(blocks, field, np.broadcast_to(constant.get(fill, values), blocks.shape))
    if fill == "one_block":
        blocks[:, np.arange(blocks.shape[1]) != blocks.shape[1] // 2] = np.zeros((), blocks.dtype)
    return blocks.view(np.uint8).reshape(n_rows, -1)


def _set_scale(blocks, field, values):
    """Write scales (d) or minima (m) where the format has them."""
    if field in blocks.dtype.names:
        blocks[field] = values
    elif field == "d" and "top" in blocks.dtype.names:
        bits = values.astype(np.float16).view(np.uint16)[..., None]
        blocks["top"] = blocks["top"] & 0xFFF | (bits >> np.arange(0, 16, 4, dtype=np.uint16) << 12)


def set_first_scale(gguf_type, row, value):
    """Give the first block of a row (of a float format: the first element) this scale."""
    name, _, block_bytes = FORMATS[gguf_type][:3]
    value = np.array([value], np.float32)
    if name in BLOCKS:
        _set_scale(row[:block_bytes].view(BLOCKS[name]), "d", value)
    elif name == "BF16":
        row[:2] = value.view(np.uint8)[2:]
    else:
        row[:block_bytes] = value.astype(np.float16 if name == "F16" else np.float32).view(np.uint8)


def decoded(gguf_type, data):
    """Decode rows by the gguf package."""
    with np.errstate(over="ignore"):
        return gguf.dequantize(data, gguf.GGMLQuantizationType(gguf_type)).astype(np.float32)


def packed(gguf_type, data, k, row=-1):
    """Pack a matrix through the library, by one of PACK_ROWS."""
    out = np.zeros(_core.packed_bytes(gguf_type, len(data), k), np.uint8)
    _core.run_pack(PACK_ROWS[gguf_type][row], np.ascontiguousarray(data).reshape(-1), len(data), k, out)
    return out


class Activations:
    """n columns of k values: quantised as kernels.h says, and `f32` as they were."""

    def __init__(self, n, k, fill="random", rng=None, unit=False):
        rng = rng or np.random.default_rng(1)
        self.n, self.k = n, k
        codes = {
            "random": rng.integers(-127, 127, (n, k), endpoint=True),
            "zero": np.zeros((n, k)),
            "plus": np.full((n, k), 127),
            "minus": np.full((n, k), -127),
            "alternating": np.where(np.arange(k) % 2, 127, -127) * np.ones((n, k)),
            "one_hot": np.where(np.arange(k) == k // 2, 127, 0) * np.ones((n, k)),
        }[fill]
        n_blocks = k // 32 * 2
        self.codes = codes.astype(np.int8)
        scale = np.ones((n, n_blocks)) if unit else rng.uniform(0.001, 0.1, (n, n_blocks))
        self.scale = scale.astype(np.float32)
        blocks = self.codes[:, : 16 * n_blocks].reshape(n, n_blocks, 16)
        self.values = (blocks * self.scale[:, :, None].astype(np.float64)).reshape(n, -1)
        self.sum = self.values.reshape(n, n_blocks // 2, 32).sum(-1).astype(np.float32)
        self.f32 = (self.codes * np.float32(0.01)).astype(np.float32)

    def read_by(self, gguf_type):
        """Return the values that a matmul of this format multiplies, as float64."""
        return self.f32.astype(np.float64) if FORMATS[gguf_type][4] else self.values

    def column(self, c):
        """Return the same column alone."""
        one = object.__new__(Activations)
        one.n, one.k = 1, self.k
        for name in ("codes", "scale", "sum", "values", "f32"):
            setattr(one, name, np.ascontiguousarray(getattr(self, name)[c : c + 1]))
        return one
