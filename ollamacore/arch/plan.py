"""The plan: an architecture written down as data.

A Plan names tensors, buffers and ops; it computes nothing. `Plan.install` hands it to the engine, which checks every
shape once and then walks the list without Python. Residual additions are folded into the norm that follows, so a
block reads as  norm, project, attend, project, norm, feed forward.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ollamacore import _core
from ollamacore._core import Engine
from ollamacore.errors import InvalidFileError, UnsupportedModelError
from ollamacore.gguf import GGUFFile

#: GGUF types that vectors (norm weights, biases) may have, and how numpy reads them
_VECTOR_TYPES = {"F32": np.float32, "F16": np.float16}
#: bytes beside the buffers: what threads and steps need, and the rounding of two arenas to huge pages
_SMALL_PARTS = 6 << 20


@dataclass(frozen=True, slots=True)
class KVShape:
    """What the KV cache of a model must hold."""

    n_layer: int
    n_kv_head: int
    head_dim: int


@dataclass(slots=True)
class Plan:
    """Tensors, buffers, rope tables and ops of one model, in order of use."""

    file: GGUFFile
    kv: KVShape
    is_encoder: bool = False  # every token sees the whole text, and there is no head: outputs are hidden states
    n_vocab: int = 0
    matrices: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> (rows, k)
    vectors: dict[str, int] = field(default_factory=dict)  # name -> n: a vector, or the first row of a matrix
    buffers: dict[str, int] = field(default_factory=dict)  # name -> width
    ropes: dict[str, tuple[npt.NDArray[np.float64], float]] = field(default_factory=dict)
    ops: list[dict[str, Any]] = field(default_factory=list)

    def matrix(self, name: str, rows: int, k: int) -> str:
        """Name a weight matrix of (rows, k); an error names it if it is missing or misshapen."""
        self._expect(name, (k, rows))
        self.matrices[name] = (rows, k)
        return name

    def vector(self, name: str, n: int) -> str:
        """Name a vector of n values."""
        self._expect(name, (n,))
        self.vectors[name] = n
        return name

    def rows(self, name: str) -> int:
        """The number of rows of a matrix whose width is known."""
        info = self.file.tensors.get(name)
        if info is None or len(info.shape) != 2:
            raise InvalidFileError(f"tensor {name!r} is missing or no matrix")
        return info.shape[1]

    def has(self, name: str) -> bool:
        """Whether the file has this tensor."""
        return name in self.file.tensors

    def _expect(self, name: str, shape: tuple[int, ...]) -> None:
        info = self.file.tensors.get(name)
        if info is None:
            raise InvalidFileError(f"tensor {name!r} is missing")
        if info.shape != shape:
            raise InvalidFileError(f"tensor {name!r} has shape {info.shape} instead of {shape}")

    def buffer(self, name: str, width: int) -> str:
        """Name a buffer of `width` floats a token; a name used twice is one buffer and must agree."""
        if self.buffers.setdefault(name, width) != width:
            raise InvalidFileError(f"buffer {name!r} has {self.buffers[name]} and {width} values")
        return name

    def rope(self, name: str, freq: npt.NDArray[np.float64], mscale: float = 1.0) -> str:
        """Name a rope table: angular frequencies in radians per position, and a factor for cos and sin."""
        self.ropes.setdefault(name, (freq, mscale))
        return name

    # ---- ops: each returns the name of the buffer it writes ----

    def embed(
        self,
        tensor: str,
        n_embd: int,
        n_vocab: int,
        scale: float = 1.0,
        *,
        positions: str | None = None,
        token_type: str | None = None,
    ) -> str:
        """The residual stream: scaled rows of the token embedding.

        `positions` is a matrix with a row to add for each position, `token_type` one whose first row is added.
        """
        self.n_vocab = n_vocab
        vector = None
        if token_type is not None:
            self._expect(token_type, (n_embd, self.rows(token_type)))
            self.vectors[token_type] = n_embd
            vector = token_type
        return self._op(
            "embed",
            dst=self.buffer("residual", n_embd),
            matrix=self.matrix(tensor, n_vocab, n_embd),
            matrix2=self.matrix(positions, self.rows(positions), n_embd) if positions else None,
            vector=vector,
            scale=scale,
        )

    def norm(
        self, weight: str, eps: float, *, add: str | None, post_norm: str | None = None, select: bool = False
    ) -> str:
        """residual += rmsnorm(add, post_norm) or add; then rmsnorm of the residual, (n_embd).

        `select` keeps only the tokens whose logits are wanted.
        """
        width = self.buffers["residual"]
        dst = self.buffer("selected" if select else "normed", width)
        flags = (*self._quantize(width), *(("select",) if select else ()))
        vector2 = self.vector(post_norm, width) if post_norm else None
        return self._op(
            "norm",
            flags=flags,
            src=add,
            dst=dst,
            dst2="residual",
            vector=self.vector(weight, width),
            vector2=vector2,
            eps=eps,
        )

    def layernorm(self, name: str, eps: float, *, add: str | None, select: bool = False) -> str:
        """residual = layernorm(residual + add) with name.weight and name.bias, (n_embd): the norm of a post-norm block.

        `select` writes the tokens whose outputs are wanted to a buffer of their own instead.
        """
        width = self.buffers["residual"]
        return self._op(
            "norm",
            flags=("center", *(("select",) if select else self._quantize(width))),
            src=add,
            dst=self.buffer("selected", width) if select else "residual",
            dst2="residual",
            vector=self.vector(f"{name}.weight", width),
            vector2=self.vector(f"{name}.bias", width),
            eps=eps,
        )

    def linear(
        self,
        src: str,
        tensor: str,
        rows: int,
        dst: str,
        *,
        bias: str | None = None,
        join: bool = False,
        gelu: bool = False,
    ) -> str:
        """dst = tensor * src (+ bias if the file has it), (rows). `join`: the next op does not read dst.

        `gelu` sends dst through GELU, with the error function, and readies it for another matrix.
        """
        matrix = self.matrix(tensor, rows, self.buffers[src])
        vector = self.vector(bias, rows) if bias and self.has(bias) else None
        return self._op(
            "linear",
            flags=(*(("join",) if join else ()), *(("erf", *self._quantize(rows)) if gelu else ())),
            src=src,
            dst=self.buffer(dst, rows),
            matrix=matrix,
            vector=vector,
        )

    def glu(self, src: str, gate: str, up: str, n_ff: int, *, gelu: bool = False) -> str:
        """act(gate * src) * (up * src), (n_ff); act is SiLU or the tanh form of GELU."""
        k = self.buffers[src]
        flags = (*self._quantize(n_ff), *(("gelu",) if gelu else ()))
        return self._op(
            "glu",
            flags=flags,
            src=src,
            dst=self.buffer("ff", n_ff),
            dst2=self.buffer("ff_up", n_ff),
            matrix=self.matrix(gate, n_ff, k),
            matrix2=self.matrix(up, n_ff, k),
        )

    def attention(
        self,
        q: str,
        k: str,
        v: str,
        layer: int,
        *,
        n_head: int,
        scale: float,
        rope: str | None,
        neox: bool,
        window: int = 0,
        q_norm: str | None = None,
        k_norm: str | None = None,
        eps: float = 0.0,
        softcap: float = 0.0,
        both_ways: bool = False,
    ) -> str:
        """Rope q and k, append k and v to the cache of `layer`, attend: (n_head * head_dim).

        `both_ways`: to the tokens after it too, as far as they are in the same step.
        """
        head_dim = self.kv.head_dim
        shape = {"layer": layer, "n_head": n_head, "n_kv_head": self.kv.n_kv_head, "head_dim": head_dim}
        norms = {
            "vector": self.vector(q_norm, head_dim) if q_norm else None,
            "vector2": self.vector(k_norm, head_dim) if k_norm else None,
        }
        self._op(
            "rope_kv",
            flags=("neox",) if neox else (),
            src=q,
            src2=k,
            src3=v,
            rope=rope,
            scale=scale,
            eps=eps,
            **shape,
            **norms,
        )
        width = n_head * head_dim
        whole_blocks = head_dim % 32 == 0
        dst = self._op(
            "attention",
            flags=(*(("quantize",) if whole_blocks else ()), *(("both_ways",) if both_ways else ())),
            src=q,
            dst=self.buffer("attended", width),
            window=window,
            softcap=softcap,
            **shape,
        )
        if not whole_blocks and width % 32 == 0:
            self._op("quantize", src=dst)
        return dst

    @staticmethod
    def _quantize(width: int) -> tuple[str, ...]:
        """Matmuls of quantised weights read whole blocks of 32; other widths only occur with float weights."""
        return ("quantize",) if width % 32 == 0 else ()

    def _op(self, kind: str, **operands: Any) -> str:
        self.ops.append({"kind": kind, **operands})
        return str(operands.get("dst", ""))

    # ---- sizes ----

    @property
    def context_length(self) -> int:
        """Tokens of the longest context that the model was trained for."""
        architecture = self.file.get("general.architecture", str)
        return int(self.file.get(f"{architecture}.context_length", int))

    def weight_bytes(self) -> int:
        """Bytes of the weights once they are packed."""
        packed = 0
        for name, (rows, k) in self.matrices.items():
            with self._naming(name):
                packed += _core.packed_bytes(self.file.tensors[name].type, rows, k)
        return packed + 4 * sum(self.vectors.values())

    def scratch_bytes(self, max_tokens: int, max_outputs: int) -> int:
        """About the bytes of activations, never less: floats, codes and scales of every buffer."""
        after = False
        columns = dict.fromkeys(self.buffers, max_tokens)
        for op in self.ops:
            after = after or "select" in op.get("flags", ())
            if after and op.get("dst"):
                columns[op["dst"]] = max_outputs
        tables = sum(len(freq) for freq, _ in self.ropes.values())
        return 6 * sum(self.buffers[name] * n for name, n in columns.items()) + 8 * tables * max_tokens + _SMALL_PARTS

    # ---- installing ----

    def install(self, engine: Engine) -> None:
        """Hand everything to an engine and finish it; weights are still in the file afterwards."""
        index: dict[str, int] = {}
        for name, (rows, k) in self.matrices.items():
            with self._naming(name):
                index[name] = engine.add_matrix(self.file.tensors[name].type, rows, k, self.file.data(name))
        for name, n in self.vectors.items():
            index[name] = engine.add_vector(self._floats(name)[:n])
        buffers = {name: engine.add_buffer(width) for name, width in self.buffers.items()}
        ropes = {name: engine.add_rope(freq, mscale) for name, (freq, mscale) in self.ropes.items()}
        tables: dict[str, dict[str, int]] = {
            **dict.fromkeys(("src", "src2", "src3", "dst", "dst2"), buffers),
            **dict.fromkeys(("matrix", "matrix2", "vector", "vector2"), index),
            "rope": ropes,
        }
        for op in self.ops:
            operands: dict[str, Any] = {
                key: tables[key][value] if key in tables else value for key, value in op.items() if value is not None
            }
            engine.add_op(**operands)
        engine.finish(self.n_vocab)

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """The engine's complaint about a matrix, with the tensor's name."""
        try:
            yield
        except (InvalidFileError, ValueError) as error:
            kind = self.file.tensors[name].type_name
            raise UnsupportedModelError(f"tensor {name!r} ({kind}): {error}") from error

    def floats(self, name: str, n: int) -> npt.NDArray[np.float32]:
        """The values of a small tensor that the plan itself needs (rope factors)."""
        self._expect(name, (n,))
        return self._floats(name)

    def _floats(self, name: str) -> npt.NDArray[np.float32]:
        info = self.file.tensors[name]
        if info.type_name not in _VECTOR_TYPES:
            raise UnsupportedModelError(f"tensor {name!r} has type {info.type_name}, expected F32 or F16")
        values = np.frombuffer(self.file.data(name), dtype=_VECTOR_TYPES[info.type_name])
        return np.ascontiguousarray(values, dtype=np.float32)
