"""What is decided before a handler runs: hosts, origins, keys, methods, redirects.

An application of server.http: one function from a request to a response, or to what a response will come from.
"""

import logging
import posixpath
import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from urllib.parse import quote

from server.access import ApiKeys
from server.context import Context
from server.handlers.stream import foresee
from server.http import HTTPError, Request, Response, StreamResponse, json_response, loggable, text_response
from server.origins import Origins, host_is_allowed, is_cross_origin
from server.route import Answer
from server.routes import find

log = logging.getLogger(__name__)


class Router:
    """The application: every request of the server comes through here."""

    def __init__(self, context: Context):
        self._context = context
        self._origins = Origins(context.config.origins)
        self._keys = ApiKeys(context.config.api_keys)
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
        methods = find(request.path)
        if methods is None:
            other = request.path.rstrip("/")
            if other != request.path and find(other) is not None:
                return _redirect(301 if request.method == "GET" else 307, other, request.query)
            return text_response("404 page not found", 404)
        route = methods.get(request.method)
        if route is None:
            return text_response("405 method not allowed", 405, (("Allow", ", ".join(methods)),))
        if self._context.config.read_only and route.writes:
            return json_response({"error": "this server is read-only"}, 403)
        try:
            answer = route.handler(request, self._context)
        except Exception as error:  # noqa: BLE001  every error is an answer
            return _failure(error)
        return answer if isinstance(answer, Response | StreamResponse) else _guarded(answer)


async def _guarded(answer: Awaitable[Answer]) -> Answer:
    """The answer that a handler is working on; whatever goes wrong becomes one."""
    try:
        return await answer
    except HTTPError:
        raise  # the body could not be received: the connection answers
    except Exception as error:  # noqa: BLE001  every error is an answer
        return _failure(error)


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
