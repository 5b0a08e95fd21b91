"""What is decided before a handler runs: hosts, origins, keys, methods, redirects.

An application of server.http: one function from a request to a response, or to what a response will come from.
"""

import asyncio
import logging
import posixpath
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import replace
from urllib.parse import quote

from server.access import ApiKeys
from server.context import Context
from server.handlers.stream import foresee
from server.http import HTTPError, Request, Response, StreamResponse, json_response, loggable, text_response
from server.metrics import CLIENT_GONE, Metrics
from server.origins import Origins, host_is_allowed, is_cross_origin
from server.request_log import RequestLog
from server.route import Answer
from server.routes import find

log = logging.getLogger(__name__)


class Router:
    """The application: every request of the server comes through here."""

    def __init__(self, context: Context):
        self._context = context
        self._origins = Origins(context.config.origins)
        self._keys = ApiKeys(context.config.api_keys)
        scheme = "https" if context.config.tls_cert else "http"
        self._request_log = RequestLog(scheme) if context.config.log_requests else None
        # A browser that was led astray by DNS reaches loopback, never a socket in the file system.
        self._check_host = context.config.is_loopback and context.config.socket is None

    def __call__(self, request: Request) -> Answer | Awaitable[Answer]:
        """Answer a request; whatever goes wrong below becomes an answer too."""
        answer = self._answer(request)
        return _logged(request, answer) if log.isEnabledFor(logging.DEBUG) else answer

    def _answer(self, request: Request) -> Answer | Awaitable[Answer]:
        """Origin and host checks around the path table."""
        clean = clean_path(request.path)
        if clean != request.path:
            return _redirect(301, clean, request.query)
        host = request.headers.get("host") or ""
        origin = request.headers.get("origin") or ""
        if not origin or not is_cross_origin(origin, host):
            return self._answer_host(request, host)
        if not self._origins.allows(origin):
            return Response(403)
        if request.method == "OPTIONS":
            return Response(204, b"", self._origins.preflight_headers(origin))
        return _with_headers(self._answer_host(request, host), self._origins.headers(origin))

    def _answer_host(self, request: Request, host: str) -> Answer | Awaitable[Answer]:
        if self._check_host:
            if not host_is_allowed(host):
                return Response(403)
            if request.method == "OPTIONS":
                return Response(204)
        if not self._keys.admit(request.path, request.headers):
            return self._keys.refusal()
        return self._route(request)

    def _route(self, request: Request) -> Answer | Awaitable[Answer]:
        """Find the handler and run it."""
        found = find(request.path)
        if found is None:
            other = request.path.rstrip("/")
            if other != request.path and find(other) is not None:
                return _redirect(301 if request.method == "GET" else 307, other, request.query)
            return text_response("404 page not found", 404)
        name, methods = found
        route = methods.get(request.method)
        if route is None:
            return text_response("405 method not allowed", 405, (("Allow", ", ".join(methods)),))
        if self._context.config.read_only and route.writes:
            return json_response({"error": "this server is read-only"}, 403)
        if self._request_log is not None:
            self._request_log.watch(request)
        metrics, began = self._context.metrics, time.perf_counter()
        try:
            answer = route.handler(request, self._context)
        except Exception as error:  # noqa: BLE001  every error is an answer
            answer = _failure(error)
        if isinstance(answer, Response):
            metrics.answered(name, request.method, answer.status, time.perf_counter() - began)
            return answer
        meter = _Meter(metrics, name, request.method, began)
        return meter.of(answer) if isinstance(answer, StreamResponse) else _guarded(answer, meter)


class _Meter:
    """The time of one request, counted when its answer has ended."""

    __slots__ = ("_began", "_method", "_metrics", "_route")

    def __init__(self, metrics: Metrics, route: str, method: str, began: float):
        self._began = began
        self._metrics = metrics
        self._route = route
        self._method = method

    def of(self, answer: Answer) -> Answer:
        """The answer; one that streams is counted at its end."""
        if isinstance(answer, StreamResponse):
            return replace(answer, chunks=_Metered(answer, self))
        self.ended(answer.status)
        return answer

    def ended(self, status: int) -> None:
        """Count the request."""
        self._metrics.answered(self._route, self._method, status, time.perf_counter() - self._began)


class _Metered:
    """The chunks of an answer, whose request ends with the last of them."""

    __slots__ = ("_chunks", "_meter", "_status")

    def __init__(self, answer: StreamResponse, meter: _Meter):
        self._chunks = answer.chunks
        self._meter: _Meter | None = meter
        self._status = answer.status

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self._ended(self._status)
            raise

    async def aclose(self) -> None:
        """Stop what produces the chunks: if some are left, the client is gone."""
        self._ended(CLIENT_GONE)
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()

    def _ended(self, status: int) -> None:
        if self._meter is not None:
            self._meter.ended(status)
            self._meter = None


async def _guarded(answer: Awaitable[Answer], meter: _Meter) -> Answer:
    """The answer that a handler is working on; whatever goes wrong becomes one."""
    try:
        return meter.of(await answer)
    except HTTPError as error:
        meter.ended(error.status)
        raise  # the body could not be received: the connection answers
    except asyncio.CancelledError:
        meter.ended(CLIENT_GONE)
        raise
    except Exception as error:  # noqa: BLE001  every error is an answer
        return meter.of(_failure(error))


def _failure(error: Exception) -> Response:
    known = foresee(error)
    return json_response({"error": known.text}, known.status)


async def _with_headers(answer: Answer | Awaitable[Answer], headers: Sequence[tuple[str, str]]) -> Answer:
    """An answer with fields for a browser."""
    made = answer if isinstance(answer, Response | StreamResponse) else await answer
    return replace(made, headers=[*made.headers, *headers])


async def _logged(request: Request, answer: Answer | Awaitable[Answer]) -> Answer:
    began = time.perf_counter()
    made = answer if isinstance(answer, Response | StreamResponse) else await answer
    log.debug(
        "%s %s %s %d in %.1f ms",
        request.remote,
        request.method,
        loggable(request.path),
        made.status,
        (time.perf_counter() - began) * 1000,
    )
    return made


def clean_path(path: str) -> str:
    """The path without empty, ``.`` and ``..`` segments; a slash at the end stays."""
    if not path.startswith("/") or ("//" not in path and "/." not in path):
        return path
    clean = "/" + posixpath.normpath(path).lstrip("/")
    return f"{clean}/" if path.endswith("/") and clean != "/" else clean


def _redirect(status: int, path: str, query: str) -> Response:
    location = quote(path, safe="/:@!$&'()*+,;=~") + (f"?{query}" if query else "")
    return Response(status, b"", (("Location", location),))
