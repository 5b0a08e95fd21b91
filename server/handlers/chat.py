"""POST /api/chat: continue a conversation."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from ollamacore import Chunk
from server.context import Context
from server.errors import ApiError
from server.handlers.body import receive
from server.handlers.prompt import answer_format, conversation, render, thinking
from server.handlers.reference import Target, find_model
from server.handlers.run import (
    EMPTY,
    Clock,
    Dropped,
    Plan,
    Run,
    check_abilities,
    check_logprobs,
    fit,
    joined_logprobs,
    plan_run,
    stamp,
    tool_call_record,
)
from server.handlers.stream import Records, stream_records
from server.http import Request, Response, StreamResponse, json_response
from server.models.engine import Engine
from server.schema import ChatRequest


async def chat(request: Request, context: Context) -> Response | StreamResponse:
    """Answer with records of a message; no messages load the model or, with keep_alive 0, unload it."""
    wanted = await receive(ChatRequest, request)
    check_logprobs(wanted)
    if not wanted.model:
        raise ApiError(400, "model is required")
    target = await find_model(context, wanted.model)
    if not wanted.messages and wanted.keep_alive_ns == 0:
        await context.models.unload(target.source.path)
        return json_response({**_record(wanted, EMPTY), "done": True, "done_reason": "unload"})
    _check(wanted, target)
    plan = plan_run(context, target, wanted)
    if not wanted.messages:
        async with context.models.lease(target.source, plan.context, wanted.keep_alive_ns):
            return json_response({**_record(wanted, EMPTY), "done": True, "done_reason": "load"})
    records = _records(context, target, plan, wanted)
    if wanted.stream and not wanted.debug_render_only:
        return await stream_records(records)
    async with aclosing(records):
        return json_response(_joined([record async for record in records]))


def _check(wanted: ChatRequest, target: Target) -> None:
    """Refuse what the model cannot do."""
    if not target.supports("completion"):
        raise ApiError(400, f'"{wanted.model}" does not support chat')
    if wanted.tools and not target.supports("tools"):
        raise ApiError(400, f"{target.stored.name.full} does not support tools")
    check_abilities(wanted, target, images=any(message.images for message in wanted.messages))


def _record(wanted: ChatRequest, part: Chunk) -> dict[str, Any]:
    """The beginning of a record, up to the message."""
    message: dict[str, Any] = {"role": "assistant", "content": part.text}
    if part.thinking:
        message["thinking"] = part.thinking
    if part.tool_call:
        message["tool_calls"] = [tool_call_record(part.tool_call)]
    return {**stamp(wanted), "message": message}


async def _records(context: Context, target: Target, plan: Plan, wanted: ChatRequest) -> Records:
    """The records of one run, from the lease of the model to the metrics."""
    clock = Clock(context.metrics, "/api/chat")
    async with context.models.lease(target.source, plan.context, wanted.keep_alive_ns) as lease:
        clock.ready()
        rendered = await _Prompt(lease.engine, target, plan, wanted).fitting()
        if wanted.debug_render_only:
            yield {**_record(wanted, EMPTY), "done": False, "_debug_info": {"rendered_template": rendered.text}}
            return
        answer = answer_format(lease.engine, target).parser(rendered.text, wanted.tools)
        run = Run(lease.engine, wanted, plan, clock, partial(_record, wanted), answer)
        async with aclosing(run.records(fit(rendered.tokens, plan, rendered.dropped))) as records:
            async for record in records:
                yield record


@dataclass(frozen=True, slots=True)
class _Rendered:
    """The prompt of a conversation, or of the newer part of it."""

    text: str
    tokens: list[int]
    dropped: Dropped


class _Prompt:
    """The prompt of a conversation, with as much of its history as fits the context."""

    def __init__(self, engine: Engine, target: Target, plan: Plan, wanted: ChatRequest):
        self._engine = engine
        self._target = target
        self._limit = plan.context - 1
        self._truncate = plan.truncate
        self._think = thinking(wanted, target)
        self._tools = wanted.tools
        self._messages = conversation(target, wanted.messages)

    async def fitting(self) -> _Rendered:
        """The prompt with as many turns as fit. System messages and the last message always stay.

        Whole turns are dropped from the front, as many as needed: a history that begins with an answer is one
        that many templates refuse. The prompt may still be too long when nothing is left to drop.
        """
        whole = await self._from(0)
        if not self._truncate or len(whole.tokens) <= self._limit:
            return whole
        last = len(self._messages) - 1
        starts = [n for n in range(1, last) if self._messages[n]["role"] == "user"] + [last] * (last > 0)
        best, candidate = None, whole
        low, high = 0, len(starts)
        while low < high:  # halving finds the first start from which the rest fits
            middle = (low + high) // 2
            candidate = await self._from(starts[middle], len(whole.tokens))
            if len(candidate.tokens) <= self._limit:
                best, high = candidate, middle
            else:
                low = middle + 1
        return best or candidate

    async def _from(self, start: int, whole: int = 0) -> _Rendered:
        """The prompt without what comes before a message, system messages excepted; all would be `whole` tokens."""
        kept = [message for message in self._messages[:start] if message["role"] == "system"]
        messages = kept + self._messages[start:]
        text = await render(self._engine, self._target, messages, think=self._think, tools=self._tools)
        tokens = await self._engine.tokenize(text)
        return _Rendered(text, tokens, Dropped(start - len(kept), max(whole - len(tokens), 0)))


def _joined(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All records of a run as one answer."""
    parts = [record["message"] for record in records]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(part["content"] for part in parts)}
    thought = "".join(part.get("thinking", "") for part in parts)
    calls = [call for part in parts for call in part.get("tool_calls", ())]
    message |= {name: value for name, value in (("thinking", thought), ("tool_calls", calls)) if value}
    final = {**records[-1], "message": message}
    entries = joined_logprobs(records)
    return {**final, "logprobs": entries} if entries else final
