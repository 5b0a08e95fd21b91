"""Hyper-parameters of a decoder, read from GGUF metadata under `<architecture>.`, with their ranges checked."""

from dataclasses import dataclass
from typing import Any

from ollamacore.errors import InvalidFileError, UnsupportedModelError
from ollamacore.gguf import GGUFFile

_REQUIRED = object()


class Metadata:
    """Typed, range-checked reads of one architecture's keys."""

    def __init__(self, file: GGUFFile, context: int = 4096) -> None:
        self.file = file
        self.context = context  # tokens of the longest context that is wanted
        self.architecture: str = file.get("general.architecture", str)

    def integer(self, key: str, low: int, high: int, default: Any = _REQUIRED) -> int:
        """`<architecture>.<key>` as an integer in [low, high]."""
        full = f"{self.architecture}.{key}"
        value = self.file.get(full, int) if default is _REQUIRED else self.file.get(full, int, default)
        if not low <= value <= high:
            raise InvalidFileError(f"metadata value {full!r} is {value}, outside {low} to {high}")
        return int(value)

    def number(self, key: str, low: float, high: float, default: Any = _REQUIRED) -> float:
        """`<architecture>.<key>` as a float in [low, high]."""
        full = f"{self.architecture}.{key}"
        value = self.file.get(full, float) if default is _REQUIRED else self.file.get(full, float, default)
        if not low <= value <= high:
            raise InvalidFileError(f"metadata value {full!r} is {value}, outside {low} to {high}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """`<architecture>.<key>` as a boolean."""
        return bool(self.file.get(f"{self.architecture}.{key}", bool, default))

    def text(self, key: str, default: str) -> str:
        """`<architecture>.<key>` as a string."""
        return str(self.file.get(f"{self.architecture}.{key}", str, default))


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
    def read(cls, meta: Metadata, *, centers: bool = False, kv_heads: tuple[int, int] | None = None) -> "Hyper":
        """Read and check them; every value is bounded, so that products of two cannot overflow.

        `centers`: norms are layernorm, whose epsilon has another name. `kv_heads`: n_kv_head and head_dim, if they are
        not what the file says of keys and values.
        """
        n_embd = meta.integer("embedding_length", 8, 1 << 16)
        n_head = meta.integer("attention.head_count", 1, 1024)
        n_kv_head, head_dim = kv_heads or _kv_heads(meta, n_embd, n_head)
        n_rot = meta.integer("rope.dimension_count", 2, 1024, head_dim)
        if n_rot > head_dim or n_rot % 2:
            raise InvalidFileError(f"rope over {n_rot} of {head_dim} values")
        embedding = meta.file.tensors.get("token_embd.weight")
        if embedding is None or len(embedding.shape) != 2:
            raise InvalidFileError("tensor 'token_embd.weight' is missing or no matrix")
        return cls(
            n_layer=meta.integer("block_count", 1, 512),
            n_embd=n_embd,
            n_ff=meta.integer("feed_forward_length", 1, 1 << 18),
            n_head=n_head,
            n_kv_head=n_kv_head,
            head_dim=head_dim,
            n_rot=n_rot,
            n_vocab=embedding.shape[1],
            context_length=meta.integer("context_length", 1, 1 << 26),
            eps=meta.number(f"attention.layer_norm_{'' if centers else 'rms_'}epsilon", 0.0, 1.0),
            rope_base=meta.number("rope.freq_base", 2.0, 1e12, 10000.0),
        )


def _kv_heads(meta: Metadata, n_embd: int, n_head: int) -> tuple[int, int]:
    n_kv_head = meta.integer("attention.head_count_kv", 1, 1024, n_head)
    head_dim = meta.integer("attention.key_length", 1, 1024, max(n_embd // n_head, 1))
    if n_head % n_kv_head:
        raise InvalidFileError(f"{n_head} heads are no multiple of {n_kv_head} KV heads")
    if meta.integer("attention.value_length", 1, 1024, head_dim) != head_dim:
        raise UnsupportedModelError("keys and values of different length are not supported")
    return n_kv_head, head_dim
