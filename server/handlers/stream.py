"""Answers made of records: newline-delimited JSON while they come, or one object at the end."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from server.errors import ApiError, api_error
from server.http import Response, StreamResponse, json_bytes, ndjson

log = logging.getLogger(__name__)

NDJSON = (("Content-Type", "application/x-ndjson"),)
PLAIN_JSON = (("Content-Type", "application/json"),)

Records = AsyncGenerator[dict[str, Any], None]


class _Lines:
    """The lines of a stream whose first record is known already.

    The generator behind it has started, so closing it runs its cleanup whether or not anybody read a line.
    """

    def __init__(self, first: dict[str, Any] | None, records: Records):
        self._first = first
        self._records = records

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            record, self._first = self._first, None
            return ndjson(record)
        try:
            return ndjson(await anext(self._records))
        except StopAsyncIteration:
            raise
        except Exception as error:  # noqa: BLE001  the status is sent: the only way left to tell is a line
            return ndjson({"error": foresee(error).text})

    async def aclose(self) -> None:
        """Stop what produces the records."""
        await self._records.aclose()


async def stream_records(records: Records) -> Response | StreamResponse:
    """Send records as they come. An error before the first one is an answer with its own status."""
    try:
        first = await anext(records, None)
    except Exception as error:  # noqa: BLE001  every error is an answer
        return error_before_stream(foresee(error))
    return StreamResponse(_Lines(first, records), 200, NDJSON)


def error_before_stream(error: ApiError) -> Response:
    """An error in place of a stream: as JSON, without a charset as Ollama sends it."""
    return Response(error.status, json_bytes({"error": error.text}), PLAIN_JSON)


def foresee(error: Exception) -> ApiError:
    """The answer to an exception; one that nobody foresaw is logged and says no more than that."""
    known = api_error(error)
    if known is None:
        log.error("unexpected error", exc_info=error)
        known = ApiError(500, "internal server error")
    return known
