"""The engine's thread: it composes batches, samples, and hands out chunks.

Each pass takes one token of every running sequence and fills the rest of the batch with prompt chunks, so a long
prompt never stalls running streams. A failure inside one request ends that request and no other. Every submitted
generation ends in exactly one chunk with a done reason, whatever happens.
"""

from __future__ import annotations

import logging
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from ollamacore._core import (
    STEP_FULL,
    STEP_OK,
    Engine,
    PromptLookup,
    Sampler,
    Sequence,
    StepCosts,
    Stream,
    logprobs,
)
from ollamacore.constraint import TokenConstraint
from ollamacore.context import crop, kept
from ollamacore.errors import ClosedError, EngineError, OllamaCoreError
from ollamacore.pace import Pace
from ollamacore.prefix import BLOCK, PrefixCache
from ollamacore.prefix_store import PrefixFile
from ollamacore.sampling import SamplingOptions
from ollamacore.session import Chunk, DoneReason, EngineThread, Generation, Stats, TextAssembler, TokenLogprob
from ollamacore.state import Counters, ModelState
from ollamacore.tokenizer import Tokenizer

log = logging.getLogger(__name__)

#: cached blocks given back when the pool is full in the middle of a step
RECLAIMED_AT_ONCE = 16
#: a generation without a limit of its own ends after so many contexts
MAX_CONTEXTS = 10

#: memory that KV blocks get in idle time, ahead of their use, once requests have used AHEAD_FROM bytes: where a
#: hypervisor has to find it, it comes at 0.4 to 1 GB/s, and prompts and streams would wait for it
AHEAD_FROM, AHEAD = 2 << 20, 128 << 20
#: seconds without a request before: the next turn of a chat may come at once, and would wait for the page at hand
REST = 0.1

#: what Engine.step takes: sequences, their tokens, and how many of these have logits
_Batch: TypeAlias = "list[tuple[Sequence, array[int] | int, int]]"


@dataclass(slots=True, eq=False)
class _Run:
    """A generation that holds a sequence."""

    generation: Generation
    sequence: Sequence
    stream: Stream
    assembler: TextAssembler
    push: Callable[[int], str]  # the assembler's, or where nothing can be held back its stream's
    tokens: array[int]  # prompt and answer; those that the sequence lacks are to be computed
    limit: int  # tokens to generate
    threads: int
    lookup: PromptLookup | None = None
    started_ns: int = 0
    first_ns: int = 0
    generated: int = 0
    marks: list[int] = field(default_factory=list)  # lengths at which the prefix cache wants the sequence
    cached: int = 0  # prompt tokens whose keys and values came from the prefix cache
    shifts: int = 0  # times that the context was full
    unsent: list[int] = field(default_factory=list)  # tokens whose text is not out yet
    logprobs: list[TokenLogprob] | None = None  # of unsent tokens, where they are wanted

    @property
    def left(self) -> int:
        """Tokens to compute before the next one can be chosen."""
        return len(self.tokens) - len(self.sequence)

    @property
    def until_mark(self) -> int:
        """Tokens to compute before somebody has to look at the sequence."""
        return min([self.left, *(mark - len(self.sequence) for mark in self.marks[:1])])

    @property
    def is_decoding(self) -> bool:
        return self.first_ns != 0 and self.left == 1

    def item(self, take: int, *, is_last: bool = True) -> tuple[Sequence, array[int], int]:
        """The next tokens for a step, with logits if they are the last, and it computes all their stages."""
        done = len(self.sequence)
        return self.sequence, self.tokens[done : done + take], int(is_last and take == self.left)


class Scheduler:
    """Runs generations on one engine, in a thread of its own."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        *,
        max_tokens: int,
        max_seqs: int,
        threads: int,
        lookup: bool = True,
        prefix_share: float = 0.5,
        prefix_file: PrefixFile | None = None,
        bell: int | None = None,
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._end_ids = tokenizer.end_ids
        self._prefixes = PrefixCache(engine, limit=int(engine.kv_blocks_free * prefix_share))
        self._prefix_file = prefix_file
        self._bell = bell
        self._max_tokens = max_tokens
        self._max_seqs = max_seqs
        self._threads = threads  # of requests that do not choose
        self._blocks = engine.kv_blocks_free
        self._block_bytes = max(1, engine.kv_bytes // max(1, self._blocks))
        self._most_ahead = min(AHEAD // self._block_bytes, self._blocks // 4)
        self._counters = Counters()
        self._pace = Pace(engine.n_stages)
        self._has_committed = False  # in the last step
        self._has_lookup = lookup and not engine.has_state  # a draft that fails needs a way back
        self._costs = StepCosts()
        self._wake = threading.Condition()
        self._waiting: deque[Generation] = deque()
        self._calls: deque[tuple[Callable[[Engine], Any], Future[Any]]] = deque()
        self._active: list[_Run] = []
        self._parked: deque[_Run] = deque()  # gave their blocks back and wait for room
        self._closing = False
        self._thread = EngineThread(target=self._main, name="ollamacore-engine", daemon=True)
        self._thread.start()

    # ---- from any thread ----

    def submit(self, generation: Generation) -> None:
        """Queue a generation."""
        with self._wake:
            if self._closing:
                raise ClosedError("the model is closed")
            self._waiting.append(generation)
            self._wake.notify()

    def call(self, function: Callable[[Engine], Any]) -> Any:
        """Run `function(engine)` in the engine's thread between two steps and return its result."""
        EngineThread.need_other()
        future: Future[Any] = Future()
        with self._wake:
            if self._closing:
                raise ClosedError("the model is closed")
            self._calls.append((function, future))
            self._wake.notify()
        return future.result()

    def close(self) -> None:
        """End every generation with "cancelled", and the thread."""
        EngineThread.need_other()
        with self._wake:
            self._closing = True
            self._wake.notify()
            runs = [*self._active, *self._parked]
            generations = [*self._waiting, *(run.generation for run in runs)]
        for generation in generations:
            generation.cancel()
        self._thread.join()

    @property
    def counts(self) -> tuple[int, int]:
        """(running, waiting) generations."""
        return len(self._active), len(self._waiting) + len(self._parked)

    def state(self) -> ModelState:
        """What is going on, and what has been done."""
        running, waiting = self.counts
        counters = self._counters
        return ModelState(
            running,
            waiting,
            kv_blocks=self._blocks,
            kv_blocks_used=self._blocks - self._engine.kv_blocks_free,
            kv_blocks_cached=len(self._prefixes),
            prefix_evictions=self._prefixes.evictions,
            steps=counters.steps,
            prompt_tokens=counters.prompt_tokens,
            cached_tokens=counters.cached_tokens,
            generated_tokens=counters.generated_tokens,
            context_shifts=counters.context_shifts,
            parked=counters.parked,
            finished=dict(counters.finished),
        )

    @property
    def kv_blocks_free(self) -> int:
        """KV blocks that a new generation could take."""
        return self._engine.kv_blocks_free + self._prefixes.reclaimable

    # ---- the thread ----

    def _main(self) -> None:
        if self._prefix_file is not None:
            self._guard(partial(self._prefix_file.restore, self._engine, self._prefixes))
        while self._wait():
            self._guard(self._turn)
        self._shut_down()

    @property
    def _is_idle(self) -> bool:
        return not (self._closing or self._waiting or self._calls or self._active or self._parked)

    def _wait(self) -> bool:
        """Until there is something to do; False: it is to end."""
        if self._is_idle:
            self._engine.let_go()
            self._commit_ahead()
        with self._wake:
            while self._is_idle:
                self._wake.wait()
            return not self._closing

    def _commit_ahead(self) -> None:
        """After a rest, get memory for blocks that later requests will take, a little at a time."""
        used = self._blocks - self._engine.kv_blocks_free
        if used * self._block_bytes <= AHEAD_FROM or not self._engine.needs_memory(self._most_ahead):
            return
        with self._wake:
            self._wake.wait_for(lambda: not self._is_idle, REST)
        while self._is_idle and self._engine.commit(self._most_ahead):
            pass

    def _guard(self, work: Callable[[], None]) -> None:
        """A defect ends the runs at hand, never the thread, which may have a step under way that all models wait for.

        Here and at a request's boundary nothing is let through, not even SystemExit: receivers, progress reports and
        constraints are other people's code.
        """
        try:
            work()
        except BaseException as error:
            log.exception("the engine's thread goes on after a failure")
            for run in [*self._active, *self._parked]:
                self._finish(run, "error", error)

    def _turn(self) -> None:
        self._serve_calls()
        self._drop_cancelled()
        self._admit()
        if self._active:
            self._pass()

    def _shut_down(self) -> None:
        for run in [*self._active, *self._parked]:
            self._finish(run, "cancelled")
        for generation in self._waiting:
            self._refuse(generation, "cancelled")
        for _, future in self._calls:
            future.set_exception(ClosedError("the model is closed"))
        self._engine.let_go()
        if self._prefix_file is not None:
            self._guard(partial(self._prefix_file.save, self._engine, self._prefixes))
        self._prefixes.clear()

    def _serve_calls(self) -> None:
        if self._calls:
            self._engine.n_threads = self._threads
        while self._calls:
            function, future = self._calls.popleft()
            try:
                future.set_result(function(self._engine))
            except BaseException as error:  # noqa: BLE001 - the caller gets it
                future.set_exception(error)

    def _drop_cancelled(self) -> None:
        for run in [run for run in [*self._active, *self._parked] if run.generation.cancelled]:
            self._finish(run, "cancelled")
        with self._wake:
            gone = [generation for generation in self._waiting if generation.cancelled]
            for generation in gone:
                self._waiting.remove(generation)
        for generation in gone:
            self._refuse(generation, "cancelled")

    def _admit(self) -> None:
        """Start parked runs, then waiting generations, in order, as far as sequences and KV blocks go."""
        while (
            self._parked
            and len(self._active) < self._max_seqs
            and self._has_room(len(self._parked[0].tokens))
        ):
            self._active.append(self._parked.popleft())
        while self._waiting and not self._parked and len(self._active) < self._max_seqs:
            generation = self._waiting[0]
            if not self._has_room(len(generation.prompt)):
                return
            with self._wake:
                self._waiting.popleft()
            try:
                run = self._start(generation)
            except BaseException as error:  # noqa: BLE001 - one request's boundary
                self._refuse(generation, "error", error)
            else:
                self._active.append(run)
                self._report(run)

    def _has_room(self, n_tokens: int) -> bool:
        """Whether the pool holds so many tokens and one block more; a run alone may always try."""
        promised = sum(_blocks(len(run.tokens)) - _blocks(len(run.sequence)) for run in self._active)
        missing = _blocks(n_tokens) + 1 + promised - self._engine.kv_blocks_free
        return not self._active or missing <= 0 or self._prefixes.reclaim(missing) == missing

    def _start(self, generation: Generation) -> _Run:
        options = generation.options
        sequence = Sequence(self._engine)
        generation.attach(sequence.cancel)
        sampler = Sampler(options, generation.num_ctx, self._tokenizer.vocabulary)
        prompt = array("i", generation.prompt)
        sampler.accept_all(prompt)
        lookup = PromptLookup(prompt) if self._has_lookup and generation.constraint is None else None
        marks = self._prefixes.take(prompt, sequence)
        visible = self._tokenizer.hidden(generation.answer.tags) if generation.answer else {}
        assembler = TextAssembler(self._tokenizer.stream(), options.stop, visible)
        most = generation.num_ctx * MAX_CONTEXTS
        return _Run(
            generation,
            sequence,
            Stream(sequence, sampler, lookup, self._costs),
            assembler,
            assembler.push if options.stop or visible else assembler.stream.push,
            tokens=prompt,
            marks=marks,
            cached=len(sequence),
            started_ns=time.monotonic_ns(),
            limit=options.num_predict if 0 <= options.num_predict < most else most,
            threads=min(options.num_thread, 64) if options.num_thread > 0 else self._threads,
            lookup=lookup,
            logprobs=[] if options.logprobs else None,
        )

    def _compose(self) -> list[_Run]:
        """All runs in the order in which the next step serves them: streams, what they lack, then prompts by age."""
        return sorted(self._active, key=lambda run: (run.first_ns == 0, not run.is_decoding))

    def _pass(self) -> None:
        run = self._active[0]
        if len(self._active) == 1 and run.is_decoding and run.generation.constraint is None:
            self._stream_alone(run)
            return
        batch: _Batch = []
        runs: list[tuple[_Run, float]] = []
        streams = sum(run.is_decoding for run in self._active)
        budget, stages = self._max_tokens, self._engine.n_stages
        ahead = self._ahead() if streams else 0
        room = self._pace.room(streams, gets_memory=ahead > 0) if streams else budget  # for tokens of prompts
        begin, end = 0, stages
        for run in self._compose():
            take = min(budget, run.until_mark)
            is_prompt = not run.is_decoding
            if is_prompt and take > room:
                take, begin, end = self._prompt_part(run, room, take)
            if take == 0:
                break
            budget -= take
            room -= take * is_prompt
            batch.append(run.item(take, is_last=end == stages))
            runs.append((run, take * (end - begin) / stages))
            if end - begin < stages:
                break
        self._step(batch, runs, end, ahead)

    def _ahead(self) -> int:
        """KV blocks for which the next step gets memory, before another one takes them; 0: they have it.

        Not in two steps in a row: the first may have no room for a prompt.
        """
        blocks = len(self._active) + 1
        self._has_committed = not self._has_committed and self._engine.needs_memory(blocks)
        return blocks if self._has_committed else 0

    def _prompt_part(self, run: _Run, room: float, most: int) -> tuple[int, int, int]:
        """A chunk of a prompt for which a step has no room, and its stages for which it has: (tokens, from, to).

        What was begun waits where there is room for none; nothing new begins there, which is a chunk of no tokens.
        """
        tokens, begin = run.sequence.staged
        if not 0 < tokens <= most:
            tokens, begin = min(self._pace.chunk(room), most) if room > 0 else 0, 0
        if tokens == 0:
            return 0, 0, self._engine.n_stages
        return tokens, begin, min(begin + self._pace.stages(room, tokens), self._engine.n_stages)

    def _stream_alone(self, run: _Run) -> None:
        """One stream, until there is something else to do.

        Each step brings its next token and what is likely to follow it; beside others such a draft would take their
        time. The engine goes from step to step by itself: a token is looked at while the next step is under way, which
        is given up if it turns out that none is wanted.
        """
        self._engine.n_threads = run.threads
        wanted = min(run.limit - run.generated - 1, run.generation.num_ctx - len(run.tokens))
        if not self._compute(lambda: run.stream.begin(run.tokens[-1], wanted), (run,)):
            return
        while run.stream.under_way:
            self._counters.steps += 1
            self._advance(run)
            if self._waiting or self._calls or self._closing or run.generation.cancelled:
                run.stream.give_up()
        if self._costs.usual:
            self._pace.know(1, self._costs.usual)

    def _advance(self, run: _Run) -> None:
        """Take what the step under way brings, at a request's boundary."""
        try:
            for row, token in enumerate(run.stream.advance()):
                if not self._take(run, token, row) or run.generation.cancelled:
                    break
        except BaseException as error:  # noqa: BLE001 - one request's boundary
            self._finish(run, "error", error)

    def _step(self, batch: _Batch, runs: list[tuple[_Run, float]], end_stage: int, ahead: int) -> None:
        """A step of runs, and how many tokens of each it computes; of the last run, stages before `end_stage` only."""
        streams = sum(run.is_decoding for run, _ in runs)
        self._engine.n_threads = max(run.threads for run, _ in runs)
        began = time.perf_counter()
        if not self._compute(lambda: self._engine.step(batch, end_stage, ahead), [run for run, _ in runs]):
            return
        self._counters.steps += 1
        computed = sum(take for _, take in runs) - streams
        if computed or len(runs) == streams:  # streams have grown beside a prompt that waits: their pace is that before
            self._pace.note(streams, computed, time.perf_counter() - began, gets_memory=ahead > 0)
        row = 0
        for run, _ in runs:
            if run.marks and run.marks[0] == len(run.sequence):
                run.marks.pop(0)
                self._prefixes.add(run.tokens, run.sequence, ended=False)
            if run.left:
                self._report(run)
                continue
            self._sample(run, row)
            row += 1

    def _compute(self, step: Callable[[], int], runs: Iterable[_Run]) -> bool:
        """Make a step of these runs, or begin it; whether that went well."""
        try:
            status = step()
        except OllamaCoreError as error:
            log.exception("engine step failed")
            for run in runs:
                self._finish(run, "error", error)
            return False
        if status == STEP_OK:
            return True
        if status == STEP_FULL:
            self._make_room()
        return False

    def _report(self, run: _Run) -> None:
        """How far the prompt has come; what is computed again after the first token is no progress."""
        if run.first_ns != 0:
            return
        try:
            run.generation.report(len(run.sequence))
            self._ring()
        except BaseException as error:  # noqa: BLE001 - one request's boundary
            self._finish(run, "error", error)

    def _make_room(self) -> None:
        """The pool is full: cached blocks go first; then the youngest run waits and is computed again later.

        A run alone has reached its end.
        """
        if self._prefixes.reclaim(RECLAIMED_AT_ONCE):
            return
        run = self._active[-1]
        if len(self._active) == 1:
            self._finish(run, "length")
            return
        run.sequence.truncate(0)
        self._active.remove(run)
        self._parked.append(run)
        self._counters.parked += 1

    # ---- one token of one run ----

    def _sample(self, run: _Run, row: int) -> None:
        """Choose what follows, at a request's boundary: what fails here ends this run alone."""
        try:
            if run.first_ns == 0 and not self._begin(run, row):
                return
            constraint = run.generation.constraint
            mask = constraint.allowed(self._engine.n_vocab) if constraint else None
            goes_on = self._take(run, run.stream.choose(row, mask), row)
            if goes_on and constraint and run.logprobs is None:
                self._fast_forward(run, constraint)
        except BaseException as error:  # noqa: BLE001 - one request's boundary
            self._finish(run, "error", error)

    def _begin(self, run: _Run, row: int) -> bool:
        """The prompt is computed; whether an answer is wanted."""
        run.first_ns = time.monotonic_ns()
        self._prefixes.add(run.tokens, run.sequence, ended=False)
        run.generation.prompt_done(self._engine, row)
        if run.limit == 0:
            self._finish(run, "length")
        return run.limit != 0

    def _fast_forward(self, run: _Run, constraint: TokenConstraint) -> None:
        """Take the tokens that leave no choice; the next step computes them all."""
        while (token := constraint.forced()) is not None:
            run.stream.accept(token)
            if not self._take(run, token):
                return

    def _take(self, run: _Run, token: int, row: int | None = None) -> bool:
        """One token more, with its log-probability by `row`; whether the sequence goes on as it is."""
        run.generated += 1
        if token in self._end_ids:
            self._finish(run, "stop")
            return False
        run.unsent.append(token)
        if run.logprobs is not None and row is not None:
            run.logprobs.append(self._logprob(run.generation.options, row, token))
        text = run.push(token)
        if run.assembler.stopped:
            self._finish(run, "stop", text=text)
        elif run.generation.constraint is not None and self._is_complete(run.generation.constraint, token):
            self._finish(run, "stop", text=text + run.assembler.flush())
        elif run.generated >= run.limit:
            self._finish(run, "length", text=text + run.assembler.flush())
        else:
            if text:
                self._deliver(run.generation, self._chunk(run, text))
            run.tokens.append(token)
            if len(run.tokens) <= run.generation.num_ctx:
                return True
            self._shift(run)
        return False

    @staticmethod
    def _is_complete(constraint: TokenConstraint, token: int) -> bool:
        constraint.accept(token)
        return constraint.finished

    def _shift(self, run: _Run) -> None:
        """The context is full: keep num_keep tokens and the newer half of the rest, computed anew at its new place."""
        if not run.generation.options.shift:
            self._finish(run, "length", text=run.assembler.flush())
            return
        context, wanted = run.generation.num_ctx, run.generation.options.num_keep
        run.tokens = crop(run.tokens, context, wanted)
        run.shifts += 1
        self._counters.context_shifts += 1
        run.sequence.truncate(kept(context, wanted))
        if run.lookup is not None:
            run.lookup.restart(run.tokens)

    def _logprob(self, options: SamplingOptions, row: int, token: int) -> TokenLogprob:
        chosen, ids, values = logprobs(self._engine, row, token, options.top_logprobs)
        top = tuple(self._entry(i, value) for i, value in zip(ids, values, strict=True))
        return self._entry(token, chosen, top)

    def _entry(self, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        raw = self._tokenizer.token_bytes(token, special=True)
        return TokenLogprob(raw.decode("utf-8", "replace"), raw, token, logprob, top)

    # ---- ends ----

    def _chunk(self, run: _Run, text: str) -> Chunk:
        tokens = tuple(run.unsent)
        run.unsent.clear()
        if run.logprobs is None:
            return Chunk(text, tokens)
        logprobs, run.logprobs = tuple(run.logprobs), []
        return Chunk(text, tokens, logprobs)

    def _stats(self, run: _Run) -> Stats:
        now = time.monotonic_ns()
        first = run.first_ns or now
        return Stats(
            len(run.generation.prompt),
            run.cached,
            first - run.started_ns,
            run.generated,
            now - first,
            run.generation.dropped_tokens,
            run.shifts,
            run.stream.drafted,
            run.stream.accepted,
        )

    def _finish(
        self, run: _Run, reason: DoneReason, error: BaseException | None = None, *, text: str | None = None
    ) -> None:
        run.stream.give_up()
        (self._active if run in self._active else self._parked).remove(run)
        self._count(run, reason)
        try:
            if reason != "error":
                self._prefixes.add(run.tokens, run.sequence, ended=True)
            run.sequence.close()
            self._prefixes.trim()
        finally:  # whatever fails, somebody waits for the end
            if text is None:
                text = run.assembler.flush() if reason in ("stop", "length") else ""
            chunk = self._chunk(run, text)
            chunk.done_reason, chunk.stats, chunk.error = reason, self._stats(run), _public(error) if error else None
            self._deliver(run.generation, chunk)

    def _count(self, run: _Run, reason: DoneReason) -> None:
        counters = self._counters
        counters.prompt_tokens += len(run.generation.prompt)
        counters.cached_tokens += run.cached
        counters.generated_tokens += run.generated
        counters.finished[reason] += 1

    def _refuse(self, generation: Generation, reason: DoneReason, error: BaseException | None = None) -> None:
        """End a generation that never ran."""
        self._counters.finished[reason] += 1
        stats = Stats(len(generation.prompt), 0, 0, 0, 0, generation.dropped_tokens)
        chunk = Chunk("", done_reason=reason, stats=stats, error=_public(error) if error else None)
        self._deliver(generation, chunk)

    def _ring(self) -> None:
        if self._bell is not None:
            self._engine.ring(self._bell)

    def _deliver(self, generation: Generation, chunk: Chunk) -> None:
        try:
            generation.deliver(chunk)
            self._ring()
        except BaseException:
            log.exception("a receiver of chunks failed")
            generation.cancel()


def _blocks(n_tokens: int) -> int:
    return -(-n_tokens // BLOCK)


def _public(error: BaseException) -> OllamaCoreError:
    """Errors leave the library as OllamaCoreError; anything else is a defect and is logged."""
    if isinstance(error, OllamaCoreError):
        return error
    log.error("generation failed", exc_info=error)
    return EngineError(f"{type(error).__name__}: {error}")
