"""What the server asks of an inference engine, and the engine that runs in this process.

The protocol is small and free of HTTP, so that an engine on another machine can stand behind it as well.
An engine belongs to one loaded model; every method may be called from the event loop and none blocks it.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from ollamacore import (
    AnswerFormat,
    AnswerParser,
    Chunk,
    ClosedError,
    Embeddings,
    InvalidPromptError,
    Model,
    ModelState,
    ModelText,
    SamplingOptions,
    Scores,
)
from server.models.mailbox import Mailbox

T = TypeVar("T")

#: Text up to this length is tokenised on the event loop: a thread hop would cost more.
INLINE_CHARACTERS = 1000
#: Embedding calls of one model that compute side by side; they wait in threads of their own, not in those that
#: everything else shares.
EMBEDDING_THREADS = 4

#: Requests that run at a time even where the KV pool has no room for as many full contexts.
LEAST_SEQUENCES = 4


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What a loaded model is, and what it is doing."""

    memory_bytes: int  # in use now
    reserved_bytes: int  # the most that it may come to use
    max_context: int  # the longest that it can give a request
    sequences: int  # requests that it can usefully run at a time
    state: ModelState | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a prompt has come before its first token."""

    done: int
    total: int


class Text(Protocol):
    """What can be done with a model's vocabulary and template alone, loaded or not."""

    @property
    def answer_format(self) -> AnswerFormat:
        """How the model of this template writes thoughts and tool calls."""

    async def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids of a text, special tokens recognised; ``add_special`` says whether it begins a prompt."""

    async def render(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
        """The prompt text of a conversation, by the model's chat template."""

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special tokens spelled out."""

    def accepts(self, tokens: Sequence[int]) -> bool:
        """Whether all ids are tokens of this model."""


class Engine(Text, Protocol):
    """A loaded model that can generate."""

    def stats(self) -> EngineStats:
        """What the model is, and what it is doing."""

    def generate(
        self,
        tokens: Sequence[int],
        options: SamplingOptions,
        *,
        progress: bool = False,
        format: object = None,
        answer: AnswerParser | None = None,
    ) -> AsyncGenerator[Chunk | Progress, None]:
        """Run the model on a prompt. The last chunk has a done_reason; closing the generator cancels.

        With ``progress`` it also tells, before the first chunk, how far the prompt has come. ``format``: what the
        content of the answer will be, see ollamacore.Model.generate. ``answer`` takes thoughts and tool calls out of
        the text.
        """

    async def embed(
        self, texts: Sequence[str], *, num_ctx: int, truncate: bool, dimensions: int | None, normalize: bool
    ) -> Embeddings:
        """A vector for each text; see ollamacore.Model.embed. Cancelling it ends the computation soon."""

    async def rerank(self, query: str, documents: Sequence[str], *, num_ctx: int) -> Scores:
        """How well each document answers the query; see ollamacore.Model.rerank."""

    async def unload(self) -> None:
        """Free the model; generations that still run end."""


class EngineLoader(Protocol):
    """Makes engines."""

    async def text(self, path: Path) -> Text:
        """The vocabulary and template of a model file, without its weights."""

    async def needs(self, path: Path, *, context: int, memory: int) -> int:
        """Bytes that a model takes at least when it is loaded for requests of up to ``context`` tokens.

        OutOfMemoryError if that is more than ``memory``.
        """

    async def load(
        self, path: Path, *, context: int, memory: int, on_progress: Callable[[float], None]
    ) -> Engine:
        """Load a model file into at most ``memory`` bytes.

        on_progress hears the loaded fraction, on the event loop. Cancelling gives the load up; the call then
        ends when nothing of it is left.
        """


class LocalText:
    """The ollamacore.ModelText of a model."""

    def __init__(self, text: ModelText):
        self._text = text

    @property
    def answer_format(self) -> AnswerFormat:
        """How the model of this template writes thoughts and tool calls."""
        return self._text.answer_format

    async def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids of a text, special tokens recognised; ``add_special`` says whether it begins a prompt."""
        if len(text) <= INLINE_CHARACTERS:
            return self._tokenize(text, add_special)
        return await asyncio.to_thread(self._tokenize, text, add_special)

    def _tokenize(self, text: str, add_special: bool) -> list[int]:
        if add_special:
            return self._text.tokenize_prompt(text)
        ids = self._text.tokenize(text, add_special=False)
        return ids[1:] if ids[:1] == [self._text.tokenizer.bos] else ids

    async def render(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
        """The prompt text of a conversation, by the model's chat template."""
        return await asyncio.to_thread(self._text.render_chat, messages, **variables)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special tokens spelled out."""
        if not LocalText.accepts(self, tokens):
            raise InvalidPromptError(f"token ids must lie between 0 and {self._text.tokenizer.n_vocab - 1}")
        return await asyncio.to_thread(self._text.detokenize, tokens, special=True)

    def accepts(self, tokens: Sequence[int]) -> bool:
        """Whether all ids are tokens of this model."""
        return not tokens or (min(tokens) >= 0 and max(tokens) < self._text.tokenizer.n_vocab)


class LocalEngine(LocalText):
    """An ollamacore.Model in this process: it computes on its own thread, chunks come by mailbox to the event loop."""

    def __init__(self, model: Model, mailbox: Mailbox[Chunk | Progress], sequences: int = LEAST_SEQUENCES):
        super().__init__(model.text)
        self._model = model
        self._mailbox = mailbox
        self._embedding = ThreadPoolExecutor(EMBEDDING_THREADS, thread_name_prefix="embed")
        self._sequences = sequences

    def stats(self) -> EngineStats:
        """What the model is, and what it is doing."""
        model = self._model
        return EngineStats(
            model.memory_bytes, model.reserved_bytes, model.max_context, self._sequences, model.state
        )

    def accepts(self, tokens: Sequence[int]) -> bool:
        """Whether all ids are tokens of this model."""
        return not tokens or (min(tokens) >= 0 and max(tokens) < self._model.n_vocab)

    async def generate(
        self,
        tokens: Sequence[int],
        options: SamplingOptions,
        *,
        progress: bool = False,
        format: object = None,
        answer: AnswerParser | None = None,
    ) -> AsyncGenerator[Chunk | Progress, None]:
        """Run the model on a prompt. The last chunk has a done_reason; closing the generator cancels."""
        has_format = format is not None and format != ""
        constraint = await asyncio.to_thread(self._model.constraint, format) if has_format else None
        queue: asyncio.Queue[Chunk | Progress] = asyncio.Queue()
        deliver = partial(self._mailbox.post, queue)

        def report(computed: int) -> None:
            deliver(Progress(computed, len(tokens)))

        hear = report if progress else None
        generation = self._model.submit(
            tokens, options, deliver, constraint=constraint, on_progress=hear, answer=answer
        )
        done = False
        try:
            while not done:
                chunk = await queue.get()
                if isinstance(chunk, Progress):
                    yield chunk
                    continue
                done = chunk.done_reason is not None
                if chunk.error is not None:
                    raise chunk.error
                yield chunk
        finally:
            if not done:
                generation.cancel()

    async def embed(
        self, texts: Sequence[str], *, num_ctx: int, truncate: bool, dimensions: int | None, normalize: bool
    ) -> Embeddings:
        """A vector for each text; see ollamacore.Model.embed. Cancelling it ends the computation soon."""
        cancel = threading.Event()
        options: dict[str, Any] = {"num_ctx": num_ctx, "truncate": truncate, "dimensions": dimensions}
        call = partial(self._model.embed, texts, normalize=normalize, cancel=cancel, **options)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._embedding, call)
        finally:
            cancel.set()

    async def rerank(self, query: str, documents: Sequence[str], *, num_ctx: int) -> Scores:
        """How well each document answers the query. Cancelling it ends the computation soon."""
        cancel = threading.Event()
        call = partial(self._model.rerank, query, documents, num_ctx=num_ctx, cancel=cancel)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._embedding, call)
        finally:
            cancel.set()

    async def unload(self) -> None:
        """Free the model; generations that still run end."""
        self._embedding.shutdown(wait=False)
        await in_thread(self._model.close)
        self._mailbox.close()


class LocalLoader:
    """Loads GGUF files into this process; ``options`` are keyword arguments of Model.load that all models share."""

    def __init__(
        self, threads: int | None, *, kv_bytes: int | None = None, kv_type: str = "f16", **options: Any
    ):
        self._kv: dict[str, Any] = {"kv_bytes": kv_bytes, "kv_type": kv_type}
        self._options = {"threads": threads, **options}

    async def text(self, path: Path) -> LocalText:
        """The vocabulary and template of a model file, without its weights."""
        return LocalText(await asyncio.to_thread(ModelText.open, path))

    async def needs(self, path: Path, *, context: int, memory: int) -> int:
        """Bytes that a model takes at least; OutOfMemoryError if that is more than ``memory``."""
        return await asyncio.to_thread(
            Model.memory_needed, path, context=context, memory=memory, **self._kv
        )

    async def load(
        self, path: Path, *, context: int, memory: int, on_progress: Callable[[float], None]
    ) -> LocalEngine:
        """Load a model file into at most ``memory`` bytes; a load that is given up is closed before this ends."""
        loop = asyncio.get_running_loop()
        mailbox: Mailbox[Chunk | Progress] = Mailbox()
        given_up = threading.Event()

        def progress(fraction: float) -> None:
            if given_up.is_set():
                raise ClosedError("the load was given up")
            loop.call_soon_threadsafe(on_progress, fraction)

        def load() -> Model:
            return Model.load(
                path,
                context=context,
                memory=memory,
                on_progress=progress,
                bell=mailbox.bell,
                **self._kv,
                **self._options,
            )

        loading = in_thread(load)
        try:
            model = await asyncio.shield(loading)
            return LocalEngine(model, mailbox, max(LEAST_SEQUENCES, model.sequences(context)))
        except asyncio.CancelledError:
            given_up.set()
            with suppress(Exception):
                await in_thread((await loading).close)
            mailbox.close()
            raise
        except BaseException:
            mailbox.close()
            raise


def in_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """The result of a function that runs in a thread of its own.

    Loads and unloads may hang on a disk: in a thread of the shared pool they would hold up everybody's
    tokenising, and the end of the process.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(T, result))

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:  # noqa: BLE001  it is raised where the future is awaited
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=run, name=f"ollamacore-{function.__name__}", daemon=True).start()
    return future
