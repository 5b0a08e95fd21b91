"""HTTP/1.1 by hand: a strict sans-IO parser, connections with flow control both ways, responses.

The package knows nothing of the routes above it: an application is any function that takes a `Request` and
returns a `Response`, a `StreamResponse`, or an awaitable of one; a `Server` runs it.
"""

from server.http.limits import Limits
from server.http.listener import Server
from server.http.protocol import ProtocolError
from server.http.request import Headers, Request, loggable
from server.http.response import (
    HTTPError,
    Response,
    StreamResponse,
    error_response,
    json_bytes,
    json_response,
    ndjson,
    text_response,
)

__all__ = [
    "HTTPError",
    "Headers",
    "Limits",
    "ProtocolError",
    "Request",
    "Response",
    "Server",
    "StreamResponse",
    "error_response",
    "json_bytes",
    "json_response",
    "loggable",
    "ndjson",
    "text_response",
]
