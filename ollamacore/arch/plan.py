"""The plan: an architecture written down as data.

A Plan names tensors, buffers and ops; it computes nothing. `Plan.install` hands it to the engine, which checks every
shape once and then walks the list without Python. Residual additions are folded into the norm that follows, so a
block reads as  norm, project, attend, project, norm, feed forward.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ollamacore import _core
from ollamacore._core import Engine
from ollamacore.errors import InvalidFileError, UnsupportedModelError
from ollamacore.gguf import GGUFFile, TensorInfo

#: bytes beside the buffers: what threads and steps need, and the rounding of two arenas to huge pages
_SMALL_PARTS = 6 << 20
#: threads of an engine, and columns that each gathers for an expert, at most
_MAX_THREADS, _SLICE = 64, 32
#: rows of a matrix that are packed together
_GROUP = 8
#: bytes to which a state is rounded
_ALIGN = 64
#: numbers of GGUF's types
_F32, _F16 = 0, 1


class KVLayer(NamedTuple):
    """What one layer of the KV cache holds of a token: a key and a value of head_dim numbers for each head."""

    n_kv_head: int
    head_dim: int
    value_dim: int = 0  # of values that are the first elements of their keys; 0: values are as long as keys


@dataclass(frozen=True, slots=True)
class Rows:
    """`n` rows of `name`.weight from row `first` on, of `of` in all (None: n), and of `name`.bias if there is one.

    `stacked`: the tensor is a stack of matrices of n rows each. `order`: the rows are not one behind the other, but
    these runs of them, (first, number).
    """

    name: str
    n: int
    first: int = 0
    of: int | None = None
    stacked: bool = False
    order: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Experts:
    """`n` rows of `name`.weight for each of n_expert experts, from row `first` of `of` on (None: n), and `name`.bias.

    The bias, (n_expert, n), may be missing, and is not where experts have further rows.
    """

    name: str
    n_expert: int
    n: int
    first: int = 0
    of: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How experts are chosen: n_used of n_expert, by the probability that softmax or sigmoid makes of their logits.

    `normalize`: the weights of the chosen ones sum up to one; then `scale`. Of n_group groups, if there are several,
    the n_group_used best take part.
    """

    n_expert: int
    n_used: int
    sigmoid: bool = False
    normalize: bool = False
    scale: float = 1.0
    n_group: int = 0
    n_group_used: int = 0


@dataclass(frozen=True, slots=True)
class DeltaHeads:
    """Heads of a gated delta rule: n_k of q and k with `key` values each, n_v of v with `value`."""

    n_k: int
    key: int
    n_v: int
    value: int


@dataclass(frozen=True, slots=True)
class Part:
    """What an engine's matrix, (rows, k), or vector, (k, rows), is in the file: rows of a tensor.

    With `more`, tensors and first rows, they are the first of several runs of as many rows.
    """

    tensor: str
    first: int
    rows: int
    k: int
    more: tuple[tuple[str, int], ...] = ()

    @property
    def is_made(self) -> bool:
        """Whether it is made of the file's bytes, not part of them."""
        return False

    @property
    def tensors(self) -> tuple[str, ...]:
        """Where they lie."""
        return (self.tensor, *(name for name, _ in self.more))

    def packed_bytes(self, file: GGUFFile) -> int:
        """Bytes once it is packed; each of several runs is filled up to whole groups of rows."""
        n = 1 + len(self.more)
        rows = self.rows if n == 1 else n * -(-(self.rows // n) // _GROUP) * _GROUP
        return _core.packed_bytes(self.type(file), rows, self.k)

    def type(self, file: GGUFFile) -> int:
        """The number of their format."""
        return file.tensors[self.tensor].type

    def runs(self, file: GGUFFile) -> list[Any]:
        """Their bytes."""
        n = self.rows // (1 + len(self.more))
        return [_rows_of(file, name, first, n) for name, first in ((self.tensor, self.first), *self.more)]


def _rows_of(file: GGUFFile, name: str, first: int, n: int) -> memoryview:
    """The bytes of n rows of a tensor: rows have the same size."""
    data = file.data(name)
    row = len(data) // prod(file.tensors[name].shape[1:])
    return data[first * row : (first + n) * row]


@dataclass(frozen=True, slots=True)
class Transposed(Part):
    """`rows` columns, n_head times those of the tensor, each the first k values that a head has of one.

    A row of a quantised format cannot be read across: the matrix is made of them in F16, or F32 of a wider float.
    """

    n_head: int = 1

    @property
    def is_made(self) -> bool:
        """See Part."""
        return True

    def type(self, file: GGUFFile) -> int:
        """See Part."""
        return _F32 if file.tensors[self.tensor].type_name in ("F32", "BF16") else _F16

    def runs(self, file: GGUFFile) -> list[Any]:
        """See Part."""
        info = file.tensors[self.tensor]
        values = np.empty(prod(info.shape), np.float32)
        _core.dequantize(info.type, file.data(self.tensor), values.data)
        heads = values.reshape(self.n_head, -1, info.shape[0])[:, : self.k].swapaxes(1, 2)
        kind = np.float32 if self.type(file) == _F32 else np.float16
        return [heads.astype(kind, order="C").reshape(-1).view(np.uint8)]


@dataclass(frozen=True, slots=True)
class Reordered(Part):
    """Runs of rows, (first, number), in another order than the tensor has them; they are copied."""

    order: tuple[tuple[int, int], ...] = ()

    @property
    def is_made(self) -> bool:
        """See Part."""
        return True

    def runs(self, file: GGUFFile) -> list[Any]:
        """See Part."""
        return [np.concatenate([_rows_of(file, self.tensor, first, n) for first, n in self.order])]


@dataclass(slots=True)
class Plan:
    """Tensors, buffers, rope tables and ops of one model, in order of use."""

    file: GGUFFile
    kv: list[KVLayer]  # layers that have keys and values of their own
    is_encoder: bool = False  # every token sees the whole text, and there is no head: outputs are hidden states
    n_vocab: int = 0
    matrices: dict[str, Part] = field(default_factory=dict)
    tables: dict[str, Part] = field(default_factory=dict)  # matrices that stay in the file
    vectors: dict[str, Part] = field(default_factory=dict)
    constants: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)  # vectors that no file has
    buffers: dict[str, int] = field(default_factory=dict)  # name -> width
    ropes: list[tuple[npt.NDArray[np.float64], float]] = field(default_factory=list)
    ops: list[dict[str, Any]] = field(default_factory=list)
    unused: set[str] = field(default_factory=set)  # tensors that files of this architecture have and nobody needs
    gathered: int = 0  # width of what threads gather for experts
    state_size: int = 0  # floats of recurrent state that a sequence carries
    context_limit: int | None = None  # positions that the rope tables are right for, if fewer than the model knows

    def matrix(self, rows: Rows, k: int) -> str:
        """Name a weight matrix of (rows, k); an error names the tensor if it is missing or misshapen."""
        tensor, of = f"{rows.name}.weight", rows.of or rows.n
        self.expect(tensor, (k,) if of == 1 else (k, rows.n, of // rows.n) if rows.stacked else (k, of))
        if rows.order:
            name = f"{tensor}[{rows.order[0][0]}...]"
            self.matrices[name] = Reordered(tensor, 0, rows.n, k, order=rows.order)
            return name
        return self._part(self.matrices, Part(tensor, rows.first, rows.n, k), of)

    def vector(self, tensor: str, n: int, first: int = 0, of: int | None = None) -> str:
        """Name a vector of n values from `first` on of a tensor of `of` values (None: n)."""
        self.expect(tensor, (of or n,))
        return self._part(self.vectors, Part(tensor, first, n, 1), of or n)

    def taps(self, tensor: str, n: int, width: int) -> str:
        """Name the weights of a convolution, `width` for each of n channels: a vector, (width, n)."""
        self.expect(tensor, (width, n))
        return self._part(self.vectors, Part(tensor, 0, n, width), n)

    def constant(self, name: str, values: npt.NDArray[np.float64]) -> str:
        """Name a vector that is computed."""
        self.constants[name] = values.astype(np.float32)
        return name

    def coefficients(self, tensor: str, rows: int, k: int) -> str:
        """Name a vector that is a small matrix of (rows, k)."""
        self.expect(tensor, (k, rows))
        return self._part(self.vectors, Part(tensor, 0, rows * k, 1), rows * k)

    def experts(self, experts: Experts, k: int) -> dict[str, str]:
        """Name the matrix of all experts, rows of one behind those of another, and their biases: operands of an op."""
        bias, of = f"{experts.name}.bias", experts.of or experts.n
        tensors = self._expert_tensors(experts)
        for tensor in tensors:
            self.expect(tensor, (k, of) if len(tensors) > 1 else (k, of, experts.n_expert))
        starts = [(tensor, experts.first) for tensor in tensors]
        if len(tensors) == 1 and (of > experts.n or of % _GROUP):
            starts = [(tensors[0], index * of + experts.first) for index in range(experts.n_expert)]
        rows = experts.n_expert * experts.n
        part = Part(*starts[0], rows, k, tuple(starts[1:]))
        name = f"{experts.name}.weight" if of == experts.n else f"{experts.name}.weight[{experts.first}:]"
        self.matrices[name] = part
        operands = {"matrix": name}
        if self.has(bias):
            self.expect(bias, (experts.n, experts.n_expert))
            operands["vector"] = self._part(self.vectors, Part(bias, 0, rows, 1), rows)
        return operands

    def _expert_tensors(self, experts: Experts) -> list[str]:
        """The tensor of all experts, or in older files one for each, of the same type."""
        alone = experts.name.removesuffix("_exps")
        if self.has(f"{experts.name}.weight") or not self.has(f"{alone}.0.weight"):
            return [f"{experts.name}.weight"]
        names = [f"{alone}.{index}.weight" for index in range(experts.n_expert)]
        for name in names:
            if self.has(name) and self.file.tensors[name].type != self.file.tensors[names[0]].type:
                raise UnsupportedModelError(f"tensor {name!r} has another type than {names[0]!r}")
        return names

    def heads(self, name: str, part: Part, n: int) -> str:
        """Give a name to a matrix that has n rows for each head."""
        if n % _GROUP:
            raise UnsupportedModelError(f"tensor {part.tensor!r}: heads of {n} rows are not supported")
        self.matrices[name] = part
        return name

    @staticmethod
    def _part(known: dict[str, Part], part: Part, of: int) -> str:
        name = part.tensor if part.rows == of else f"{part.tensor}[{part.first}:{part.first + part.rows}]"
        known[name] = part
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

    def expect(self, name: str, shape: tuple[int, ...]) -> None:
        """An error that names the tensor if it is missing or has another shape."""
        info = self.file.tensors.get(name)
        if info is None:
            raise InvalidFileError(f"tensor {name!r} is missing")
        if info.shape != shape:
            raise InvalidFileError(f"tensor {name!r} has shape {info.shape} instead of {shape}")

    def buffer(self, name: str, width: int) -> str:
        """A buffer of `width` floats a token: of this name, or of one made of it where that has another width."""
        if self.buffers.setdefault(name, width) != width:
            name = f"{name}.{width}"
            self.buffers[name] = width
        return name

    def streams(self, n: int) -> list[str]:
        """The residual stream that `embed` has just made, and room for n - 1 more, as `predict` wants them."""
        width = self.buffers["residual"]
        return ["residual", *(self.buffer(f"stream.{i}", width) for i in range(1, n))]

    def rope(self, freq: npt.NDArray[np.float64], mscale: float = 1.0, limit: int | None = None) -> int:
        """The index of a rope table: angular frequencies in radians per position, and a factor for cos and sin.

        `limit`: positions that it is right for, None: all.
        """
        if limit is not None:
            self.context_limit = min(limit, self.context_limit or limit)
        for index, (known, factor) in enumerate(self.ropes):
            if factor == mscale and np.array_equal(known, freq):
                return index
        self.ropes.append((freq, mscale))
        return len(self.ropes) - 1

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

        `positions`.weight has a row to add for each position, `token_type` is a matrix whose first row is added.
        """
        self.n_vocab = n_vocab
        if token_type is not None:
            if self.file.tensors[token_type].shape != (n_embd,):  # a file may drop the dimension of a single row
                self.expect(token_type, (n_embd, self.rows(token_type)))
            self.vectors[token_type] = Part(token_type, 0, n_embd, 1)
        return self._op(
            "embed",
            dst=self.buffer("residual", n_embd),
            matrix=self.matrix(Rows(tensor, n_vocab), n_embd),
            matrix2=self.matrix(Rows(positions, self.rows(f"{positions}.weight")), n_embd) if positions else None,
            vector=token_type,
            scale=scale,
        )

    def norm(
        self,
        name: str | None,
        eps: float,
        *,
        stream: str = "residual",
        add: tuple[str, ...] = (),
        post_norm: str | None = None,
        scale: float = 1.0,
        center: bool = False,
        bias: bool = True,
        select: bool = False,
        in_place: bool = False,
    ) -> str:
        """stream += rmsnorm(add[0], post_norm) or add[0], + add[1]; stream *= scale; then its norm, (n_embd).

        It is rmsnorm, or with `center` layernorm, with bias or without, by weights called `name`; None leaves the
        stream as it is. `select` keeps only the tokens whose outputs are wanted; `in_place` makes what is normed the
        stream.
        """
        width = self.buffers[stream]
        dst = stream if in_place or name is None else self.buffer("selected" if select else "normed", width)
        kind = ("plain",) if name is None else ("center",) if center else ()
        shift = self.vector(f"{name}.bias", width) if name and center and bias else None
        return self._op(
            "norm",
            flags=(*kind, *self._quantize(width), *(("select",) if select else ())),
            src=add[0] if add else None,
            src2=add[1] if len(add) > 1 else None,
            dst=dst,
            dst2=stream,
            vector=self.vector(f"{name}.weight", width) if name else None,
            vector2=self.vector(f"{post_norm}.weight", width) if post_norm else shift,
            scale=scale,
            eps=eps,
        )

    def norm_by(self, weights: str, eps: float) -> str:
        """The rmsnorm of the residual by a tensor that is not called .weight, (n_embd)."""
        width = self.buffers["residual"]
        return self._op(
            "norm",
            flags=self._quantize(width),
            dst=self.buffer("normed", width),
            dst2="residual",
            vector=self.vector(weights, width),
            eps=eps,
        )

    def scaled(self, weights: str) -> str:
        """The residual times `weights`, value by value, (n_embd)."""
        width = self.buffers["residual"]
        return self._op(
            "norm",
            flags=("plain", *self._quantize(width)),
            dst=self.buffer("normed", width),
            dst2="residual",
            vector=self.vector(f"{weights}.weight", width),
        )

    def norm_buffer(
        self,
        name: str,
        weights: str,
        eps: float,
        *,
        add: str | None = None,
        center: bool = False,
        parts: int = 1,
        own_weights: bool = False,
        quantize: bool = False,
    ) -> str:
        """Norm a whole buffer, or `parts` of it each on its own, in place; `add`, the residual stream, is added before.

        It is rmsnorm, or with `center` layernorm. Parts share their weights, or have `own_weights`, a row each.
        `quantize`: a matrix reads it.
        """
        width = self.buffers[name] // parts
        tensor = f"{weights}.weight"
        own = own_weights and (parts > 1 or self.file.tensors[tensor].shape != (width,))  # a file may drop a dimension
        return self._op(
            "norm",
            flags=(
                *(("center",) if center else ()),
                *(self._quantize(self.buffers[name]) if quantize else ()),
            ),
            src=add,
            dst=name,
            dst2=name,
            vector=self.coefficients(tensor, parts, width) if own else self.vector(tensor, width),
            vector2=self.vector(f"{weights}.bias", width) if center else None,
            eps=eps,
            n_head=parts if parts > 1 else 0,
        )

    def gather(self, tensor: str, dst: str, scale: float) -> None:
        """dst += scale * the token's row of a table, which stays in the file."""
        width = self.buffers[dst]
        self.expect(tensor, (width, self.rows(tensor)))
        table = self._part(self.tables, Part(tensor, 0, self.rows(tensor), width), self.rows(tensor))
        self._op("gather", dst=dst, matrix=table, scale=scale)

    def predict(self, streams: list[str], coefficients: str, modalities: str, block: str) -> None:
        """AltUp: predict what a layer makes of `streams`; `block` keeps what it does of the first."""
        n = len(streams)
        vector = self.coefficients(coefficients, n * n, n)
        self._op("predict", src=modalities, dst=streams[0], dst2=block, vector=vector, n_stream=n)

    def correct(self, streams: list[str], coefficients: str, modalities: str, block: str) -> None:
        """AltUp: correct the prediction by what a block made of the first stream; it used to be `block`."""
        n = len(streams)
        vector = self.coefficients(coefficients, n, n)
        self._op("correct", src=modalities, dst=streams[0], dst2=block, vector=vector, n_stream=n)

    def match(self, src: str, model: str, dst: str) -> str:
        """dst = src with the root mean square of `model`."""
        return self._op("match", src=src, src2=model, dst=dst)

    def linear(
        self,
        src: str,
        rows: Rows,
        dst: str,
        *,
        join: bool = False,
        quantize: bool = False,
        activation: str | None = None,
        scale: float = 1.0,
        softcap: float = 0.0,
        factors: str | None = None,
        offset: int = 0,
    ) -> str:
        """dst = scale * (weight * src + bias if the file has it), (rows).

        `join`: one phase with the next op, which is linear in src too.
        An activation, "gelu" in its tanh form or "erf" with the error function, also readies dst for another matrix,
        as `quantize` does; softcap > 0 bounds dst by it. `factors` from `offset` on multiply dst in the end.
        """
        bias = f"{rows.name}.bias"
        is_read = quantize or activation is not None
        return self._op(
            "linear",
            flags=(
                *(("join",) if join else ()),
                *((activation,) if activation else ()),
                *(self._quantize(rows.n) if is_read else ()),
            ),
            src=src,
            src2=factors,
            dst=self.buffer(dst, rows.n),
            matrix=self.matrix(rows, self.buffers[src]),
            vector=self.vector(bias, rows.n, rows.first, rows.of) if self.has(bias) else None,
            scale=scale,
            softcap=softcap,
            offset=offset,
        )

    def head_linear(self, src: str, matrix: str, n_head: int, dst: str) -> str:
        """Of each head matrix * the first k of its values in src, and what it has there behind them."""
        part, width = self.matrices[matrix], self.buffers[src]
        self.gathered = max(self.gathered, part.k)
        to = (part.rows + width) // n_head - part.k
        return self._op(
            "head_linear",
            flags=self._quantize(to),
            src=src,
            dst=self.buffer(dst, n_head * to),
            matrix=matrix,
            n_head=n_head,
        )

    def glu(self, src: str, gate: Rows, up: Rows, *, gelu: bool = False, erf: bool = False, dst: str = "ff") -> str:
        """act(gate * src) * (up * src), (rows of each).

        The activation is SiLU, GELU in its tanh form with `gelu`, or GELU with the error function with `erf`.
        """
        k = self.buffers[src]
        for rows in (gate, up):
            if self.has(f"{rows.name}.bias"):
                raise UnsupportedModelError(f"tensor '{rows.name}.bias': gates with a bias are not supported")
        return self._op(
            "glu",
            flags=(*self._quantize(gate.n), *(("gelu",) if gelu else ()), *(("erf",) if erf else ())),
            src=src,
            dst=self.buffer(dst, gate.n),
            matrix=self.matrix(gate, k),
            matrix2=self.matrix(up, k),
        )

    def sparse_glu(self, gate: str, up: str, deviations: float) -> str:
        """GELU of `gate` above its mean and so many standard deviations, times `up`."""
        width = self.buffers[gate]
        if width % _GROUP:
            raise UnsupportedModelError(f"sparse activations of {width} values are not supported")
        return self._op(
            "sparse_glu",
            flags=self._quantize(width),
            src=gate,
            src2=up,
            dst=self.buffer("ff", width),
            scale=deviations,
        )

    def route(
        self,
        router: str,
        routing: Routing,
        bias: str,
        scale: float,
        *,
        factors: str | None = None,
    ) -> None:
        """Choose experts by the logits in `router`, their probabilities plus `bias` if the file has it.

        `scale`, and the expert's own of `factors`, multiply the weights of the chosen beside routing.scale.
        """
        flags = {"sigmoid": routing.sigmoid, "normalize": routing.normalize}
        self._op(
            "route",
            flags=tuple(flag for flag, is_set in flags.items() if is_set),
            src=router,
            vector=self.vector(bias, routing.n_expert) if self.has(bias) else None,
            vector2=self.vector(factors, routing.n_expert) if factors else None,
            scale=scale * routing.scale,
            n_expert=routing.n_expert,
            n_used=routing.n_used,
            n_group=routing.n_group,
            n_group_used=routing.n_group_used,
        )

    def expert_glu(
        self,
        src: str,
        gate: Experts,
        up: Experts | None,
        n_used: int,
        *,
        clamp: bool = False,
        gelu: bool = False,
        erf: bool = False,
    ) -> str:
        """act(gate * src) * (up * src) of each chosen expert, one behind the other.

        act is SiLU, the tanh form of GELU, or with `clamp` that of gpt-oss. With `erf` there is no `up`, and it is GELU
        with the error function. What an expert makes is filled up to whole groups of rows.
        """
        k = self.buffers[src]
        self.gathered = max(self.gathered, k)
        n_ff = -(-gate.n // _GROUP) * _GROUP
        others = {f"{key}2": name for key, name in self.experts(up, k).items()} if up else {}
        flags = {"clamp": clamp, "gelu": gelu, "erf": erf}
        return self._op(
            "expert_glu",
            flags=(*self._quantize(gate.n), *(flag for flag, is_set in flags.items() if is_set)),
            src=src,
            dst=self.buffer("experts", n_used * n_ff),
            n_expert=gate.n_expert,
            n_used=n_used,
            **self.experts(gate, k),
            **others,
        )

    def expert_sum(
        self, src: str, down: Experts, k: int, n_used: int, dst: str, *, shared: str | None, share: str | None
    ) -> str:
        """The weighted sum of down * src of the chosen experts, + `shared` times the sigmoid of `share`, (down.n).

        Of what each of them has in `src` the first k values are read.
        """
        return self._op(
            "expert_sum",
            src=src,
            src2=shared,
            src3=share,
            dst=self.buffer(dst, down.n),
            n_expert=down.n_expert,
            n_used=n_used,
            **self.experts(down, k),
        )

    def attention(
        self,
        q: str,
        k: str | None,
        v: str | None,
        layer: int,
        *,
        n_head: int,
        scale: float,
        rope: int | None,
        rope_at: int = 0,
        neox: bool = False,
        window: int = 0,
        q_norm: str | None = None,
        k_norm: str | None = None,
        value_norm: bool = False,
        eps: float = 0.0,
        softcap: float = 0.0,
        both_ways: bool = False,
        sinks: str | None = None,
        slopes: str | None = None,
        gated: bool = False,
    ) -> str:
        """Rope q and k, append k and v to the cache of `layer`, attend: (n_head * head_dim, or value_dim).

        Without k and v, `layer` of the cache has its keys and values already; without v alone, see KVLayer.
        `rope_at`: the first value of a head that rope turns; norms are then of those before. `value_norm`: rmsnorm of
        each head of v. `both_ways`: to the tokens after it too, as far as they are in the same step, with a `window`
        half of it on either side. `sinks`: a vector with one more score for each head. `slopes`: a constant with what
        each head's scores lose for each position between query and key. `gated`: q has the gate of each head behind
        it, whose sigmoid multiplies the head.
        """
        n_kv_head, head_dim, value_dim = self.kv[layer]
        value_dim = value_dim or head_dim
        shape = {"layer": layer, "n_head": n_head, "n_kv_head": n_kv_head, "head_dim": head_dim}
        gate = ("gated",) if gated else ()
        norms = {
            "vector": self.vector(q_norm, rope_at or head_dim) if q_norm else None,
            "vector2": self.vector(k_norm, rope_at or head_dim) if k_norm else None,
        }
        self._op(
            "rope_kv",
            flags=(*(("neox",) if neox else ()), *(("norm_value",) if value_norm else ()), *gate),
            src=q,
            src2=k,
            src3=v,
            rope=rope,
            rope_at=rope_at,
            scale=scale,
            eps=eps,
            **shape,
            **norms,
        )
        width = n_head * value_dim
        whole_blocks = value_dim % 32 == 0
        dst = self._op(
            "attention",
            flags=(*(("quantize",) if whole_blocks else ()), *(("both_ways",) if both_ways else ()), *gate),
            src=q,
            dst=self.buffer("attended", width),
            vector=self.vector(sinks, n_head) if sinks else None,
            vector2=slopes,
            window=window,
            softcap=softcap,
            **shape,
        )
        if not whole_blocks and width % 32 == 0:
            self._op("quantize", src=dst)
        return dst

    def convolve(self, src: str, name: str, n: int, width: int, dst: str, *, gated: bool = False) -> str:
        """dst = silu of the causal convolution of each of n channels over `width` positions, + bias if the file has it.

        `gated`: src is b, c and x, (n) each; dst = c * convolution of b * x. The op before must be the linear of src.
        """
        bias = f"{name}.bias"
        return self._op(
            "conv",
            flags=("gated", *self._quantize(n)) if gated else (),
            src=src,
            dst=self.buffer(dst, n),
            vector=self.taps(f"{name}.weight", n, width),
            vector2=self.vector(bias, n) if self.has(bias) else None,
            window=width,
            state=self._state((width - 1) * n),
        )

    def delta(
        self, src: str, heads: DeltaHeads, name: str, eps: float, *, beta: str, alpha: str | None, gate: str
    ) -> str:
        """The gated delta rule over q, k and v of src, normed and gated by head, (heads.n_v * heads.value).

        Tensors are called `name`_a, `name`_dt.bias and `name`_norm.weight. Without `alpha`, `beta` holds both, by heads
        of k, and heads of v that share one of k are neighbours; else they are heads.n_k apart.
        """
        width = heads.n_v * heads.value
        is_whole = heads.value % 32 == 0
        dst = self._op(
            "delta",
            flags=(*(("quantize",) if is_whole else ()), *(() if alpha else ("grouped",))),
            src=src,
            src2=beta,
            src3=alpha,
            src4=gate,
            dst=self.buffer("recalled", width),
            vector=self.vector(f"{name}_norm.weight", heads.value),
            vector2=self.vector(f"{name}_a", heads.n_v),
            vector3=self.vector(f"{name}_dt.bias", heads.n_v),
            n_head=heads.n_v,
            n_kv_head=heads.n_k,
            head_dim=heads.key,
            eps=eps,
            state=self._state(width * heads.key),
        )
        if not is_whole and width % 32 == 0:
            self._op("quantize", src=dst)
        return dst

    def scan(self, src: str, heads: DeltaHeads, name: str, *, step: str, gate: str) -> str:
        """A state space over v, k and q of src, gated, (heads.n_v * heads.value); `step` has the step of each head.

        Tensors are called `name`_a, `name`_dt.bias and `name`_d. Heads of v that share one of k are neighbours.
        """
        width = heads.n_v * heads.value
        return self._op(
            "delta",
            flags=("scan",),
            src=src,
            src2=step,
            src3=step,
            src4=gate,
            dst=self.buffer("recalled", width),
            vector=self.coefficients(f"{name}_d", heads.n_v, 1),
            vector2=self.coefficients(f"{name}_a", heads.n_v, 1),
            vector3=self.vector(f"{name}_dt.bias", heads.n_v),
            n_head=heads.n_v,
            n_kv_head=heads.n_k,
            head_dim=heads.key,
            state=self._state(width * heads.key),
        )

    def _state(self, n: int) -> int:
        """Where the next n floats of a sequence's state begin."""
        first, self.state_size = self.state_size, self.state_size + n
        return first

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
        """Tokens of the longest context that the model was trained for and this plan is right for."""
        trained = int(self.file.get(f"{self.file.architecture}.context_length", int))
        return min(trained, self.context_limit or trained)

    def weight_bytes(self) -> int:
        """Bytes of the weights once they are packed; tables are not."""
        packed = 0
        for part in self.matrices.values():
            with self._naming(part.tensor):
                packed += part.packed_bytes(self.file)
        return packed + 4 * sum(part.rows * part.k for part in self.vectors.values())

    @property
    def state_bytes(self) -> int:
        """Bytes of one recurrent state."""
        return -(-4 * self.state_size // _ALIGN) * _ALIGN

    def made_bytes(self) -> int:
        """Bytes of the matrices that are made of tensors, and not part of the file."""
        return sum(part.packed_bytes(self.file) for part in self.matrices.values() if part.is_made)

    def source_tensors(self) -> list[TensorInfo]:
        """The tensors that the matrices lie in."""
        names = dict.fromkeys(name for part in self.matrices.values() for name in part.tensors)
        return [self.file.tensors[name] for name in names]

    def source_bytes(self) -> int:
        """Bytes of these tensors in the file."""
        return sum(tensor.n_bytes for tensor in self.source_tensors())

    def tensors(self) -> set[str]:
        """The tensors of the file that the plan reads, or knows to be of no use."""
        parts = (*self.matrices.values(), *self.tables.values(), *self.vectors.values())
        return {name for part in parts for name in part.tensors} | self.unused

    def scratch_bytes(self, max_tokens: int, max_outputs: int) -> int:
        """About the bytes of activations, never less: floats, codes and scales of every buffer."""
        after = False
        columns = dict.fromkeys(self.buffers, max_tokens)
        for op in self.ops:
            after = after or "select" in op.get("flags", ())
            if after and op.get("dst"):
                columns[op["dst"]] = max_outputs
        tables = sum(len(freq) for freq, _ in self.ropes)
        buffers = 6 * sum(self.buffers[name] * n for name, n in columns.items())
        gathered = _MAX_THREADS * _SLICE * 6 * self.gathered
        return buffers + gathered + 8 * tables * max_tokens + _SMALL_PARTS

    # ---- installing ----

    def install(self, engine: Engine) -> None:
        """Hand everything to an engine and finish it; weights are still in the file afterwards."""
        index: dict[str, int] = {}
        for name, part in self.matrices.items():
            with self._naming(part.tensor):
                index[name] = engine.add_matrix(part.type(self.file), part.rows, part.k, *part.runs(self.file))
        for name, values in self.constants.items():
            index[name] = engine.add_vector(values)
        rows: dict[str, int] = {}
        for name, part in self.tables.items():
            with self._naming(part.tensor):
                rows[name] = engine.add_table(part.type(self.file), part.rows, part.k, *part.runs(self.file))
        for name, part in self.vectors.items():
            values = self.file.floats(part.tensor).reshape(-1, part.k)[part.first : part.first + part.rows]
            index[name] = engine.add_vector(values.T.flatten())
        buffers = {name: engine.add_buffer(width) for name, width in self.buffers.items()}
        for freq, mscale in self.ropes:
            engine.add_rope(freq, mscale)
        tables: dict[str, dict[str, int]] = {
            **dict.fromkeys(("src", "src2", "src3", "src4", "dst", "dst2"), buffers),
            **dict.fromkeys(("matrix", "matrix2", "vector", "vector2", "vector3"), index),
        }
        gathering = {**tables, "matrix": rows}
        for op in self.ops:
            known = gathering if op["kind"] == "gather" else tables
            operands: dict[str, Any] = {
                key: known[key][value] if key in known else value for key, value in op.items() if value is not None
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
