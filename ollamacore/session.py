"""One generation, seen from outside: its options, the chunks that come back, and the text between tokens and chunks."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ollamacore._core import Engine, TokenStream, lengthen_slice
from ollamacore.constraint import TokenConstraint
from ollamacore.errors import EngineError, OllamaCoreError
from ollamacore.partial import overlap
from ollamacore.prompt.answer import AnswerParser, ToolCall
from ollamacore.prompt.harmony import Thought
from ollamacore.sampling import SamplingOptions

DoneReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability of a token over the whole vocabulary, before any sampler."""

    token: str
    bytes: bytes
    id: int
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts and times of a finished generation; durations in nanoseconds."""

    prompt_tokens: int
    cached_tokens: int
    prompt_ns: int
    generated_tokens: int
    eval_ns: int
    #: tokens that were cut out of the prompt because it was longer than the context
    dropped_tokens: int = 0
    #: times that the full context lost its older half while the answer was generated
    context_shifts: int = 0
    #: tokens that prompt lookup proposed, and those of them that came true: they cost no step of their own
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(slots=True)
class Chunk:
    """A piece of the answer: text, or, where the answer is parsed, text of a thought or a tool call.

    The last chunk of a generation has `done_reason` and `stats`; no other has. Not frozen, as that makes it twice as
    dear, and there is one for each token.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    done_reason: DoneReason | None = None
    stats: Stats | None = None
    error: OllamaCoreError | None = None
    thinking: str = ""
    tool_call: ToolCall | None = None


class EngineThread(threading.Thread):
    """The thread of a model's steps, in which receivers of chunks are called.

    A step may be under way then, and the steps of all other models wait for its end. So who waits for any model there
    waits for ever.
    """

    def run(self) -> None:
        """Run the target, with time slices like those of the engine's other threads."""
        lengthen_slice()
        super().run()

    @staticmethod
    def need_other() -> None:
        """EngineError in such a thread."""
        if isinstance(threading.current_thread(), EngineThread):
            raise EngineError("a receiver of chunks must return at once, and cannot wait for a model")


class Generation:
    """A handle on a submitted generation.

    `Model.generate` and `Model.chat` return it as an iterator of chunks; it raises the chunk's error, if there is one.
    `cancel` may be called from any thread, and leaving the iteration early with `close` cancels too.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        options: SamplingOptions,
        num_ctx: int,
        on_chunk: Callable[[Chunk], None] | None,
        dropped_tokens: int = 0,
        constraint: TokenConstraint | None = None,
        on_progress: Callable[[int], None] | None = None,
        answer: AnswerParser | None = None,
    ) -> None:
        self.prompt = prompt
        self.options = options
        self.num_ctx = num_ctx
        self.dropped_tokens = dropped_tokens
        self.constraint = constraint
        #: takes thoughts and tool calls out of the text; None where all of it is content
        self.answer = answer
        self.stats: Stats | None = None
        self.done_reason: DoneReason | None = None
        self._queue: queue.SimpleQueue[Chunk] | None = None
        self._is_read = False  # the last chunk has left the queue
        if on_chunk is None:
            self._queue = queue.SimpleQueue()
            on_chunk = self._queue.put
        self._on_chunk = on_chunk
        self._on_progress = on_progress
        self._cancel_step: Callable[[], None] | None = None
        #: whether `cancel` was called
        self.cancelled = False

    def cancel(self) -> None:
        """Stop within one layer of one chunk; the last chunk then says "cancelled"."""
        self.cancelled = True
        cancel_step = self._cancel_step
        if cancel_step is not None:
            cancel_step()

    def attach(self, cancel_step: Callable[[], None]) -> None:
        """Called by the scheduler: how to interrupt a step that is under way."""
        self._cancel_step = cancel_step
        if self.cancelled:
            cancel_step()

    def prompt_done(self, engine: Engine, row: int) -> None:
        """Called by the scheduler, in the engine's thread: output `row` is that of the prompt's last token."""

    def report(self, done: int) -> None:
        """Called by the scheduler, in the engine's thread: so many tokens of the prompt are computed."""
        if self._on_progress is not None:
            self._on_progress(done)

    def deliver(self, chunk: Chunk) -> None:
        """Called by the scheduler, in the engine's thread: hand a chunk to the receiver."""
        if chunk.done_reason is not None:
            self.stats, self.done_reason, self._cancel_step = chunk.stats, chunk.done_reason, None
        for part in split(self.answer, chunk) if self.answer else (chunk,):
            self._on_chunk(part)

    def __iter__(self) -> Iterator[Chunk]:
        if self._queue is None:
            raise TypeError("this generation delivers its chunks to a callback")
        EngineThread.need_other()
        try:
            while not self._is_read:
                chunk = self._queue.get()
                self._is_read = chunk.done_reason is not None
                if chunk.error is not None:
                    raise chunk.error
                yield chunk
        finally:
            if self.done_reason is None:
                self.cancel()

    def text(self) -> str:
        """Wait for the end and return the whole text, without thoughts and tool calls."""
        return "".join(chunk.text for chunk in self)


def split(answer: AnswerParser, chunk: Chunk) -> list[Chunk]:
    """A chunk as those of its parts: the first has its tokens, the last says that it is the last one."""
    parts = answer.push(chunk.text)
    if chunk.done_reason in ("stop", "length"):
        parts += answer.finish()
    chunks = [_chunk_of(part) for part in parts]
    if chunk.done_reason is not None and not (chunks and isinstance(parts[-1], str)):
        chunks.append(Chunk(""))
    chunks = chunks or [Chunk("")]
    chunks[0].tokens, chunks[0].logprobs = chunk.tokens, chunk.logprobs
    chunks[-1].done_reason, chunks[-1].stats, chunks[-1].error = chunk.done_reason, chunk.stats, chunk.error
    return chunks


def _chunk_of(part: str | Thought | ToolCall) -> Chunk:
    if isinstance(part, str):
        return Chunk(part)
    return Chunk("", thinking=part.text) if isinstance(part, Thought) else Chunk("", tool_call=part)


@dataclass(slots=True)
class TextAssembler:
    """Turns tokens into text that is final: whole UTF-8 characters, and nothing that may become a stop string.

    `visible` are control tokens that are text nevertheless.
    """

    stream: TokenStream
    stops: tuple[str, ...]
    visible: Mapping[int, str] = field(default_factory=dict)
    held: str = ""
    stopped: bool = field(default=False, init=False)

    def push(self, token: int) -> str:
        """Text that this token makes final; sets `stopped` when a stop string is complete (it is cut off)."""
        text = self._text(token)
        if not self.stops:
            return text
        text = self.held + text
        found = [at for at in (text.find(stop) for stop in self.stops) if at >= 0]
        if found:
            self.stopped, self.held = True, ""
            return text[: min(found)]
        keep = max((overlap(text, stop) for stop in self.stops), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _text(self, token: int) -> str:
        shown = self.visible.get(token)
        return self.stream.push(token) if shown is None else self.stream.flush() + shown

    def flush(self) -> str:
        """The text still held back when generation ends without a stop string; an incomplete character is dropped."""
        text, self.held = self.held + self.stream.flush(), ""
        return text
