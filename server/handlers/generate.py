"""POST /api/generate: complete a prompt."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

from server.context import Context
from server.errors import ApiError
from server.handlers.body import receive
from server.handlers.reference import Target, find_model
from server.handlers.run import (
    Clock,
    Dropped,
    Fitted,
    Plan,
    check_abilities,
    check_logprobs,
    check_template,
    chunks_of,
    fit,
    fitting_length,
    joined_logprobs,
    logprobs_field,
    plan_run,
    progress_field,
    stamp,
    thinking_variables,
)
from server.handlers.stream import Records, stream_records
from server.http import Request, Response, StreamResponse, json_response
from server.models.engine import Engine, Progress
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
        return json_response({**stamp(wanted), "response": "", "done": True, "done_reason": "unload"})
    _check(wanted, target)
    plan = plan_run(context, target, wanted)
    if not wanted.prompt:
        async with context.models.lease(target.source, plan.context, wanted.keep_alive_ns):
            return json_response({**stamp(wanted), "response": "", "done": True, "done_reason": "load"})
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
    if wanted.template:
        raise ApiError(400, "template is not supported by this server: it cannot run Go templates")
    check_abilities(wanted, target, images=bool(wanted.images))
    if not wanted.raw:
        check_template(target)


async def _records(context: Context, target: Target, plan: Plan, wanted: GenerateRequest) -> Records:
    """The records of one run, from the lease of the model to the metrics."""
    clock = Clock()
    async with context.models.lease(target.source, plan.context, wanted.keep_alive_ns) as lease:
        clock.ready()
        text = await _prompt(lease.engine, target, wanted)
        if wanted.debug_render_only:
            yield {**stamp(wanted), "response": "", "done": False, "_debug_info": {"rendered_template": text}}
            return
        if _has_gap(wanted, target):
            prompt = await _around_gap(lease.engine, target, plan, wanted)
        else:
            prompt = fit(await _tokens(lease.engine, text, wanted), plan)
        answer: list[int] = []
        progress = wanted.progress and wanted.stream
        async with aclosing(chunks_of(lease.engine, prompt.tokens, plan.options, progress=progress)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Progress):
                    yield {**stamp(wanted), "response": "", "done": False, **progress_field(chunk)}
                    continue
                clock.first_token(context.metrics, "/api/generate")
                answer.extend(chunk.tokens)
                if chunk.text or chunk.logprobs:
                    yield {**stamp(wanted), "response": chunk.text, "done": False, **logprobs_field(chunk)}
                if chunk.done_reason is not None:
                    final = {**stamp(wanted), "response": "", "done": True, "done_reason": chunk.done_reason}
                    if not wanted.raw:
                        final["context"] = [*prompt.tokens, *answer]
                    yield {**final, **clock.metrics(chunk), **prompt.truncated(chunk)}


async def _prompt(engine: Engine, target: Target, wanted: GenerateRequest) -> str:
    """The text for the model: the prompt itself, around a gap, or in the model's chat template."""
    if _has_gap(wanted, target) and (marks := target.description.insert):
        return f"{marks.before}{wanted.prompt}{marks.after}{wanted.suffix}{marks.middle}"
    if wanted.raw or not target.description.chat_template:
        return wanted.prompt
    messages: list[dict[str, Any]] = []
    system = wanted.system or target.system
    if system:
        messages.append({"role": "system", "content": system})
    if not wanted.context:
        messages.extend(target.messages)
    messages.append({"role": "user", "content": wanted.prompt})
    return await engine.render(messages, **thinking_variables(wanted, target))


def _has_gap(wanted: GenerateRequest, target: Target) -> bool:
    """Whether the answer stands between prompt and suffix; a raw prompt is its own business."""
    return bool(wanted.suffix) and not wanted.raw


async def _around_gap(engine: Engine, target: Target, plan: Plan, wanted: GenerateRequest) -> Fitted:
    """The tokens of a prompt with a gap. What does not fit is cut off at the far ends, a quarter for the suffix."""
    marks = target.description.insert
    assert marks is not None
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
    final = {**records[-1], "response": "".join(record["response"] for record in records)}
    entries = joined_logprobs(records)
    return {**final, "logprobs": entries} if entries else final
