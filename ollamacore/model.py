"""Model: a loaded GGUF file - weights, KV pool, tokenizer, chat template - and the thread that computes on it."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ollamacore import _core, machine
from ollamacore.after_thinking import after_thinking
from ollamacore.arch import build_plan
from ollamacore.arch.plan import Plan
from ollamacore.constraint import GrammarConstraint, TokenConstraint
from ollamacore.context import crop
from ollamacore.embedding import Embedder, Embeddings, normalized, shorten
from ollamacore.errors import (
    ContextLengthError,
    InvalidOptionError,
    InvalidPromptError,
    OptionRangeError,
    OutOfMemoryError,
    UnsupportedModelError,
)
from ollamacore.gguf import GGUFFile
from ollamacore.grammar import compile_format
from ollamacore.memory import BETWEEN_STEPS, MAX_SEQS, MAX_TOKENS, Memory, MemoryRequest, memory_of
from ollamacore.prefix import BLOCK
from ollamacore.prefix_store import PrefixFile, PrefixStore
from ollamacore.prompt.answer import AnswerParser
from ollamacore.rerank import PairTokenizer, RankHead, Scores, has_rank_head
from ollamacore.sampling import SamplingOptions
from ollamacore.scheduler import Scheduler
from ollamacore.session import Chunk, EngineThread, Generation
from ollamacore.state import ModelState
from ollamacore.text import ModelText
from ollamacore.tokenizer import Tokenizer
from ollamacore.weights import load_weights

#: of the KV pool, for prefixes of earlier prompts
PREFIX_SHARE = 0.5
#: between two calls of on_progress
PROGRESS_SECONDS = 0.05

log = logging.getLogger(__name__)
_open_models: weakref.WeakSet[Model] = weakref.WeakSet()


class Model:
    """A model in memory. Thread-safe; `close` it, or use it as a context manager."""

    def __init__(
        self,
        file: GGUFFile,
        plan: Plan,
        engine: _core.Engine,
        tokenizer: Tokenizer,
        max_context: int,
        *,
        threads: int,
        lookup: bool,
        prefix_share: float = PREFIX_SHARE,
        prefix_file: PrefixFile | None = None,
        bell: int | None = None,
    ) -> None:
        self._file = file
        self._engine = engine
        self.tokenizer = tokenizer
        self.architecture: str = file.get("general.architecture", str)
        #: the longest context that the model was trained for
        self.context_length: int = file.get(f"{self.architecture}.context_length", int)
        #: the longest context of one generation or text: training context or KV pool, whichever is smaller
        self.max_context: int = min(plan.context_length, max_context)
        self._pool_tokens: int = max_context
        #: whether it makes embeddings only
        self.is_encoder: bool = plan.is_encoder
        #: its tokenizer and chat template, which outlive `close`
        self.text = ModelText(file, tokenizer)
        limits = {"max_tokens": engine.max_tokens, "max_seqs": engine.max_seqs}
        self._scheduler = Scheduler(
            engine,
            tokenizer,
            threads=threads,
            lookup=lookup,
            prefix_share=prefix_share,
            prefix_file=prefix_file,
            bell=bell,
            **limits,
        )
        self._embedder = Embedder(file, tokenizer, self._scheduler, is_encoder=plan.is_encoder, **limits)
        self._head = RankHead(file, is_encoder=plan.is_encoder) if has_rank_head(file) else None
        self._pairs = PairTokenizer(file, tokenizer)
        self._spelling = threading.Lock()
        self._spellings: _core.Spellings | None = None  # of the vocabulary, made when a format first asks for it
        _open_models.add(self)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        threads: int | None = None,
        context: int = 4096,
        kv_bytes: int | None = None,
        kv_type: str = "f16",
        memory: int | None = None,
        repack: bool | None = None,
        packed_cache: str | PathLike[str] | None = None,
        prefix_share: float = PREFIX_SHARE,
        prefix_store: PrefixStore | None = None,
        lookup: bool | None = None,
        on_progress: Callable[[float], None] | None = None,
        bell: int | None = None,
    ) -> Self:
        """Load a GGUF file.

        `threads`: computing threads of requests without `num_thread` (default: the physical cores this process may
        use). `context`: tokens that the KV pool must hold at least. `kv_bytes`: size of the KV pool (default: several
        full contexts, within half of the memory that the weights leave). `kv_type`: "f16", "q8_0" (half the memory) or
        "f32". `memory`: bytes that the model may take (default: what the machine has available). `repack`: False
        computes on the file's own pages, slower but without a copy in memory (default: only when a packed copy does not
        fit; $OLLAMACORE_REPACK=0 or 1 decides). `packed_cache`: a folder where packed weights are kept for the next
        load. `prefix_share`: the part of the KV pool, 0 to 1, that may hold prefixes of earlier prompts.
        `prefix_store`: where these are kept while the model is not loaded (default: nowhere); models with recurrent
        state keep none there, and have no lookup. `lookup`: whether answers
        that repeat earlier text are sped up by trying what followed there (default: yes, unless OLLAMACORE_LOOKUP=0);
        the text is the same. `on_progress` gets the fraction of the weights that is ready, 0.0 and 1.0 at least; an
        exception that it raises ends the load and is raised here. `bell`: a file descriptor to which eight bytes are
        written when receivers given to `submit` were called, and other threads can have the interpreter: an event loop
        that it wakes has not to wait for that. It must not block, and stay open until `close` has returned.

        Raises InvalidFileError, UnsupportedModelError, OutOfMemoryError, or OSError if the file cannot be read.
        """
        EngineThread.need_other()
        _check_kv_type(kv_type)
        if not 0 <= prefix_share <= 1:
            raise InvalidOptionError(f"prefix_share must lie between 0 and 1, not {prefix_share}")
        file = GGUFFile.open(path)
        with ThreadPoolExecutor(2, "ollamacore-load") as beside:
            # takes as long as some hundred megabytes of weights
            vocabulary = beside.submit(_read_vocabulary, file)
            plan = build_plan(file, context)
            available = machine.available_memory() if memory is None else memory
            sizes = memory_of(plan, MemoryRequest(context, kv_bytes, kv_type, repack), available)
            blocks = sizes.blocks(available)
            threads = threads or machine.usable_threads()
            engine = _new_engine(plan, sizes, blocks, threads)
            cache = Path(packed_cache) if packed_cache else None
            weights = beside.submit(load_weights, engine, plan, repack=sizes.is_packed, packed_cache=cache)
            _await_load(engine, (weights, vocabulary), plan.source_bytes(), on_progress)
        kept = None
        if prefix_store and not plan.state_size:  # blocks without a state are of no use
            kept = prefix_store.of(Path(path), sizes.kv_type, sizes.kv_block)
        return cls(
            file,
            plan,
            engine,
            vocabulary.result(),
            context if plan.is_encoder else blocks * BLOCK,
            threads=threads,
            lookup=machine.lookup_wanted() if lookup is None else lookup,
            prefix_share=prefix_share,
            prefix_file=kept,
            bell=bell,
        )

    @classmethod
    def memory_needed(
        cls,
        path: str | PathLike[str],
        *,
        context: int = 4096,
        kv_bytes: int | None = None,
        kv_type: str = "f16",
        repack: bool | None = None,
        memory: int | None = None,
    ) -> int:
        """Bytes that `load` with these arguments takes at least, from the header of the file alone.

        OutOfMemoryError, as from `load`, if that is more than `memory`.
        """
        _check_kv_type(kv_type)
        with GGUFFile.open(path) as file:
            sizes = memory_of(build_plan(file, context), MemoryRequest(context, kv_bytes, kv_type, repack), memory)
        if memory is not None:
            sizes.check(memory)
        return sizes.least

    # ---- what it is ----

    @property
    def chat_template(self) -> str | None:
        """The template that makes a prompt of a conversation, if the file has one."""
        return self.text.chat_template

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of the GGUF file."""
        return self._file.metadata

    @property
    def n_vocab(self) -> int:
        """Tokens that the model can predict."""
        return self._file.tensors["token_embd.weight"].shape[1]

    @property
    def memory_bytes(self) -> int:
        """Bytes in use: weights, activations, and the KV blocks that have been written since the model was loaded."""
        engine = self._engine
        return engine.weight_bytes + engine.scratch_bytes + engine.state_bytes + engine.kv_bytes_used

    @property
    def reserved_bytes(self) -> int:
        """Bytes that the model may come to use: weights, activations, and the whole KV pool."""
        engine = self._engine
        return engine.weight_bytes + engine.scratch_bytes + engine.state_bytes + engine.kv_bytes

    def sequences(self, context: int) -> int:
        """Generations of `context` tokens that run at the same time: as many as the KV pool and a step hold."""
        return min(self._pool_tokens // max(min(context, self.max_context), 1), self._engine.max_seqs)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights in memory."""
        return self._engine.weight_bytes

    @property
    def counts(self) -> tuple[int, int]:
        """(running, waiting) generations."""
        return self._scheduler.counts

    @property
    def state(self) -> ModelState:
        """What the model is doing and has done since it was loaded; costs no lock."""
        return self._scheduler.state()

    @property
    def kv_blocks_free(self) -> int:
        """KV blocks of 32 positions that a new generation could take: unused ones, and cached ones no other uses."""
        return self._scheduler.kv_blocks_free

    # ---- text and tokens ----

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text; see Tokenizer.encode."""
        return self.text.tokenize(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text of token ids; see Tokenizer.decode."""
        return self.text.detokenize(ids)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        think: bool | str | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt that the model's chat template makes of messages; see ModelText.render_chat."""
        return self.text.render_chat(
            messages, tools=tools, think=think, add_generation_prompt=add_generation_prompt, **variables
        )

    def tokenize_prompt(self, prompt: str) -> list[int]:
        """Token ids of a rendered prompt: special tokens parsed, BOS added unless the text already begins with it."""
        return self.text.tokenize_prompt(prompt)

    # ---- generating ----

    def generate(
        self,
        prompt: str | Sequence[int],
        options: SamplingOptions | None = None,
        *,
        format: object = None,
        constraint: TokenConstraint | None = None,
        **overrides: Any,
    ) -> Generation:
        """Continue a prompt, text or token ids: an iterator of chunks. `overrides` are fields of SamplingOptions.

        `format` is what the answer will be: "json" (an object), or a JSON schema as a mapping, such as a pydantic
        class's model_json_schema(). `constraint`, such as constraint.Choice, says in its stead which tokens may come;
        it is for this generation alone.
        """
        options = replace(options or SamplingOptions(), **overrides)
        tokens = self.tokenize_prompt(prompt) if isinstance(prompt, str) else prompt
        return self._submit(tokens, options, None, self._constraint(format, constraint), None)

    def _constraint(self, format: object, constraint: TokenConstraint | None) -> TokenConstraint | None:
        if constraint is None:
            return self.constraint(format)
        if format:
            raise InvalidOptionError("an answer has a format or a constraint, not both")
        return constraint

    def constraint(self, format: object) -> TokenConstraint | None:
        """The constraint of one generation for a `format` as in generate; none for None and "".

        InvalidFormatError if it is none. May take some milliseconds, the first one more.
        """
        grammar = compile_format(format)
        if grammar is None:
            return None
        with self._spelling:
            if self._spellings is None:
                tokenizer = self.tokenizer
                self._spellings = _core.Spellings(tokenizer.vocabulary, self.n_vocab, tokenizer.end_ids)
        return GrammarConstraint(grammar, self.tokenizer, self._spellings)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        options: SamplingOptions | None = None,
        *,
        tools: Sequence[Any] | None = None,
        think: bool | str | None = None,
        format: object = None,
        constraint: TokenConstraint | None = None,
        **overrides: Any,
    ) -> Generation:
        """Answer a conversation of {"role", "content"} messages: an iterator of chunks. The rest is as in generate.

        A model that can think does so unless `think` is False; "low", "medium" and "high" are for those that know
        them. Thoughts and calls of `tools` come in chunks of their own, `thinking` and `tool_call`; a format or a
        constraint leaves thoughts free.
        """
        prompt = self.render_chat(messages, tools=tools, think=think)
        answer = self.text.answer_format.parser(prompt, tools or ())
        options = replace(options or SamplingOptions(), **overrides)
        constraint = self._constraint(format, constraint)
        return self._submit(self.tokenize_prompt(prompt), options, None, constraint, None, answer)

    def submit(
        self,
        tokens: Sequence[int],
        options: SamplingOptions,
        on_chunk: Callable[[Chunk], None],
        constraint: TokenConstraint | None = None,
        on_progress: Callable[[int], None] | None = None,
        answer: AnswerParser | None = None,
    ) -> Generation:
        """Like generate, with chunks going to `on_chunk` in the engine's thread; it must return at once.

        Exactly one chunk has a done reason: the last. `on_progress`, called there too, hears how many tokens of the
        prompt are computed: the cached ones at first, then more after each step but the one that ends the prompt.
        `answer` (AnswerFormat.parser) takes thoughts and tool calls out of the text.
        """
        return self._submit(tokens, options, on_chunk, constraint, on_progress, answer)

    def _submit(
        self,
        tokens: Sequence[int],
        options: SamplingOptions,
        on_chunk: Callable[[Chunk], None] | None,
        constraint: TokenConstraint | None,
        on_progress: Callable[[int], None] | None,
        answer: AnswerParser | None = None,
    ) -> Generation:
        if self.is_encoder:
            raise InvalidOptionError(f"a {self.architecture} model makes embeddings, not text")
        num_ctx = min(options.num_ctx or self.max_context, self.max_context)
        prompt = array("i", tokens)
        if not prompt:
            raise InvalidPromptError("the prompt has no tokens")
        if not 0 <= min(prompt) <= max(prompt) < self.n_vocab:
            raise InvalidPromptError(f"token ids must lie between 0 and {self.n_vocab - 1}")
        if max(options.logit_bias, default=0) >= self.n_vocab:
            raise OptionRangeError(f'option "logit_bias" must name tokens between 0 and {self.n_vocab - 1}')
        if len(prompt) >= num_ctx:
            if not options.shift:
                raise ContextLengthError(f"the prompt has {len(prompt)} tokens, the context holds {num_ctx}")
            prompt = crop(prompt, num_ctx, options.num_keep)
        dropped = len(tokens) - len(prompt)
        if constraint is not None and answer is not None and not answer.in_content:
            constraint = after_thinking(constraint, answer, self.tokenizer)
        generation = Generation(prompt, options, num_ctx, on_chunk, dropped, constraint, on_progress, answer)
        self._scheduler.submit(generation)
        return generation

    # ---- embedding ----

    def embed(
        self,
        texts: Sequence[str | Sequence[int]],
        *,
        truncate: bool = True,
        dimensions: int | None = None,
        normalize: bool = True,
        num_ctx: int | None = None,
        cancel: threading.Event | None = None,
    ) -> Embeddings:
        """A vector for each text or sequence of token ids.

        A text of more than num_ctx tokens (default: the longest context) loses its end, or is a ContextLengthError
        without `truncate`. `dimensions` keeps the first values of each vector; vectors get length one with
        `normalize`. Setting `cancel` from another thread ends the call soon, with a ClosedError.
        """
        limit = min(num_ctx or self.max_context, self.max_context)
        found = self._embedder.embed(texts, num_ctx=limit, truncate=truncate, cancel=cancel)
        vectors = shorten(found.vectors, dimensions)
        return Embeddings(normalized(vectors) if normalize else vectors, found.tokens)

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        num_ctx: int | None = None,
        cancel: threading.Event | None = None,
    ) -> Scores:
        """How well each document answers the query, for a model with a scoring head.

        A pair of more than num_ctx tokens (default: the longest context) loses the end of its document. `cancel` is
        as in embed.
        """
        if self._head is None:
            raise UnsupportedModelError("the model has no head that scores a query and a document")
        limit = min(num_ctx or self.max_context, self.max_context)
        pairs = [self._pairs.pair(query, document, limit) for document in documents]
        found = self._embedder.embed(
            pairs, num_ctx=limit, truncate=False, cancel=cancel, pooling=self._head.pooling
        )
        return Scores(tuple(map(self._head.relevance, found.vectors)), found.tokens)

    def logits(self, tokens: Sequence[int], last: int = 1) -> npt.NDArray[np.float32]:
        """Raw logits (last, n_vocab) at the last positions of a token sequence."""
        ids = array("i", tokens)
        if not 1 <= last <= len(ids) or len(ids) > self.max_context:
            raise InvalidOptionError(
                f"{last} positions of {len(ids)} tokens in a context of {self.max_context}"
            )
        out = np.empty((last, self.n_vocab), dtype=np.float32)

        def compute(engine: _core.Engine) -> None:
            sequence = _core.Sequence(engine)
            try:
                _step_through(engine, sequence, ids, out)
            finally:
                sequence.close()

        self._scheduler.call(compute)
        return out

    def close(self) -> None:
        """End all generations with "cancelled" and give the memory back. May be called twice."""
        self._scheduler.close()
        self._engine.close()
        _open_models.discard(self)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_kv_type(kv_type: str) -> None:
    if kv_type not in _core.KV_TYPES:
        raise InvalidOptionError(f"kv_type must be one of {', '.join(_core.KV_TYPES)}, not {kv_type!r}")


def _step_through(
    engine: _core.Engine, sequence: _core.Sequence, ids: array[int], out: npt.NDArray[np.float32]
) -> None:
    """Feed ids in chunks and copy the logits of the last len(out) positions."""
    first = len(ids) - len(out)
    position = 0
    while position < len(ids):
        size = MAX_TOKENS if position < first else MAX_SEQS
        end = min(position + size, first if position < first else len(ids))
        outputs = 0 if position < first else end - position
        if engine.step([(sequence, ids[position:end], outputs)]) != _core.STEP_OK:
            raise OutOfMemoryError("the KV pool is full")
        for row in range(outputs):
            engine.copy_logits(row, out[position + row - first])
        position = end


def _new_engine(plan: Plan, sizes: Memory, blocks: int, threads: int) -> _core.Engine:
    """An engine with the plan installed, and room for a thread on every processor."""
    for kernel in machine.refused_kernels():
        log.warning("%s gives wrong products on this processor and is not used", kernel)
    engine = _core.Engine(
        n_threads=min(max(threads, len(machine.allowed_cpus())), 64),
        max_tokens=sizes.limits.tokens,
        max_outputs=sizes.limits.outputs,
        max_seqs=sizes.limits.sequences,
        kv=plan.kv,
        kv_type=sizes.kv_type,
        kv_blocks=blocks,
        state_size=plan.state_size,
        n_sequences=sizes.limits.sequences + BETWEEN_STEPS,
        n_saved=sizes.saved_states,
    )
    engine.n_threads = threads
    plan.install(engine)
    return engine


def _read_vocabulary(file: GGUFFile) -> Tokenizer:
    tokenizer = Tokenizer.from_gguf(file)
    file.drop_header()
    return tokenizer


def _await_load(
    engine: _core.Engine, work: Sequence[Future[Any]], total: int, on_progress: Callable[[float], None] | None
) -> None:
    """Wait for everything that a load consists of. What a part of it or `on_progress` raises ends the load."""
    report = on_progress or (lambda _: None)
    try:
        report(0.0)
        waiting = set(work)
        while waiting:
            done, waiting = wait(waiting, PROGRESS_SECONDS, FIRST_EXCEPTION)
            for part in done:
                part.result()
            if waiting:
                report(min(engine.loaded_bytes / total, 1.0))
        report(1.0)
    except BaseException:
        engine.cancel_load()
        raise


def _close_all() -> None:
    for model in list(_open_models):
        model.close()


atexit.register(_close_all)
load = Model.load
