"""The path table, and what is decided before a handler runs: hosts, origins, methods, redirects.

The only module that knows the handlers. It is an application of server.http: one coroutine function from a
request to a response.
"""

import logging
import posixpath
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import quote

from server.context import Context
from server.handlers.blobs import blob_exists, upload_blob
from server.handlers.chat import chat
from server.handlers.copy_delete import copy, delete
from server.handlers.create import create
from server.handlers.embed import embed, embeddings
from server.handlers.generate import generate
from server.handlers.ps import ps
from server.handlers.show import show
from server.handlers.stream import foresee
from server.handlers.tags import tags
from server.handlers.version import root, version
from server.http import HTTPError, Request, Response, StreamResponse, json_response, loggable, text_response
from server.origins import Origins, host_is_allowed, is_cross_origin

log = logging.getLogger(__name__)

Answer = Response | StreamResponse
Handler = Callable[[Request, Context], Awaitable[Answer]]

#: path -> method -> handler; a path that ends in a slash takes one more segment.
ROUTES: dict[str, dict[str, Handler]] = {
    "/": {"GET": root, "HEAD": root},
    "/api/version": {"GET": version, "HEAD": version},
    "/api/tags": {"GET": tags, "HEAD": tags},
    "/api/ps": {"GET": ps},
    "/api/show": {"POST": show},
    "/api/generate": {"POST": generate},
    "/api/chat": {"POST": chat},
    "/api/embed": {"POST": embed},
    "/api/embeddings": {"POST": embeddings},
    "/api/create": {"POST": create},
    "/api/copy": {"POST": copy},
    "/api/delete": {"DELETE": delete},
    "/api/blobs/": {"HEAD": blob_exists, "POST": upload_blob},
}


class Router:
    """The application: every request of the server comes through here."""

    def __init__(self, context: Context):
        self._context = context
        self._origins = Origins(context.config.origins)
        self._check_host = context.config.is_loopback

    async def __call__(self, request: Request) -> Answer:
        """Answer a request; whatever goes wrong below becomes an answer too."""
        began = time.perf_counter()
        answer = await self._answer(request)
        log.debug(
            "%s %s %s %d in %.1f ms",
            request.remote,
            request.method,
            loggable(request.path),
            answer.status,
            (time.perf_counter() - began) * 1000,
        )
        return answer

    async def _answer(self, request: Request) -> Answer:
        """Origin and host checks around the path table."""
        clean = clean_path(request.path)
        if clean != request.path:
            return _redirect(301, clean, request.query)
        host = request.headers.get("host") or ""
        origin = request.headers.get("origin") or ""
        crosses = is_cross_origin(origin, host)
        if crosses and not self._origins.allows(origin):
            return Response(403)
        if crosses and request.method == "OPTIONS":
            return Response(204, b"", self._origins.preflight_headers(origin))
        answer = await self._answer_host(request, host)
        if crosses:
            answer = replace(answer, headers=[*answer.headers, *self._origins.headers(origin)])
        return answer

    async def _answer_host(self, request: Request, host: str) -> Answer:
        if self._check_host:
            if not host_is_allowed(host):
                return Response(403)
            if request.method == "OPTIONS":
                return Response(204)
        return await self._route(request)

    async def _route(self, request: Request) -> Answer:
        """Find the handler and run it."""
        methods = find(request.path)
        if methods is None:
            other = request.path.rstrip("/")
            if other != request.path and find(other) is not None:
                return _redirect(301 if request.method == "GET" else 307, other, request.query)
            return text_response("404 page not found", 404)
        handler = methods.get(request.method)
        if handler is None:
            return text_response("405 method not allowed", 405, (("Allow", ", ".join(methods)),))
        try:
            return await handler(request, self._context)
        except HTTPError:
            raise  # the body could not be received: the connection answers
        except Exception as error:  # noqa: BLE001  every error is an answer
            known = foresee(error)
            return json_response({"error": known.text}, known.status)


def find(path: str) -> dict[str, Handler] | None:
    """The methods of a path, or None."""
    if path in ROUTES:
        return None if path != "/" and path.endswith("/") else ROUTES[path]
    folder, _, last = path.rpartition("/")
    return ROUTES.get(f"{folder}/") if last and folder else None


def clean_path(path: str) -> str:
    """The path without empty, ``.`` and ``..`` segments; a slash at the end stays."""
    if not path.startswith("/"):
        return path
    clean = "/" + posixpath.normpath(path).lstrip("/")
    return f"{clean}/" if path.endswith("/") and clean != "/" else clean


def _redirect(status: int, path: str, query: str) -> Response:
    location = quote(path, safe="/:@!$&'()*+,;=~") + (f"?{query}" if query else "")
    return Response(status, b"", (("Location", location),))
