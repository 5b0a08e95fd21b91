"""What only Ollama's cloud can do, answered as a server without it answers. Nothing here opens a connection."""

from server.context import Context
from server.errors import ApiError
from server.http import Request, Response, json_response


def status(request: Request, context: Context) -> Response:
    """GET /api/status: there is no cloud, whether or not somebody turned it off."""
    source = "env" if context.config.no_cloud else "none"
    return json_response({"cloud": {"disabled": True, "source": source}})


def me(request: Request, context: Context) -> Response:
    """POST /api/me: what Ollama says when it cannot ask; its 401 would need the address of a page to sign in."""
    raise ApiError(503, "account unavailable")


def sign_out(request: Request, context: Context) -> Response:
    """POST /api/signout, DELETE /api/user/keys/:key."""
    raise ApiError(401, "you are not currently signed in")


def web_search(request: Request, context: Context) -> Response:
    """POST /api/experimental/web_search."""
    raise ApiError(403, "ollama cloud is disabled: web search is unavailable")


def web_fetch(request: Request, context: Context) -> Response:
    """POST /api/experimental/web_fetch."""
    raise ApiError(403, "ollama cloud is disabled: web fetch is unavailable")


def recommendations(request: Request, context: Context) -> Response:
    """GET /api/experimental/model-recommendations."""
    return json_response({"recommendations": []})
