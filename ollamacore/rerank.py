"""Reranking: how well a document answers a query, by a model that reads both and a head that scores the pair.

The head is the file's, computed in double precision, one pair at a time, so a score depends on nothing but its pair.
An encoder's head reads the hidden state of the first token, through `cls` and tanh where there is such a layer, times
`cls.output`; ModernBERT's reads the mean, through GELU and `cls.norm`. A file without `cls.output` has one layer,
`cls`. A generative model (Qwen3-Reranker) reads both texts in a prompt that its file has a template for; its head gives
the logits of "yes" and "no" for the hidden state of the last token.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ollamacore.dense import Dense, Values
from ollamacore.errors import ContextLengthError, InvalidFileError
from ollamacore.gguf import GGUFFile
from ollamacore.tokenizer import Tokenizer

#: `<architecture>.pooling_type` of a model with a head
RANK = 4
#: where a template has its texts
_QUERY, _DOCUMENT = "{query}", "{document}"


@dataclass(frozen=True, slots=True)
class Scores:
    """A relevance between 0 and 1 for each document, in their order, and the number of tokens of each pair."""

    relevance: tuple[float, ...]
    tokens: tuple[int, ...]


class RankHead:
    """The scoring head of a model file."""

    def __init__(self, file: GGUFFile, *, is_encoder: bool) -> None:
        width: int = file.get(f"{file.architecture}.embedding_length", int)
        layers = [Dense.read(file, name, width) for name in ("cls", "cls.output") if f"{name}.weight" in file.tensors]
        if len(layers) == 2 and layers[0].n_out != width:
            raise InvalidFileError(f"cls.weight has {layers[0].n_out} rows, not {width}")
        self._dense = layers[0] if len(layers) == 2 else None
        self._output = layers[-1]
        has_norm = "cls.norm.weight" in file.tensors
        self._norm = file.floats("cls.norm.weight", width).astype(np.float64) if has_norm else None
        self._eps: float = file.get(f"{file.architecture}.attention.layer_norm_epsilon", float, 0.0)
        self._is_encoder = is_encoder
        #: of which hidden states it reads the mean, the first or the last
        self.pooling = "last" if not is_encoder else "mean" if has_norm else "first"

    def relevance(self, hidden: npt.NDArray[np.float32]) -> float:
        """The probability of the first label: of a generative model's among all, of an encoder's by itself."""
        x = hidden.astype(np.float64)
        if self._dense is not None:
            x = self._dense(x)
            x = np.tanh(x) if self._norm is None else self._gelu_normed(x, self._norm)
        logits = self._output(x)
        others = np.zeros(1) if self._is_encoder else logits[1:]
        return float(1 / (1 + np.exp(others - logits[0]).sum()))

    def _gelu_normed(self, x: Values, weight: Values) -> Values:
        """Layernorm of GELU."""
        x = np.array([0.5 * value * math.erfc(-value / math.sqrt(2)) for value in x])
        x -= x.mean()
        normed: Values = x / math.sqrt((x @ x) / len(x) + self._eps) * weight
        return normed


def has_rank_head(file: GGUFFile) -> bool:
    """Whether a model scores pairs."""
    has_head = not {"cls.weight", "cls.output.weight"}.isdisjoint(file.tensors)
    return has_head and file.metadata.get(f"{file.architecture}.pooling_type") == RANK


class PairTokenizer:
    """Queries and documents as a model's head wants to read them."""

    def __init__(self, file: GGUFFile, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        template: str = file.get("tokenizer.chat_template.rerank", str, "")
        self._template = template.split(_DOCUMENT, 1) if template else None
        if self._template is not None and len(self._template) < 2:
            raise InvalidFileError(f"tokenizer.chat_template.rerank has no {_DOCUMENT}")

    def pair(self, query: str, document: str, limit: int) -> array[int]:
        """The ids of both; a long document loses its end. ContextLengthError where none fits."""
        if self._template is not None:
            before, after = (part.replace(_QUERY, query) for part in self._template)
            start, end = self._ids(before), self._ids(after)
            ids = self._ids(before + document)
        else:
            start = array("i", self._tokenizer.encode(query))
            end = start[len(start) - 1 :] if self._tokenizer.add_eos else array("i")
            if self._tokenizer.separator is not None:
                start.append(self._tokenizer.separator)
            ids = start + self._ids(document)
        if len(start) + len(end) >= limit:
            raise ContextLengthError(f"the query has {len(start)} tokens, the context holds {limit}")
        return ids[: limit - len(end)] + end

    def _ids(self, text: str) -> array[int]:
        return array("i", self._tokenizer.encode(text, add_special=False))
