"""Small layers behind the pooled hidden state, computed in double precision, one vector at a time.

So the bits of a result depend on nothing but its own vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ollamacore import _core
from ollamacore.errors import InvalidFileError
from ollamacore.gguf import GGUFFile

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Dense:
    """A layer: weight (outputs, inputs) and bias (outputs)."""

    weight: Values
    bias: Values

    @classmethod
    def read(cls, file: GGUFFile, name: str, width: int) -> Dense:
        """The layer `name` with `width` inputs; without a bias in the file it is zero."""
        info = file.tensors[f"{name}.weight"]
        if info.shape[0] != width or len(info.shape) > 2:
            raise InvalidFileError(f"{name}.weight has the shape {info.shape}; its rows must hold {width} values")
        weight = _decoded(file, f"{name}.weight").reshape(-1, width)
        if f"{name}.bias" not in file.tensors:
            return cls(weight, np.zeros(len(weight)))
        bias = _decoded(file, f"{name}.bias")
        if len(bias) != len(weight):
            raise InvalidFileError(f"{name}.bias has {len(bias)} values for {len(weight)} rows")
        return cls(weight, bias)

    @property
    def n_out(self) -> int:
        """Outputs."""
        return len(self.weight)

    def __call__(self, x: Values) -> Values:
        """The outputs of one vector."""
        result: Values = self.weight @ x + self.bias
        return result

    def then(self, other: Dense) -> Dense:
        """This layer and another one behind it, as one."""
        return Dense(other.weight @ self.weight, other(self.bias))


def projection(file: GGUFFile, width: int) -> Dense | None:
    """What a sentence-transformers model has behind its pooling: `dense_2` and `dense_3`, without activations."""
    found: Dense | None = None
    for name in ("dense_2", "dense_3"):
        if f"{name}.weight" in file.tensors:
            layer = Dense.read(file, name, width)
            found, width = (layer if found is None else found.then(layer)), layer.n_out
    return found


def _decoded(file: GGUFFile, name: str) -> Values:
    """The values of a tensor."""
    info = file.tensors[name]
    values = np.empty(info.n_values, dtype=np.float32)
    _core.dequantize(info.type, file.data(name), values.data)
    return values.astype(np.float64)
