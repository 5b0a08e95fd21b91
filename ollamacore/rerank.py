"""Reranking: how well a document answers a query, by an encoder that reads both and a head that scores the pair.

The head is the file's: the hidden state of the first token, through `cls` and tanh where there is one, times
`cls.output`. It is computed in double precision, one pair at a time, so a score depends on nothing but its pair.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ollamacore import _core
from ollamacore.errors import ContextLengthError, InvalidFileError
from ollamacore.gguf import GGUFFile
from ollamacore.tokenizer import Tokenizer

_Matrix = npt.NDArray[np.float64]

#: `<architecture>.pooling_type` of a model with a head
RANK = 4


@dataclass(frozen=True, slots=True)
class Scores:
    """A relevance between 0 and 1 for each document, in their order, and the number of tokens of each pair."""

    relevance: tuple[float, ...]
    tokens: tuple[int, ...]


class RankHead:
    """The scoring head of a model file."""

    def __init__(self, file: GGUFFile) -> None:
        width: int = file.get(f"{file.architecture}.embedding_length", int)
        self._dense = _layer(file, "cls", width) if "cls.weight" in file.tensors else None
        self._output = _layer(file, "cls.output", width)
        if self._dense is not None and len(self._dense[1]) != width:
            raise InvalidFileError(f"cls.weight has {len(self._dense[1])} rows, not {width}")

    def relevance(self, hidden: npt.NDArray[np.float32]) -> float:
        """The first label's logit for the hidden state of a pair's first token, as a probability."""
        x = hidden.astype(np.float64)
        if self._dense is not None:
            x = np.tanh(self._dense[0] @ x + self._dense[1])
        weight, bias = self._output
        return float(1 / (1 + np.exp(-(weight[0] @ x + bias[0]))))


def has_rank_head(file: GGUFFile) -> bool:
    """Whether a model scores pairs."""
    return file.metadata.get(f"{file.architecture}.pooling_type") == RANK and "cls.output.weight" in file.tensors


def pair(tokenizer: Tokenizer, query: str, document: str, limit: int) -> array[int]:
    """The ids of a query and a document; a long document loses its end. ContextLengthError where none fits."""
    ids = array("i", tokenizer.encode(query))
    end = ids[len(ids) - 1 :] if tokenizer.add_eos else array("i")
    if tokenizer.separator is not None:
        ids.append(tokenizer.separator)
    room = limit - len(ids) - len(end)
    if room < 1:
        raise ContextLengthError(f"the query has {len(ids)} tokens, the context holds {limit}")
    return ids + array("i", tokenizer.encode(document, add_special=False))[:room] + end


def _layer(file: GGUFFile, name: str, width: int) -> tuple[_Matrix, _Matrix]:
    """Weights (outputs, width) and biases of a layer."""
    info = file.tensors[f"{name}.weight"]
    if info.shape[0] != width or len(info.shape) > 2:
        raise InvalidFileError(f"{name}.weight has the shape {info.shape}; its rows must hold {width} values")
    weight = _decoded(file, f"{name}.weight").reshape(-1, width)
    if f"{name}.bias" not in file.tensors:
        return weight, np.zeros(len(weight))
    bias = _decoded(file, f"{name}.bias")
    if len(bias) != len(weight):
        raise InvalidFileError(f"{name}.bias has {len(bias)} values for {len(weight)} rows")
    return weight, bias


def _decoded(file: GGUFFile, name: str) -> _Matrix:
    """The values of a tensor."""
    info = file.tensors[name]
    values = np.empty(info.n_values, dtype=np.float32)
    _core.dequantize(info.type, file.data(name), values.data)
    return values.astype(np.float64)
