"""The forward pass of llama, qwen2 and gemma3 in float64, written from the papers and model cards: the oracle.

It reads the file with the gguf package (dequantised weights, so a quantised file is exact too) and computes full
attention over all positions with masks, nothing cached, nothing fused.

Checked once against llama.cpp (llama-cpp-python 0.3.36, F32 cache, no flash attention) on 48 positions of tiny.py's
F32 models: the largest difference of a logit was 2e-5 for llama (also with rope factors) and qwen2, and 8e-3 for
gemma3, whose GELU llama.cpp reads from a table of halves.
"""

from os import PathLike

import gguf
import numpy as np
from gguf.quants import dequantize

Array = np.ndarray


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def rotate(x: Array, frequencies: Array, halves: bool) -> Array:
    """Rotary position embedding of (positions, heads, width): pairs are (i, i + width/2) or (2i, 2i + 1)."""
    angle = np.arange(len(x))[:, None, None] * frequencies
    cos, sin = np.cos(angle), np.sin(angle)
    n = len(frequencies)
    first, second = (x[..., :n], x[..., n:]) if halves else (x[..., 0::2], x[..., 1::2])
    turned = first * cos - second * sin, first * sin + second * cos
    return np.concatenate(turned, -1) if halves else np.stack(turned, -1).reshape(x.shape)


class Reference:
    """A model file whose logits can be computed exactly."""

    def __init__(self, path: str | PathLike[str]) -> None:
        reader = gguf.GGUFReader(path)
        self._fields = reader.fields
        self.architecture: str = self._fields["general.architecture"].contents()
        self.weights = {
            tensor.name: dequantize(tensor.data, tensor.tensor_type).astype(np.float64) for tensor in reader.tensors
        }
        self.eps = self.get("attention.layer_norm_rms_epsilon")
        self.n_head = self.get("attention.head_count")
        self.n_kv_head = self.get("attention.head_count_kv", self.n_head)
        width = self.weights["token_embd.weight"].shape[1]
        self.head_dim = self.get("attention.key_length", width // self.n_head)
        self.gemma = self.architecture == "gemma3"
        self.embedding_scale = width**0.5 if self.gemma else 1.0

    def get(self, key: str, default=None):
        """A value of the architecture's metadata."""
        field = self._fields.get(f"{self.architecture}.{key}")
        return default if field is None else field.contents()

    def logits(self, tokens: list[int]) -> Array:
        """(positions, vocabulary)"""
        x = self.weights["token_embd.weight"][tokens] * self.embedding_scale
        for layer in range(self.get("block_count")):
            x = x + self._after("post_attention_norm", layer, self._attention(x, layer))
            x = x + self._after("post_ffw_norm", layer, self._feed_forward(x, layer))
        x = rms_norm(x, self.weights["output_norm.weight"], self.eps)
        return x @ self.weights.get("output.weight", self.weights["token_embd.weight"]).T

    def _linear(self, x: Array, layer: int, name: str) -> Array:
        weight = self.weights[f"blk.{layer}.{name}.weight"]
        return x @ weight.T + self.weights.get(f"blk.{layer}.{name}.bias", 0.0)

    def _norm(self, x: Array, layer: int, name: str) -> Array:
        return rms_norm(x, self.weights[f"blk.{layer}.{name}.weight"], self.eps)

    def _after(self, name: str, layer: int, x: Array) -> Array:
        return self._norm(x, layer, name) if self.gemma else x

    def _is_local(self, layer: int) -> bool:
        return self.gemma and (layer + 1) % 6 != 0

    def _frequencies(self, layer: int) -> Array:
        base = 10000.0 if self._is_local(layer) else self.get("rope.freq_base", 10000.0)
        return base ** (-np.arange(0, self.head_dim, 2) / self.head_dim)

    def _mask(self, count: int, layer: int) -> Array:
        distance = np.arange(count)[:, None] - np.arange(count)[None, :]
        window = self.get("attention.sliding_window", 0) if self._is_local(layer) else 0
        return (distance < 0) | ((distance >= window) if window else False)

    def _attention(self, x: Array, layer: int) -> Array:
        x = self._norm(x, layer, "attn_norm")
        q = self._linear(x, layer, "attn_q").reshape(len(x), self.n_head, self.head_dim)
        k = self._linear(x, layer, "attn_k").reshape(len(x), self.n_kv_head, self.head_dim)
        v = self._linear(x, layer, "attn_v").reshape(len(x), self.n_kv_head, self.head_dim)
        if self.gemma:
            q, k = self._norm(q, layer, "attn_q_norm"), self._norm(k, layer, "attn_k_norm")
        halves = self.architecture != "llama"
        q, k = (rotate(part, self._frequencies(layer), halves) for part in (q, k))
        shared = self.n_head // self.n_kv_head
        k, v = k.repeat(shared, axis=1), v.repeat(shared, axis=1)
        scores = np.einsum("ihd,jhd->hij", q, k) / self.head_dim**0.5
        weights = softmax(np.where(self._mask(len(x), layer), -np.inf, scores))
        return self._linear(np.einsum("hij,jhd->ihd", weights, v).reshape(len(x), -1), layer, "attn_output")

    def _feed_forward(self, x: Array, layer: int) -> Array:
        x = self._norm(x, layer, "ffn_norm")
        gate = (gelu_tanh if self.gemma else silu)(self._linear(x, layer, "ffn_gate"))
        return self._linear(gate * self._linear(x, layer, "ffn_up"), layer, "ffn_down")
