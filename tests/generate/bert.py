"""Tiny BERT models with random weights, and their exact hidden states in float64 from the paper (Devlin et al., 2018).

The reference attends to whole texts one by one, with nothing packed and nothing fused.
"""

import math
from os import PathLike
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

from tests.generate.minilm import SPECIAL, write_vocabulary
from tests.generate.tiny import noise

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?"
VOCABULARY = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), "the", "token", "##izer", "run", "##ning"]


def tiny_bert(
    path: str | PathLike[str],
    *,
    tensor_type: str = "F32",
    pooling: int = 1,
    n_layer: int = 3,
    n_embd: int = 128,
    n_head: int = 4,
    n_ff: int = 192,
    context: int = 512,
    labels: int = 0,
    seed: int = 1,
) -> Path:
    """Write a model and return its path; `tensor_type` is that of the matrices of the blocks and of the embedding.

    With `labels` it has a head that scores pairs of texts.
    """
    writer = gguf.GGUFWriter(Path(path), "bert")
    writer.add_name("tiny bert")
    for add, value in (
        (writer.add_block_count, n_layer),
        (writer.add_context_length, context),
        (writer.add_embedding_length, n_embd),
        (writer.add_feed_forward_length, n_ff),
        (writer.add_head_count, n_head),
        (writer.add_layer_norm_eps, 1e-12),
        (writer.add_causal_attention, False),
        (writer.add_pooling_type, gguf.PoolingType(pooling)),
    ):
        add(value)
    write_vocabulary(writer, VOCABULARY)

    def add(name: str, shape: tuple[int, ...], center: float, spread: float, kind: str = "F32") -> None:
        values = np.float32(center) + np.float32(spread) * noise(seed, name, shape)
        raw = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, quantize(values, raw), raw_dtype=raw)

    def add_norm(name: str) -> None:
        add(f"{name}.weight", (n_embd,), 1.0, 0.3)
        add(f"{name}.bias", (n_embd,), 0.0, 0.3)

    def add_linear(name: str, rows: int, columns: int) -> None:
        add(f"{name}.weight", (rows, columns), 0.0, 1.5 * (3 / columns) ** 0.5, tensor_type)
        add(f"{name}.bias", (rows,), 0.0, 0.5)

    add("token_embd.weight", (len(VOCABULARY), n_embd), 0.0, 1.0, tensor_type)
    add("position_embd.weight", (context, n_embd), 0.0, 1.0)
    add("token_types.weight", (2, n_embd), 0.0, 1.0)
    add_norm("token_embd_norm")
    for layer in range(n_layer):
        block = f"blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add_linear(block + name, n_embd, n_embd)
        add_linear(f"{block}ffn_up", n_ff, n_embd)
        add_linear(f"{block}ffn_down", n_embd, n_ff)
        add_norm(f"{block}attn_output_norm")
        add_norm(f"{block}layer_output_norm")
    if labels:
        add_linear("cls", n_embd, n_embd)
        add_linear("cls.output", labels, n_embd)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


class BertReference:
    """A BERT file whose hidden states can be computed exactly."""

    def __init__(self, path: str | PathLike[str]) -> None:
        reader = gguf.GGUFReader(path)
        self.weights = {
            tensor.name: dequantize(tensor.data, tensor.tensor_type).astype(np.float64) for tensor in reader.tensors
        }
        self.n_layer = reader.fields["bert.block_count"].contents()
        self.n_head = reader.fields["bert.attention.head_count"].contents()
        self.eps = reader.fields["bert.attention.layer_norm_epsilon"].contents()

    def hidden(self, tokens) -> np.ndarray:
        """(tokens, width)"""
        weights = self.weights
        x = weights["token_embd.weight"][tokens] + weights["position_embd.weight"][: len(tokens)]
        x = self._norm(x + weights["token_types.weight"][0], "token_embd_norm")
        for layer in range(self.n_layer):
            block = f"blk.{layer}."
            x = self._norm(x + self._attention(x, block), f"{block}attn_output_norm")
            raised = _gelu(self._linear(x, f"{block}ffn_up"))
            x = self._norm(x + self._linear(raised, f"{block}ffn_down"), f"{block}layer_output_norm")
        return x

    def relevance(self, tokens) -> float:
        """The score of a pair, by the head."""
        pooled = np.tanh(self._linear(self.hidden(tokens)[0], "cls"))
        return 1 / (1 + np.exp(-self._linear(pooled, "cls.output")[0]))

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(axis=-1, keepdims=True)
        scaled = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.eps)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def _attention(self, x: np.ndarray, block: str) -> np.ndarray:
        q, k, v = (
            self._linear(x, f"{block}attn_{name}").reshape(len(x), self.n_head, -1) for name in "qkv"
        )
        scores = np.einsum("ihd,jhd->hij", q, k) / q.shape[-1] ** 0.5
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return self._linear(np.einsum("hij,jhd->ihd", weights, v).reshape(len(x), -1), f"{block}attn_output")


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))
