"""POST /api/copy and DELETE /api/delete."""

import asyncio

from server.context import Context
from server.errors import ApiError
from server.handlers.body import receive
from server.http import Request, Response
from server.schema import CopyRequest, DeleteRequest
from server.store.errors import InvalidNameError, ModelNotFoundError
from server.store.names import ModelName


async def copy(request: Request, context: Context) -> Response:
    """Give a model a second name."""
    wanted = await receive(CopyRequest, request)
    source = _name(wanted.source, f'source "{wanted.source}" is invalid')
    destination = _name(wanted.destination, f'destination "{wanted.destination}" is invalid')
    try:
        await asyncio.to_thread(context.store.copy, source, destination)
    except ModelNotFoundError:
        raise ApiError(404, f'model "{wanted.source}" not found') from None
    return Response(200)


async def delete(request: Request, context: Context) -> Response:
    """Remove a name, and the blobs that no other model needs."""
    wanted = await receive(DeleteRequest, request)
    text = wanted.model or wanted.name
    if not text:
        raise ApiError(400, "model is required")
    name = _name(text, f'name "{text}" is invalid')
    try:
        await asyncio.to_thread(context.store.delete, name)
    except ModelNotFoundError:
        raise ApiError(404, f"model '{text}' not found") from None
    return Response(200)


def _name(text: str, problem: str) -> ModelName:
    try:
        return ModelName.parse(text.strip())
    except InvalidNameError:
        raise ApiError(400, problem) from None
