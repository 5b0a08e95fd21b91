"""POST /api/create: make a model from uploaded blobs or from another model."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from server.context import Context
from server.errors import ApiError
from server.handlers.body import receive
from server.handlers.reference import parse_reference
from server.handlers.stream import PLAIN_JSON, Records, stream_records
from server.http import Request, Response, StreamResponse, json_bytes
from server.schema import CreateRequest
from server.store.create import CreateSpec, create_model


async def create(request: Request, context: Context) -> Response | StreamResponse:
    """Answer with progress records; the last one says success."""
    wanted = await receive(CreateRequest, request)
    records = _progress(context, _spec(wanted))
    if wanted.stream:
        return await stream_records(records)
    async with aclosing(records):
        last = [record async for record in records][-1]
    return Response(200, json_bytes(last), PLAIN_JSON)


def _spec(wanted: CreateRequest) -> CreateSpec:
    """The order for the store."""
    text = wanted.model or wanted.name
    if not text:
        raise ApiError(400, "invalid model name")
    if wanted.remote_host:
        drafts = bool(wanted.draft_files)
        raise ApiError(400, "DRAFT cannot be used with remote models" if drafts else "bad remote")
    return CreateSpec(
        name=parse_reference(text),
        base=parse_reference(wanted.from_) if wanted.from_ else None,
        files=wanted.files,
        adapters=wanted.adapters or {},
        draft_files=wanted.draft_files or {},
        draft_quantize=wanted.draft_quantize,
        quantize=wanted.quantize,
        template=wanted.template,
        system=wanted.system,
        license=wanted.license,
        parameters=wanted.parameters or {},
        messages=[message.for_store() for message in wanted.messages],
        renderer=wanted.renderer,
        parser=wanted.parser,
        requires=wanted.requires,
        info=wanted.info or {},
    )


async def _progress(context: Context, spec: CreateSpec) -> Records:
    """The steps of a creation as they are reported. A client that leaves does not stop it."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue()

    def report(record: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, record)

    work = asyncio.create_task(asyncio.to_thread(create_model, context.store, spec, report))
    work.add_done_callback(lambda _: queue.put_nowait(None))
    while (record := await queue.get()) is not None:
        yield dict(record)
    await work
