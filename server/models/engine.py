"""What the server asks of an inference engine, and the engine that runs in this process.

The protocol is small and free of HTTP, so that an engine on another machine can stand behind it as well.
An engine belongs to one loaded model; every method may be called from the event loop and none blocks it.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ollamacore import Chunk, Model, SamplingOptions

#: Text up to this length is tokenised on the event loop: a thread hop would cost more.
INLINE_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The size of a loaded model, and the longest context that it can give a request."""

    memory_bytes: int
    max_context: int


class Engine(Protocol):
    """A loaded model that can generate."""

    def stats(self) -> EngineStats:
        """Memory in use and the longest context."""

    async def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids of a text, special tokens recognised; ``add_special`` says whether it begins a prompt."""

    async def render(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
        """The prompt text of a conversation, by the model's chat template."""

    def accepts(self, tokens: Sequence[int]) -> bool:
        """Whether all ids are tokens of this model."""

    def generate(self, tokens: Sequence[int], options: SamplingOptions) -> AsyncGenerator[Chunk, None]:
        """Run the model on a prompt. The last chunk has a done_reason; closing the generator cancels."""

    async def unload(self) -> None:
        """Free the model; generations that still run end."""


class EngineLoader(Protocol):
    """Makes engines."""

    async def load(self, path: Path, *, context: int) -> Engine:
        """Load a model file for requests of up to ``context`` tokens."""


class LocalEngine:
    """An ollamacore.Model in this process: it computes on its own thread, chunks hop to the event loop."""

    def __init__(self, model: Model):
        self._model = model

    def stats(self) -> EngineStats:
        """Memory in use and the longest context."""
        return EngineStats(self._model.memory_bytes, self._model.max_context)

    async def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids of a text, special tokens recognised; ``add_special`` says whether it begins a prompt."""
        if len(text) <= INLINE_CHARACTERS:
            return self._tokenize(text, add_special)
        return await asyncio.to_thread(self._tokenize, text, add_special)

    def _tokenize(self, text: str, add_special: bool) -> list[int]:
        if add_special:
            return self._model.tokenize_prompt(text)
        ids = self._model.tokenize(text, add_special=False)
        return ids[1:] if ids[:1] == [self._model.tokenizer.bos] else ids

    async def render(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
        """The prompt text of a conversation, by the model's chat template."""
        return await asyncio.to_thread(self._model.render_chat, messages, **variables)

    def accepts(self, tokens: Sequence[int]) -> bool:
        """Whether all ids are tokens of this model."""
        return not tokens or (min(tokens) >= 0 and max(tokens) < self._model.n_vocab)

    async def generate(self, tokens: Sequence[int], options: SamplingOptions) -> AsyncGenerator[Chunk, None]:
        """Run the model on a prompt. The last chunk has a done_reason; closing the generator cancels."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Chunk] = asyncio.Queue()

        def deliver(chunk: Chunk) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody is left to hear it
                loop.call_soon_threadsafe(queue.put_nowait, chunk)

        generation = self._model.submit(tokens, options, deliver)
        done = False
        try:
            while not done:
                chunk = await queue.get()
                done = chunk.done_reason is not None
                if chunk.error is not None:
                    raise chunk.error
                yield chunk
        finally:
            if not done:
                generation.cancel()

    async def unload(self) -> None:
        """Free the model; generations that still run end."""
        await asyncio.to_thread(self._model.close)


class LocalLoader:
    """Loads GGUF files into this process."""

    def __init__(self, threads: int | None, kv_type: str = "f16"):
        self._threads = threads
        self._kv_type = kv_type

    async def load(self, path: Path, *, context: int) -> LocalEngine:
        """Load a model file for requests of up to ``context`` tokens."""
        options: dict[str, Any] = {"threads": self._threads, "kv_type": self._kv_type, "context": context}
        model: Model = await asyncio.to_thread(Model.load, path, **options)
        return LocalEngine(model)
