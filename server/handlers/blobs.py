"""HEAD and POST /api/blobs/:digest: uploading the parts of a model."""

import asyncio

from server.context import Context
from server.errors import ApiError
from server.http import Request, Response
from server.store.digest import parse_digest
from server.store.errors import InvalidDigestError

#: Bytes gathered before one trip to the thread that hashes and writes.
WRITE_BYTES = 4 << 20


async def blob_exists(request: Request, context: Context) -> Response:
    """200 if the blob is in the store, else 404."""
    digest = _digest(request)
    known = await asyncio.to_thread(context.store.has_blob, digest)
    return Response(200 if known else 404)


async def upload_blob(request: Request, context: Context) -> Response:
    """Receive a blob: 201 when stored, 200 when it was there, 400 when the bytes are not the digest's."""
    digest = _digest(request)
    if await asyncio.to_thread(context.store.has_blob, digest):
        await _discard(request)
        return Response(200)
    writer = await asyncio.to_thread(context.store.writer)
    try:
        gathered = bytearray()
        async for chunk in request.stream():
            gathered += chunk
            if len(gathered) >= WRITE_BYTES:
                await asyncio.to_thread(writer.write, gathered)
                gathered = bytearray()
        await asyncio.to_thread(writer.write, gathered)
        await asyncio.to_thread(writer.commit, digest)
    except BaseException:
        await asyncio.shield(asyncio.to_thread(writer.abort))
        raise
    return Response(201)


async def _discard(request: Request) -> None:
    """Take in a body that is not needed: a client that is still sending would miss an early answer.

    One that asked whether to send at all gets its answer instead.
    """
    if (request.headers.get("expect") or "").lower() != "100-continue":
        async for _ in request.stream():
            pass


def _digest(request: Request) -> str:
    """The digest in the path, as ``sha256:<hex>``."""
    try:
        return f"sha256:{parse_digest(request.path.rpartition('/')[2])}"
    except InvalidDigestError as error:
        raise ApiError(400, str(error)) from None
