"""What generate and chat share: checks, options, fitting the prompt, and the records of a run."""

import time
from array import array
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from ollamacore import (
    AnswerParser,
    Chunk,
    ClosedError,
    ContextLengthError,
    InvalidOptionError,
    SamplingOptions,
    TokenLogprob,
    ToolCall,
    crop,
)
from server.context import Context
from server.errors import ApiError
from server.handlers.reference import Target
from server.metrics import Metrics
from server.models.engine import Engine, Progress
from server.schema import RunRequest
from server.times import format_now

#: a part of an answer that says nothing
EMPTY = Chunk("")
MIN_CONTEXT = 4
MAX_TOP_LOGPROBS = 20


def check_logprobs(request: RunRequest) -> None:
    """Refuse a number of alternatives that Ollama refuses."""
    if not 0 <= request.top_logprobs <= MAX_TOP_LOGPROBS:
        raise ApiError(400, "top_logprobs must be between 0 and 20")


def check_abilities(request: RunRequest, target: Target, *, images: bool) -> None:
    """Refuse what the model, or this server, cannot do."""
    if request.think and not target.supports("thinking"):
        raise ApiError(400, f'"{request.model}" does not support thinking')
    if images:
        raise ApiError(400, "images are not supported by this server")
    wanted = request.format
    if wanted is None or wanted == "":
        return
    if wanted != "json" and not isinstance(wanted, dict):
        raise ApiError(500, f'invalid format: {wanted!r}; expected "json" or a valid JSON Schema object')
    raise ApiError(400, "format is not supported by this server: generation cannot be constrained to JSON")


@dataclass(frozen=True, slots=True)
class Plan:
    """The options in force for one run."""

    context: int
    options: SamplingOptions
    truncate: bool  # whether a prompt that is too long may lose its older part


def plan_run(context: Context, target: Target, request: RunRequest) -> Plan:
    """Overlay the defaults with the model's parameters and those with the request's."""
    model = SamplingOptions.from_mapping(target.params)
    strict = _strict(context, target.params, request.options or {})
    options = SamplingOptions.from_mapping(request.options or {}, model)
    size = context_size(context, target, options)
    options = replace(
        options,
        num_ctx=size,
        shift=request.shift is not False and not strict,
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs if request.logprobs else 0,
    )
    return Plan(size, options, truncate=request.truncate is not False and not strict)


def _strict(context: Context, params: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Whether nothing may be dropped without an error: the request's word, else the model's, else the server's."""
    for given in (options.get("strict_context"), params.get("strict_context")):
        if given is None:
            continue
        if not isinstance(given, bool):
            raise InvalidOptionError('option "strict_context" must be of type boolean')
        return given
    return context.config.strict_context


def context_size(context: Context, target: Target, options: SamplingOptions) -> int:
    """The context that options ask for, as far as the model was trained for it."""
    size = options.num_ctx or context.config.context_length
    if target.description.context_length:
        size = min(size, target.description.context_length)
    return max(size, MIN_CONTEXT)


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a prompt has lost because it was longer than the context."""

    messages: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Fitted:
    """The tokens of a prompt as they go to the model."""

    tokens: list[int]
    dropped: Dropped

    def truncated(self, chunk: Chunk) -> dict[str, Any]:
        """The ``truncated`` field of a final record; absent when nothing was lost."""
        shifts = chunk.stats.context_shifts if chunk.stats else 0
        if self.dropped == Dropped() and not shifts:
            return {}
        lost = {
            "messages_dropped": self.dropped.messages,
            "prompt_tokens_dropped": self.dropped.tokens,
            "context_shifts": shifts,
        }
        return {"truncated": lost}


def fit(tokens: list[int], plan: Plan, dropped: Dropped = Dropped()) -> Fitted:
    """Leave room for an answer: of a long prompt keep the first num_keep tokens and the tail.

    `dropped` says what the prompt has lost already.
    """
    if fitting_length(len(tokens), plan) == len(tokens):
        return Fitted(tokens, dropped)
    cut = crop(array("i", tokens), plan.context, plan.options.num_keep).tolist()
    return Fitted(cut, Dropped(dropped.messages, dropped.tokens + len(tokens) - len(cut)))


def fitting_length(length: int, plan: Plan) -> int:
    """What is left of a prompt of so many tokens; ContextLengthError for one that must not be cut."""
    if length < plan.context:
        return length
    if not (plan.truncate and plan.options.shift):
        raise ContextLengthError
    return len(crop(array("i", bytes(4 * length)), plan.context, plan.options.num_keep))


class Clock:
    """The times of one request: from its start to the engine being ready, to its first token, and to its end.

    The one to the first token is counted for the route of the request, if it has one.
    """

    def __init__(self, metrics: Metrics | None = None, route: str = "") -> None:
        self._began = time.perf_counter_ns()
        self._load_ns = 0
        self._metrics = metrics
        self._route = route

    def ready(self) -> None:
        """The model is loaded and free."""
        self._load_ns = time.perf_counter_ns() - self._began

    def token(self) -> None:
        """A chunk has come; only the first one counts."""
        if self._metrics is not None:
            self._metrics.first_token(self._route, (time.perf_counter_ns() - self._began) / 1e9)
            self._metrics = None

    def times(self) -> dict[str, int]:
        """From the start until now, and until the engine was ready."""
        return {"total_duration": time.perf_counter_ns() - self._began, "load_duration": self._load_ns}

    def metrics(self, chunk: Chunk) -> dict[str, int]:
        """The figures of a final record, Ollama's six and the cached tokens; those that are zero are left out."""
        figures = self.times()
        if chunk.stats is not None:
            stats = chunk.stats
            figures |= {
                "prompt_eval_count": stats.prompt_tokens,
                "prompt_eval_duration": stats.prompt_ns,
                "eval_count": stats.generated_tokens,
                "eval_duration": stats.eval_ns,
                "prompt_eval_cached_count": stats.cached_tokens,
            }
        return {name: value for name, value in figures.items() if value}


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a model, and how its route writes the records of it."""

    engine: Engine
    request: RunRequest
    plan: Plan
    clock: Clock
    record: Callable[[Chunk], dict[str, Any]]  # a record with a part of the answer, up to `done`
    answer: AnswerParser | None = None  # takes thoughts and tool calls out of the text
    closing: Callable[[Sequence[int]], dict[str, Any]] = lambda tokens: {}  # the last record's own, by what came

    async def records(self, prompt: Fitted) -> AsyncGenerator[dict[str, Any], None]:
        """The records of the answer to a prompt; closing them ends the run."""
        tokens: list[int] = []
        progress = self.request.progress and self.request.stream
        options = self.plan.options
        made = self.engine.generate(prompt.tokens, options, progress=progress, answer=self.answer)
        async with aclosing(made) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Progress):
                    yield {**self.record(EMPTY), "done": False, **_progress_field(chunk)}
                    continue
                self.clock.token()
                tokens.extend(chunk.tokens)
                if chunk.text or chunk.thinking or chunk.tool_call or chunk.logprobs:
                    yield {**self.record(chunk), "done": False, **_logprobs_field(chunk)}
                if chunk.done_reason is not None:
                    yield self._last(chunk, tokens) | prompt.truncated(chunk)

    def _last(self, chunk: Chunk, tokens: Sequence[int]) -> dict[str, Any]:
        """The record with the figures; a run that something else stopped is an error."""
        if chunk.done_reason == "cancelled":
            raise ClosedError("the model was unloaded")
        final = {**self.record(EMPTY), "done": True, "done_reason": chunk.done_reason}
        return {**final, **self.closing(tokens), **self.clock.metrics(chunk)}


def stamp(request: RunRequest) -> dict[str, Any]:
    """The fields that begin every record."""
    return {"model": request.model, "created_at": format_now()}


def tool_call_record(call: ToolCall) -> dict[str, Any]:
    """A tool call as records have it."""
    function = {"index": call.index, "name": call.name, "arguments": call.arguments}
    return {"id": call.id, "function": function}


def _progress_field(progress: Progress) -> dict[str, Any]:
    """The ``progress`` of a record before the first token."""
    return {"progress": {"prompt_tokens_done": progress.done, "prompt_tokens": progress.total}}


def _logprobs_field(chunk: Chunk) -> dict[str, Any]:
    """The ``logprobs`` of a record, absent when the engine gave none."""
    if not chunk.logprobs:
        return {}
    return {"logprobs": [_logprob(entry) for entry in chunk.logprobs]}


def _logprob(entry: TokenLogprob) -> dict[str, Any]:
    shown = _token(entry)
    if entry.top:
        shown["top_logprobs"] = [_token(other) for other in entry.top]
    return shown


def _token(entry: TokenLogprob) -> dict[str, Any]:
    shown: dict[str, Any] = {"token": entry.token, "logprob": entry.logprob}
    if entry.bytes:
        shown["bytes"] = list(entry.bytes)
    return shown


def joined_logprobs(records: Sequence[Mapping[str, Any]]) -> list[Any]:
    """All entries of a run, for an answer in one piece."""
    return [entry for record in records for entry in record.get("logprobs", ())]
