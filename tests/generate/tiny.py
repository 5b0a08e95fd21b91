"""Tiny models with random weights: all parts of an architecture in a file of some 100 KB to 5 MB.

Weights come from an integer hash of (seed, tensor, index), so a file is the same everywhere. They are scaled so that
every layer changes the result and the logits spread over several units. numpy_reference.py computes the exact answer.

    path = tiny_model(tmp_path / "m.gguf", "gemma3", tensor_type="Q8_0")
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from zlib import crc32

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

from tests.generate.vocabulary import Vocabulary


@dataclass(frozen=True)
class Shape:
    """Everything that can be chosen about a tiny model."""

    n_layer: int = 3
    n_embd: int = 128
    n_head: int = 4
    n_kv_head: int = 2
    head_dim: int = 32
    n_ff: int = 192
    n_vocab: int = 384
    tied: bool = False
    context: int = 512
    rope_base: float = 10000.0
    eps: float = 1e-5
    window: int = 0


SHAPES = {
    "llama": Shape(tied=True),
    "qwen2": Shape(rope_base=1e6, eps=1e-6),
    # Seven layers: five local ones, a global one, a local one. The heads are wider than n_embd / n_head.
    "gemma3": Shape(n_layer=7, n_head=2, n_kv_head=1, head_dim=96, tied=True, rope_base=1e6, eps=1e-6, window=16),
}


def noise(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [-1, 1) that depend on nothing but the arguments: a 32-bit mix of the index."""
    mixed = np.arange(np.prod(shape), dtype=np.uint32)
    mixed = mixed * np.uint32(0x9E3779B9) + np.uint32((seed * 0x85EBCA6B + crc32(name.encode())) & 0xFFFFFFFF)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    return (mixed.astype(np.float64) / 2**31 - 1.0).reshape(shape).astype(np.float32)


def tiny_model(
    path: str | PathLike[str],
    architecture: str = "llama",
    *,
    tensor_type: str = "F32",
    stays_float: Callable[[str], bool] = lambda name: False,
    seed: int = 1,
    **changes: object,
) -> Path:
    """Write a model and return its path. `tensor_type` is that of the matrices; norms and biases are F32.

    So are matrices that `stays_float` names. `changes` replace fields of the architecture's Shape.
    """
    shape = replace(SHAPES[architecture], **changes)
    writer = gguf.GGUFWriter(Path(path), architecture)
    _write_metadata(writer, architecture, shape)
    write_tensors(writer, _tensors(architecture, shape, seed), tensor_type, stays_float)
    return Path(path)


def rounded(
    tensors: Mapping[str, np.ndarray], tensor_type: str, stays_float: Callable[[str], bool]
) -> dict[str, np.ndarray]:
    """The tensors with what `write_tensors` would quantise rounded to the values of a type."""
    kind = gguf.GGMLQuantizationType[tensor_type]
    return {
        name: values if values.ndim == 1 or stays_float(name) else dequantize(quantize(values, kind), kind)
        for name, values in tensors.items()
    }


def write_tensors(
    writer: gguf.GGUFWriter,
    tensors: Mapping[str, np.ndarray],
    tensor_type: str,
    stays_float: Callable[[str], bool] = lambda name: False,
) -> None:
    """Add the tensors and end the file. Those of one dimension, and those that `stays_float` names, are F32."""
    kind = gguf.GGMLQuantizationType[tensor_type]
    for name, values in tensors.items():
        if values.ndim == 1 or stays_float(name):
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_metadata(writer: gguf.GGUFWriter, architecture: str, shape: Shape) -> None:
    writer.add_name(f"tiny {architecture}")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_kv_head)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_rope_freq_base(shape.rope_base)
    if architecture != "qwen2":
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
    if architecture == "llama":
        writer.add_rope_dimension_count(shape.head_dim)
    if shape.window:
        writer.add_sliding_window(shape.window)
    vocabulary = Vocabulary("llama" if architecture == "gemma3" else "gpt2")
    while len(vocabulary.texts) < shape.n_vocab:
        vocabulary.piece(f" w{len(vocabulary.texts)}")
    vocabulary.write(writer)


class Weights:
    """The tensors of a model under construction, as rows of outputs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.found: dict[str, np.ndarray] = {}

    def matrix(self, name: str, rows: int, columns: int, spread: float) -> None:
        """Products with a normed vector have about the standard deviation `spread`."""
        scale = np.float32(spread * (3 / columns) ** 0.5)
        self.found[f"{name}.weight"] = noise(self.seed, name, (rows, columns)) * scale

    def vector(self, name: str, size: int, center: float, spread: float) -> None:
        self.found[name] = np.float32(center) + np.float32(spread) * noise(self.seed, name, (size,))


def _tensors(architecture: str, shape: Shape, seed: int) -> dict[str, np.ndarray]:
    weights = Weights(seed)
    # A tied head favours the token that was just read; weak embeddings keep that from deciding everything.
    gemma = architecture == "gemma3"
    weights.matrix("token_embd", shape.n_vocab, shape.n_embd, 1.0 if gemma else 3.0)
    if not shape.tied:
        weights.matrix("output", shape.n_vocab, shape.n_embd, 3.0)
    weights.vector("output_norm.weight", shape.n_embd, 3.0 if gemma else 1.0, 0.3)
    for layer in range(shape.n_layer):
        _add_layer(weights, architecture, shape, f"blk.{layer}.")
    return weights.found


def _add_layer(weights: Weights, architecture: str, shape: Shape, block: str) -> None:
    query, keys, width = shape.n_head * shape.head_dim, shape.n_kv_head * shape.head_dim, shape.n_embd
    for name, rows, columns in (
        ("attn_q", query, width), ("attn_k", keys, width), ("attn_v", keys, width), ("attn_output", width, query),
        ("ffn_gate", shape.n_ff, width), ("ffn_up", shape.n_ff, width), ("ffn_down", width, shape.n_ff),
    ):  # fmt: skip
        weights.matrix(block + name, rows, columns, 1.5)
    norms = {"attn_norm": width, "ffn_norm": width}
    if architecture == "gemma3":
        norms |= {"post_attention_norm": width, "post_ffw_norm": width}
        norms |= {"attn_q_norm": shape.head_dim, "attn_k_norm": shape.head_dim}
    for name, size in norms.items():
        weights.vector(f"{block}{name}.weight", size, 1.0, 0.3)
    if architecture == "qwen2":
        for name, size in (("attn_q", query), ("attn_k", keys), ("attn_v", keys)):
            weights.vector(f"{block}{name}.bias", size, 0.0, 0.5)
