"""POST /api/generate: complete a prompt."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from ollamacore import AnswerParser, Chunk, InsertMarks, ModelfileTemplate
from server.context import Context
from server.errors import ApiError
from server.handlers.body import receive
from server.handlers.prompt import answer_format, render, thinking
from server.handlers.reference import Target, find_model
from server.handlers.run import (
    EMPTY,
    Clock,
    Dropped,
    Fitted,
    Plan,
    Run,
    check_abilities,
    check_logprobs,
    fit,
    fitting_length,
    joined_logprobs,
    plan_run,
    stamp,
)
from server.handlers.stream import Records, stream_records
from server.http import Request, Response, StreamResponse, json_response
from server.models.engine import Engine
from server.schema import GenerateRequest


async def generate(request: Request, context: Context) -> Response | StreamResponse:
    """Answer with records of text; an empty prompt loads the model or, with keep_alive 0, unloads it."""
    wanted = await receive(GenerateRequest, request)
    check_logprobs(wanted)
    if not wanted.model:
        raise ApiError(404, "model '' not found")
    target = await find_model(context, wanted.model)
    if not wanted.prompt and wanted.keep_alive_ns == 0:
        await context.models.unload(target.source.path)
        return json_response({**_record(wanted, EMPTY), "done": True, "done_reason": "unload"})
    _check(wanted, target)
    plan = plan_run(context, target, wanted)
    if not wanted.prompt:
        async with context.models.lease(target.source, plan.context, wanted.keep_alive_ns):
            return json_response({**_record(wanted, EMPTY), "done": True, "done_reason": "load"})
    records = _records(context, target, plan, wanted)
    if wanted.stream and not wanted.debug_render_only:
        return await stream_records(records)
    async with aclosing(records):
        return json_response(_joined([record async for record in records]))


def _check(wanted: GenerateRequest, target: Target) -> None:
    """Refuse contradictions and what the model cannot do, in Ollama's order."""
    if wanted.raw and (wanted.template or wanted.system or wanted.context):
        raise ApiError(400, "raw mode does not support template, system, or context")
    if wanted.suffix and not target.supports("insert"):
        raise ApiError(400, f"{target.stored.name.full} does not support insert")
    if not target.supports("completion"):
        raise ApiError(400, f'"{wanted.model}" does not support generate')
    check_abilities(wanted, target, images=bool(wanted.images))


async def _records(context: Context, target: Target, plan: Plan, wanted: GenerateRequest) -> Records:
    """The records of one run, from the lease of the model to the metrics."""
    clock = Clock(context.metrics, "/api/generate")
    template = await asyncio.to_thread(ModelfileTemplate, wanted.template) if wanted.template else target.template
    marks = _marks(wanted, target, template)
    async with context.models.lease(target.source, plan.context, wanted.keep_alive_ns) as lease:
        clock.ready()
        text = _with_marks(marks, wanted) if marks else await _prompt(lease.engine, target, wanted, template)
        if wanted.debug_render_only:
            yield {**_record(wanted, EMPTY), "done": False, "_debug_info": {"rendered_template": text}}
            return
        if marks:
            prompt = await _around_gap(lease.engine, marks, plan, wanted)
        else:
            prompt = fit(await _tokens(lease.engine, text, wanted), plan)

        def closing(tokens: Sequence[int]) -> dict[str, Any]:
            return {} if wanted.raw else {"context": [*prompt.tokens, *tokens]}

        answer = None if marks else _answer(lease.engine, target, wanted, template, text)
        run = Run(lease.engine, wanted, plan, clock, partial(_record, wanted), answer, closing)
        async with aclosing(run.records(prompt)) as records:
            async for record in records:
                yield record


def _record(wanted: GenerateRequest, part: Chunk) -> dict[str, Any]:
    """The beginning of a record, up to the text."""
    thought = {"thinking": part.thinking} if part.thinking else {}
    return {**stamp(wanted), "response": part.text, **thought}


def _answer(
    engine: Engine, target: Target, wanted: GenerateRequest, template: ModelfileTemplate | None, prompt: str
) -> AnswerParser | None:
    """What takes thoughts out of the answer; a raw prompt has a raw answer unless the request speaks of thinking."""
    if wanted.suffix or (wanted.raw and wanted.think is None):
        return None
    return answer_format(engine, target, template).parser(prompt)


async def _prompt(
    engine: Engine, target: Target, wanted: GenerateRequest, template: ModelfileTemplate | None
) -> str:
    """The text for the model: the prompt itself, or in a template."""
    if wanted.raw:
        return wanted.prompt
    think = thinking(wanted, target)
    if wanted.suffix and template is not None:
        return await asyncio.to_thread(template.fill, wanted.prompt, wanted.suffix, think=think)
    messages: list[dict[str, Any]] = []
    system = wanted.system or target.system
    if system:
        messages.append({"role": "system", "content": system})
    if not wanted.context:
        messages.extend(target.messages)
    messages.append({"role": "user", "content": wanted.prompt})
    return await render(engine, target, messages, think=think, template=template)


def _marks(wanted: GenerateRequest, target: Target, template: ModelfileTemplate | None) -> InsertMarks | None:
    """How a gap before the suffix is marked: not where a Go template writes it, nor where the prompt is raw."""
    if not wanted.suffix or wanted.raw or (template is not None and "suffix" in template.variables):
        return None
    return target.description.insert


def _with_marks(marks: InsertMarks, wanted: GenerateRequest) -> str:
    return f"{marks.before}{wanted.prompt}{marks.after}{wanted.suffix}{marks.middle}"


async def _around_gap(engine: Engine, marks: InsertMarks, plan: Plan, wanted: GenerateRequest) -> Fitted:
    """The tokens of a prompt with a gap. What does not fit is cut off at the far ends, a quarter for the suffix."""
    head = await engine.tokenize(marks.before)
    between, last = [await engine.tokenize(mark, add_special=False) for mark in (marks.after, marks.middle)]
    before, after = [await engine.tokenize(text, add_special=False) for text in (wanted.prompt, wanted.suffix)]
    frame = len(head) + len(between) + len(last)
    room = fitting_length(frame + len(before) + len(after), plan) - frame
    kept_after = after[: max(min(len(after), room // 4), room - len(before))]
    kept_before = before[len(before) - min(len(before), max(room - len(kept_after), 0)) :]
    lost = len(before) + len(after) - len(kept_before) - len(kept_after)
    return Fitted([*head, *kept_before, *between, *kept_after, *last], Dropped(0, lost))


async def _tokens(engine: Engine, text: str, wanted: GenerateRequest) -> list[int]:
    """The ids of the prompt, after those of the conversation that the client sent back."""
    earlier = wanted.context
    if not engine.accepts(earlier):
        raise ApiError(400, "context holds a number that is not a token of this model")
    return [*earlier, *await engine.tokenize(text, add_special=not earlier)]


def _joined(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All records of a run as one answer."""
    thought = "".join(record.get("thinking", "") for record in records)
    answer = {"response": "".join(record["response"] for record in records)}
    head = {name: records[-1][name] for name in ("model", "created_at")}
    final = {**head, **answer, **({"thinking": thought} if thought else {}), **records[-1], **answer}
    entries = joined_logprobs(records)
    return {**final, "logprobs": entries} if entries else final
