"""Embeddings: one vector for each text, many texts in one pass.

An encoder gets texts of similar length packed side by side into one step, without padding; a step is a call between two
steps of the scheduler. A generative model evaluates each text as a prompt without an answer, in the scheduler's own
batches, and its hidden state at the last token is the embedding.
"""

from __future__ import annotations

import queue
import threading
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ollamacore import _core
from ollamacore.dense import projection
from ollamacore.errors import (
    ClosedError,
    ContextLengthError,
    InvalidPromptError,
    OutOfMemoryError,
    UnsupportedModelError,
)
from ollamacore.gguf import GGUFFile
from ollamacore.sampling import SamplingOptions
from ollamacore.scheduler import Scheduler
from ollamacore.session import Chunk, Generation
from ollamacore.tokenizer import Tokenizer

Vectors = npt.NDArray[np.float32]

#: prompts of one call that the scheduler holds at a time, so that others get their turn
IN_FLIGHT = 8
#: how soon a call that waits for the scheduler sees its cancel event
CANCEL_SECONDS = 0.05

#: `<architecture>.pooling_type` -> how Engine.pool_hidden calls it
_POOLINGS = {1: "mean", 2: "first", 3: "last"}


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors (texts, dimensions) in the order of the texts, and the number of tokens of each text."""

    vectors: Vectors
    tokens: tuple[int, ...]


class Embedder:
    """Makes the embeddings of one model. Thread-safe."""

    def __init__(
        self,
        file: GGUFFile,
        tokenizer: Tokenizer,
        scheduler: Scheduler,
        *,
        is_encoder: bool,
        max_tokens: int,
        max_seqs: int,
    ) -> None:
        architecture: str = file.get("general.architecture", str)
        self._tokenizer = tokenizer
        self._scheduler = scheduler
        self._is_encoder = is_encoder
        self._max_tokens = max_tokens
        self._max_seqs = max_seqs
        self._width: int = file.get(f"{architecture}.embedding_length", int)
        self._projection = projection(file, self._width)
        self._kind: int = file.get(f"{architecture}.pooling_type", int, 1 if is_encoder else 3)

    def embed(
        self,
        texts: Sequence[str | Sequence[int]],
        *,
        num_ctx: int,
        truncate: bool,
        cancel: threading.Event | None,
        pooling: str | None = None,
    ) -> Embeddings:
        """The vectors as the model makes them; ContextLengthError for a text of more than num_ctx tokens.

        `pooling` replaces the one that the file asks for, and what stands behind it.
        """
        layer = self._projection if pooling is None else None
        pooling = pooling or self._pooling()
        prompts = [self._tokens(text, num_ctx, truncate) for text in texts]
        vectors = np.empty((len(prompts), self._width), dtype=np.float32)
        cancel = cancel or threading.Event()
        if self._is_encoder:
            self._encode(prompts, pooling, vectors, cancel)
        else:
            self._evaluate(prompts, num_ctx, vectors, cancel)
        if layer is not None:
            rows = [layer(vector.astype(np.float64)) for vector in vectors]
            vectors = np.array(rows, dtype=np.float32).reshape(-1, layer.n_out)
        return Embeddings(vectors, tuple(map(len, prompts)))

    def _pooling(self) -> str:
        pooling = _POOLINGS.get(self._kind)
        if pooling is None or not (self._is_encoder or pooling == "last"):
            raise UnsupportedModelError(f"embeddings with pooling type {self._kind} are not supported in this model")
        return pooling

    def _tokens(self, text: str | Sequence[int], num_ctx: int, truncate: bool) -> array[int]:
        """The ids of a text with the special tokens around it; a long text loses its end, and keeps them."""
        if not isinstance(text, str):
            ids = array("i", text)
            added = 0
        else:
            ids = array("i", self._tokenizer.encode(text))
            added = self._tokenizer.n_added
            if not ids:  # an empty text of a model that adds nothing: the mark of a beginning, or of an end
                marks = (self._tokenizer.bos, self._tokenizer.eos)
                ids.extend([mark for mark in marks if mark is not None][:1])
        if not ids:
            raise InvalidPromptError("a text to embed has no tokens")
        if len(ids) <= num_ctx:
            return ids
        if not truncate or num_ctx <= added:
            raise ContextLengthError(f"a text has {len(ids)} tokens, the context holds {num_ctx}")
        tail = ids[len(ids) - 1 :] if added and self._tokenizer.add_eos else array("i")
        return ids[: num_ctx - len(tail)] + tail

    # ---- encoders ----

    def _encode(
        self, prompts: list[array[int]], pooling: str, vectors: Vectors, cancel: threading.Event
    ) -> None:
        for batch in self._batches(prompts):
            if cancel.is_set():
                raise ClosedError("the embedding was cancelled")

            def compute(engine: _core.Engine, batch: list[int] = batch) -> None:
                _encode_batch(engine, [prompts[i] for i in batch], pooling, [vectors[i] for i in batch])

            self._scheduler.call(compute)

    def _batches(self, prompts: list[array[int]]) -> Iterator[list[int]]:
        """Indices of texts that fit one step; by length, so that full steps are easy to make."""
        batch: list[int] = []
        size = 0
        for index in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
            length = len(prompts[index])
            if batch and (size + length > self._max_tokens or len(batch) == self._max_seqs):
                yield batch
                batch, size = [], 0
            batch.append(index)
            size += length
        if batch:
            yield batch

    # ---- generative models ----

    def _evaluate(
        self, prompts: list[array[int]], num_ctx: int, vectors: Vectors, cancel: threading.Event
    ) -> None:
        ends: queue.SimpleQueue[Chunk] = queue.SimpleQueue()
        waiting = [_Prompt(prompt, num_ctx, ends, vectors[i]) for i, prompt in enumerate(prompts)]
        running: list[_Prompt] = []
        left = len(waiting)
        try:
            while left:
                while waiting and len(running) - (len(prompts) - left) < IN_FLIGHT:
                    running.append(waiting.pop())
                    self._scheduler.submit(running[-1])
                left -= _wait(ends, cancel)
        finally:
            for prompt in running:
                prompt.cancel()


class _Prompt(Generation):
    """A generation of no tokens, whose hidden state at the last token of the prompt is kept."""

    def __init__(
        self, prompt: array[int], num_ctx: int, ends: queue.SimpleQueue[Chunk], vector: Vectors
    ) -> None:
        super().__init__(prompt, SamplingOptions(num_predict=0), num_ctx, ends.put)
        self._vector = vector

    def prompt_done(self, engine: _core.Engine, row: int) -> None:
        engine.pool_hidden(row, 1, "last", self._vector)


def _wait(ends: queue.SimpleQueue[Chunk], cancel: threading.Event) -> int:
    """Wait for the end of a prompt; 1, or 0 when it is time to look at the clock again."""
    if cancel.is_set():
        raise ClosedError("the embedding was cancelled")
    try:
        chunk = ends.get(timeout=CANCEL_SECONDS)
    except queue.Empty:
        return 0
    if chunk.error is not None:
        raise chunk.error
    if chunk.done_reason == "cancelled":
        raise ClosedError("the model is closed")
    return 1


def _encode_batch(
    engine: _core.Engine, prompts: list[array[int]], pooling: str, vectors: list[Vectors]
) -> None:
    """One step over whole texts, pooled into vectors."""
    sequences = [_core.Sequence(engine) for _ in prompts]
    try:
        batch: list[tuple[_core.Sequence, array[int] | int, int]] = [
            (sequence, ids, len(ids)) for sequence, ids in zip(sequences, prompts, strict=True)
        ]
        if engine.step(batch) != _core.STEP_OK:
            raise OutOfMemoryError("the KV pool is full")
        first = 0
        for ids, vector in zip(prompts, vectors, strict=True):
            engine.pool_hidden(first, len(ids), pooling, vector)
            first += len(ids)
    finally:
        for sequence in sequences:
            sequence.close()


def shorten(vectors: Vectors, dimensions: int | None) -> Vectors:
    """The first `dimensions` values of each vector, where they have more."""
    return vectors[:, :dimensions] if dimensions is not None and dimensions > 0 else vectors


def normalized(vectors: Vectors) -> Vectors:
    """Each vector with length one; a zero vector stays."""
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return (vectors / np.where(length > 0, length, 1.0)[:, None]).astype(np.float32)
