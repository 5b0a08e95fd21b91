"""Liveness and version: answered at once whatever else the server does."""

from server.context import OLLAMA_VERSION, Context
from server.http import Request, Response, json_response, text_response

_ROOT = text_response("Ollama is running")
_VERSION = json_response({"version": OLLAMA_VERSION})


def root(request: Request, context: Context) -> Response:
    """GET, HEAD /: the text by which the official CLI knows a server."""
    return _ROOT


def version(request: Request, context: Context) -> Response:
    """GET, HEAD /api/version."""
    return _VERSION
