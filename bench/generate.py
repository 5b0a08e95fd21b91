"""Models of any size with random weights in any format: Llama-shaped files whose speed is that of real ones.

    python -m bench.generate OUT.gguf --type Q4_K [--layers 6] [--width 2048] [--heads 32] [--kv-heads 8]
                                      [--ff 5632] [--vocab 32000] [--head-type Q6_K]

The codes of a block are random bytes, which are valid in every format, and its scale is a constant that gives
weights of mean 0 and a spread of 1 / sqrt(k): sums stay finite and attention has something to do. What such a
model says means nothing.
"""

import argparse
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import gguf
import numpy as np

from tests.generate.vocabulary import Vocabulary
from tests.kernels.weights import BLOCKS

#: minimum over scale that makes the mean of random codes 0
CENTERED = {"Q4_1": -7.5, "Q5_1": -15.5, "Q2_K": 1.5, "Q4_K": 7.5, "Q5_K": 15.5}
#: rows that are made at a time
CHUNK = 4096
Tensor = tuple[str, tuple[int, ...], str]


def _blocks(rng: np.random.Generator, tensor_type: str, count: int, scale: float) -> np.ndarray:
    """Blocks with random codes and the same scale."""
    layout = np.dtype(BLOCKS[tensor_type])
    blocks = rng.integers(0, 2**64, -(-count * layout.itemsize // 8), np.uint64).view(np.uint8)
    blocks = blocks[: count * layout.itemsize].view(layout)
    if "d" in (layout.names or ()):
        blocks["d"] = scale
    elif "top" in (layout.names or ()):
        bits = int(np.float16(scale).view(np.uint16))
        blocks["top"] = blocks["top"] & 0xFFF | [(bits >> shift & 15) << 12 for shift in (0, 4, 8, 12)]
    else:
        blocks["e"] = 128 + round(np.log2(scale))
    if tensor_type in CENTERED:
        blocks["m"] = scale * CENTERED[tensor_type]
    return blocks.view(np.uint8)


def _spread(tensor_type: str) -> float:
    """Standard deviation of the weights of blocks with scale 1."""
    kind = gguf.GGMLQuantizationType[tensor_type]
    blocks = _blocks(np.random.default_rng(0), tensor_type, 1024, 1.0)
    return float(gguf.dequantize(blocks, kind).std())


def random_rows(rng: np.random.Generator, tensor_type: str, rows: int, k: int) -> np.ndarray:
    """Some rows of a matrix, as bytes of the file."""
    kind = gguf.GGMLQuantizationType[tensor_type]
    if tensor_type in BLOCKS:
        block = gguf.GGML_QUANT_SIZES[kind][0]
        scale = 1 / (k**0.5 * _spread(tensor_type))
        return _blocks(rng, tensor_type, rows * k // block, scale).reshape(rows, -1)
    values = rng.standard_normal((rows, k), np.float32) / np.float32(k**0.5)
    return gguf.quantize(values, kind).view(np.uint8).reshape(rows, -1)


def _tensors(layers: int, width: int, kv_width: int, ff: int, vocab: int, types: tuple[str, str]) -> Iterator[Tensor]:
    """Name, shape and format of every tensor. The head is the embedding."""
    yield "token_embd.weight", (vocab, width), types[1]
    yield "output_norm.weight", (width,), "F32"
    for layer in range(layers):
        for name, rows, k in (
            ("attn_q", width, width), ("attn_k", kv_width, width), ("attn_v", kv_width, width),
            ("attn_output", width, width),
            ("ffn_gate", ff, width), ("ffn_up", ff, width), ("ffn_down", width, ff),
        ):  # fmt: skip
            yield f"blk.{layer}.{name}.weight", (rows, k), types[0]
        yield f"blk.{layer}.attn_norm.weight", (width,), "F32"
        yield f"blk.{layer}.ffn_norm.weight", (width,), "F32"


def write_model(
    path: str | PathLike[str],
    *,
    layers: int = 6,
    width: int = 2048,
    heads: int = 32,
    kv_heads: int = 8,
    ff: int = 5632,
    vocab: int = 32000,
    tensor_type: str = "Q4_K",
    head_type: str | None = None,
    seed: int = 1,
) -> Path:
    """Write a model and return its path. `head_type` is the format of the embedding, which is also the head."""
    writer = gguf.GGUFWriter(Path(path), "llama")
    writer.add_name(f"random {tensor_type}, {layers} layers of {width}")
    writer.add_context_length(8192)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ff)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_rope_dimension_count(width // heads)
    vocabulary = Vocabulary("gpt2")
    while len(vocabulary.texts) < vocab:
        vocabulary.piece(f" w{len(vocabulary.texts)}")
    vocabulary.write(writer)
    types = (tensor_type, head_type or tensor_type)
    tensors = list(_tensors(layers, width, width // heads * kv_heads, ff, vocab, types))
    for name, shape, kind in tensors:
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        n_bytes = int(np.prod(shape)) // block * size
        writer.add_tensor_info(name, shape, np.dtype(np.float32), n_bytes, gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(seed)
    for _, shape, kind in tensors:
        writer.write_tensor_data(_tensor(rng, shape, kind))
    writer.close()
    return Path(path)


def _tensor(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """The bytes of one tensor: norms are ones, matrices random."""
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    rows, k = shape
    return np.concatenate([random_rows(rng, kind, min(CHUNK, rows - at), k) for at in range(0, rows, CHUNK)])


def main() -> None:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.generate", description=__doc__, formatter_class=raw)
    parser.add_argument("path", type=Path, metavar="OUT.gguf")
    parser.add_argument("--type", dest="tensor_type", default="Q4_K")
    parser.add_argument("--head-type")
    for name, default in (
        ("layers", 6),
        ("width", 2048),
        ("heads", 32),
        ("kv-heads", 8),
        ("ff", 5632),
        ("vocab", 32000),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    write_model(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
