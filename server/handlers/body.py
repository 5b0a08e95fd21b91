"""Receiving a JSON request body."""

import asyncio
from typing import TypeVar

from server.http import Request
from server.schema import parse

T = TypeVar("T")

#: Images and long histories fit; a body that would fill a small machine's memory does not.
MAX_JSON_BYTES = 64 << 20
#: Decoding more than this would hold up the event loop.
INLINE_BYTES = 128 << 10


async def receive(cls: type[T], request: Request) -> T:
    """Read and decode the body into a request dataclass; ApiError 400 if it is not one."""
    body = await request.read(MAX_JSON_BYTES)
    if len(body) <= INLINE_BYTES:
        return parse(cls, body)
    return await asyncio.to_thread(parse, cls, body)
