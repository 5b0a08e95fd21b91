"""Hyper-parameters of a decoder, read from GGUF metadata under `<architecture>.`, with their ranges checked."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ollamacore.errors import InvalidFileError, UnsupportedModelError
from ollamacore.gguf import GGUFFile

_REQUIRED = object()


class Metadata:
    """Typed, range-checked reads of one architecture's keys."""

    def __init__(self, file: GGUFFile, context: int = 4096) -> None:
        self.file = file
        self.context = context  # tokens of the longest context that is wanted
        self.architecture: str = file.get("general.architecture", str)
        self.keys_read: set[str] = set()
        self.tensors_read: set[str] = set()  # as floats, beside those of the plan

    def _key(self, key: str) -> str:
        """The full name of a key that is read."""
        full = f"{self.architecture}.{key}"
        self.keys_read.add(full)
        return full

    def has(self, key: str) -> bool:
        """Whether the file has `<architecture>.<key>`."""
        return f"{self.architecture}.{key}" in self.file.metadata

    def integer(self, key: str, low: int, high: int, default: Any = _REQUIRED) -> int:
        """`<architecture>.<key>` as an integer in [low, high]."""
        full = self._key(key)
        value = self.file.get(full, int) if default is _REQUIRED else self.file.get(full, int, default)
        if not low <= value <= high:
            raise InvalidFileError(f"metadata value {full!r} is {value}, outside {low} to {high}")
        return int(value)

    def number(self, key: str, low: float, high: float, default: Any = _REQUIRED) -> float:
        """`<architecture>.<key>` as a float in [low, high]."""
        full = self._key(key)
        value = self.file.get(full, float) if default is _REQUIRED else self.file.get(full, float, default)
        if not low <= value <= high:
            raise InvalidFileError(f"metadata value {full!r} is {value}, outside {low} to {high}")
        return float(value)

    def integers(self, key: str, n: int, low: int, high: int, default: Any = _REQUIRED) -> list[int]:
        """`<architecture>.<key>` of n layers, each in [low, high]; the file may have one value for all."""
        full = self._key(key)
        values = self.file.metadata.get(full)
        if not isinstance(values, np.ndarray):
            return [self.integer(key, low, high, default)] * n
        if values.dtype.kind not in "iu" or len(values) != n:
            raise InvalidFileError(f"metadata value {full!r} has not {n} integers")
        if not all(low <= value <= high for value in values):
            raise InvalidFileError(f"metadata value {full!r} is not within {low} to {high}")
        return [int(value) for value in values]

    def flag(self, key: str, default: bool) -> bool:
        """`<architecture>.<key>` as a boolean."""
        return bool(self.file.get(self._key(key), bool, default))

    def text(self, key: str, default: str) -> str:
        """`<architecture>.<key>` as a string."""
        return str(self.file.get(self._key(key), str, default))

    def flags(self, key: str, n: int) -> list[bool] | None:
        """`<architecture>.<key>` as a boolean of each of n layers; None if the file has no array there."""
        full = self._key(key)
        if not isinstance(self.file.metadata.get(full), np.ndarray):
            return None
        return [bool(value) for value in self.file.array(full, np.bool_, n)]

    def floats(self, name: str, n: int) -> npt.NDArray[np.float32]:
        """The n values of the tensor `name`, which is no part of the plan itself."""
        self.tensors_read.add(name)
        return self.file.floats(name, n)


@dataclass(frozen=True, slots=True)
class Hyper:
    """The numbers that every dense decoder has."""

    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_kv_head: int
    head_dim: int
    n_rot: int
    n_vocab: int
    context_length: int
    eps: float
    rope_base: float

    @classmethod
    def read(
        cls,
        meta: Metadata,
        *,
        centers: bool = False,
        varied: bool = False,
        kv_heads: tuple[int, int] | None = None,
        n_kv_head: int | None = None,
    ) -> "Hyper":
        """Read and check them; every value is bounded, so that products of two cannot overflow.

        `centers`: norms are layernorm, whose epsilon has another name. `varied`: layers may differ in what files give
        by layer, and these are the first one's numbers. `kv_heads`: n_kv_head and head_dim, if they are not what the
        file says of keys and values; or `n_kv_head` alone.
        """
        n_layer = meta.integer("block_count", 1, 512)

        def shared(key: str, high: int, default: Any = _REQUIRED) -> int:
            values = meta.integers(key, n_layer, 1, high, default)
            if not varied and len(set(values)) > 1:
                raise UnsupportedModelError(f"layers that differ in {key!r} are not supported")
            return values[0]

        n_embd = meta.integer("embedding_length", 8, 1 << 16)
        n_head = shared("attention.head_count", 1024)
        n_kv_head, head_dim = kv_heads or (
            n_kv_head or shared("attention.head_count_kv", 1024, n_head),
            _head_dim(meta, max(n_embd // n_head, 1)),
        )
        if n_head % n_kv_head:
            raise InvalidFileError(f"{n_head} heads are no multiple of {n_kv_head} KV heads")
        n_rot = meta.integer("rope.dimension_count", 1, 1024, head_dim)
        if n_rot > head_dim:
            raise InvalidFileError(f"rope over {n_rot} of {head_dim} values")
        n_ff_expert = meta.integer("expert_feed_forward_length", 0, 1 << 18, 0)
        return cls(
            n_layer=n_layer,
            n_embd=n_embd,
            n_ff=shared("feed_forward_length", 1 << 18, n_ff_expert or _REQUIRED),
            n_head=n_head,
            n_kv_head=n_kv_head,
            head_dim=head_dim,
            n_rot=n_rot,
            n_vocab=_n_vocab(meta),
            context_length=meta.integer("context_length", 1, 1 << 26),
            eps=meta.number(f"attention.layer_norm_{'' if centers else 'rms_'}epsilon", 0.0, 1.0),
            rope_base=meta.number("rope.freq_base", 2.0, 1e12, 10000.0),
        )


    @classmethod
    def without_attention(cls, meta: Metadata) -> "Hyper":
        """Those of a model that has neither attention nor feed-forwards: files have zeros there, or nothing."""
        return cls(
            n_layer=meta.integer("block_count", 1, 512),
            n_embd=meta.integer("embedding_length", 8, 1 << 16),
            n_ff=meta.integer("feed_forward_length", 0, 0, 0),
            n_head=meta.integer("attention.head_count", 0, 0, 0),
            n_kv_head=0,
            head_dim=0,
            n_rot=0,
            n_vocab=_n_vocab(meta),
            context_length=meta.integer("context_length", 1, 1 << 26),
            eps=meta.number("attention.layer_norm_rms_epsilon", 0.0, 1.0),
            rope_base=0.0,
        )


def _n_vocab(meta: Metadata) -> int:
    """Rows of the embedding."""
    embedding = meta.file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise InvalidFileError("tensor 'token_embd.weight' is missing or no matrix")
    return embedding.shape[1]


def windowed_layers(meta: Metadata, n_layer: int, period: int) -> list[bool]:
    """Which layers attend to a sliding window: as the file says, or all but the last of each `period`."""
    key = "attention.sliding_window_pattern"
    pattern = meta.flags(key, n_layer)
    if pattern is None:
        period = meta.integer(key, 1, 512, period)
        pattern = [(layer + 1) % period != 0 for layer in range(n_layer)]
    return pattern


def _head_dim(meta: Metadata, default: int) -> int:
    head_dim = meta.integer("attention.key_length", 1, 1024, default)
    if meta.integer("attention.value_length", 1, 1024, head_dim) != head_dim:
        raise UnsupportedModelError("keys and values of different length are not supported")
    return head_dim
