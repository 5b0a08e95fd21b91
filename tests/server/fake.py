"""An engine without weights: it says what the test scripted, when the test lets it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import numpy as np

from ollamacore import (
    AnswerFormat,
    Chunk,
    ContextLengthError,
    Embeddings,
    InvalidPromptError,
    ModelState,
    OllamaCoreError,
    OutOfMemoryError,
    SamplingOptions,
    Scores,
    Stats,
    TokenLogprob,
)
from ollamacore.session import split
from server.models.engine import EngineStats, Progress

BOS = 256
END = 257
N_VOCAB = 258


class Script:
    """What engines say and how they behave; shared by all engines of a loader, changed by tests."""

    def __init__(self) -> None:
        self.pieces: list[str] = ["Hel", "lo"]
        self.tail = ""  # text of the last chunk
        self.done_reason = "stop"
        self.error: OllamaCoreError | None = None
        self.hold_load: asyncio.Event | None = None
        self.hold_prompt: asyncio.Event | None = None
        self.pause_s = 0.0  # between two pieces
        self.sizes: dict[str, int] = {}  # bytes that a model needs and reserves, by file name
        self.progress: list[float] = []  # that a held load makes before it hangs
        self.load_errors: list[Exception] = []
        self.loads: list[tuple[Path, int]] = []
        self.unloads: list[Path] = []
        self.prompts: list[list[int]] = []
        self.options: list[SamplingOptions] = []
        self.embedded: list[tuple] = []
        self.vector_scale = 1.0
        self.rendered: list[tuple[list[dict], dict]] = []
        self.started = asyncio.Event()
        self.cancelled = 0
        self.running = 0
        self.texts: list[Path] = []  # vocabularies read without weights
        self.state: ModelState | None = None
        self.progress_records: list[int] = []
        self.answer_format = AnswerFormat()

    def text(self, index: int = -1) -> str:
        """The text of a prompt that an engine got."""
        return bytes(token for token in self.prompts[index] if token < 256).decode()


def parts(answer, chunk: Chunk) -> list[Chunk]:
    return split(answer, chunk) if answer else [chunk]


class FakeText:
    """Tokens are bytes; the chat template writes <role>content lines."""

    def __init__(self, script: Script):
        self.script = script

    @property
    def answer_format(self) -> AnswerFormat:
        return self.script.answer_format

    async def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        return [BOS] * add_special + list(text.encode())

    async def render(self, messages, **variables) -> str:
        self.script.rendered.append((list(messages), variables))
        return "".join(f"<{m['role']}>{m['content']}\n" for m in messages) + "<assistant>"

    def accepts(self, tokens: Sequence[int]) -> bool:
        return all(0 <= token < N_VOCAB for token in tokens)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        if not self.accepts(tokens):
            raise InvalidPromptError("no token")
        return bytes(token for token in tokens if token < BOS).decode(errors="replace")


class FakeEngine(FakeText):
    """Says what its script says."""

    def __init__(self, script: Script, path: Path, context: int):
        super().__init__(script)
        self.path = path
        self.context = context

    def stats(self) -> EngineStats:
        size = self.script.sizes.get(self.path.name, 2000)
        return EngineStats(1000, size, self.context, sequences=4, state=self.script.state)

    async def generate(
        self, tokens: Sequence[int], options: SamplingOptions, *, progress: bool = False, answer=None
    ) -> AsyncGenerator[Chunk | Progress, None]:
        script = self.script
        script.prompts.append(list(tokens))
        script.options.append(options)
        script.running += 1
        done = False
        try:
            script.started.set()
            if script.hold_prompt is not None:
                await script.hold_prompt.wait()
            for computed in script.progress_records if progress else ():
                yield Progress(computed, len(tokens))
            pieces, reason = script.pieces, script.done_reason
            if 0 <= options.num_predict < len(pieces):
                pieces, reason = pieces[: options.num_predict], "length"
            for piece in pieces:
                if script.pause_s:
                    await asyncio.sleep(script.pause_s)
                for chunk in parts(answer, Chunk(piece, tuple(piece.encode()), self._logprobs(piece, options))):
                    yield chunk
            if script.error is not None:
                raise script.error
            done = True
            ended = reason == "stop"
            stats = Stats(len(tokens), 0, 5_000_000, len(pieces) + ended, 7_000_000)
            for chunk in parts(answer, Chunk(script.tail, (END,) * ended, None, reason, stats)):
                yield chunk
        finally:
            script.running -= 1
            script.cancelled += not done

    def _logprobs(self, piece: str, options: SamplingOptions) -> tuple[TokenLogprob, ...] | None:
        if not options.logprobs:
            return None
        top = TokenLogprob(piece, piece.encode(), 1, -0.25, ())
        return (TokenLogprob(piece, piece.encode(), 1, -0.25, (top,) * options.top_logprobs),)

    async def embed(self, texts, *, num_ctx, truncate, dimensions, normalize) -> Embeddings:
        script = self.script
        script.embedded.append((list(texts), num_ctx, truncate, dimensions, normalize))
        counts = tuple(len(text) + 2 for text in texts)
        if max(counts) > num_ctx and not truncate:
            raise ContextLengthError("too long")
        vectors = np.tile(np.float32([0.6, 0.8]), (len(texts), 1)) * np.float32(script.vector_scale)
        return Embeddings(vectors, counts)

    async def rerank(self, query, documents, *, num_ctx) -> Scores:
        if len(query) > num_ctx:
            raise ContextLengthError("too long")
        return Scores(tuple(len(text) / 100 for text in documents), tuple(len(text) for text in documents))

    async def unload(self) -> None:
        self.script.unloads.append(self.path)


class FakeLoader:
    """Loads fake engines."""

    def __init__(self, script: Script):
        self.script = script

    async def text(self, path: Path) -> FakeText:
        self.script.texts.append(path)
        return FakeText(self.script)

    async def needs(self, path: Path, *, context: int, memory: int) -> int:
        size = self.script.sizes.get(path.name, 2000)
        if size > memory:
            raise OutOfMemoryError(f"{path.name} needs {size} of {memory}")
        return size

    async def load(self, path: Path, *, context: int, memory: int, on_progress) -> FakeEngine:
        self.script.loads.append((path, context))
        on_progress(0.0)
        while self.script.progress and self.script.hold_load is not None:
            await asyncio.sleep(0.001)
            on_progress(self.script.progress.pop(0))
        if self.script.hold_load is not None:
            await self.script.hold_load.wait()
        if self.script.load_errors:
            raise self.script.load_errors.pop(0)
        return FakeEngine(self.script, path, context)
