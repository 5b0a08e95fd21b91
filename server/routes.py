"""The path table: what each method of each path takes, gives and is answered by.

The only module that knows the handlers. The router finds its way by this table, the OpenAPI document is made from it.
"""

from collections.abc import Mapping
from typing import Any

from server.answers import (
    ChatAnswer,
    DetokenizeAnswer,
    EmbedAnswer,
    EmbeddingsAnswer,
    GenerateAnswer,
    ProgressAnswer,
    PsAnswer,
    RecommendationsAnswer,
    RerankAnswer,
    ShowAnswer,
    StatusAnswer,
    TagsAnswer,
    TokenizeAnswer,
    VersionAnswer,
)
from server.context import Context
from server.handlers.blobs import blob_exists, upload_blob
from server.handlers.chat import chat
from server.handlers.cloud import me, recommendations, sign_out, status, web_fetch, web_search
from server.handlers.copy_delete import copy, delete
from server.handlers.create import create
from server.handlers.embed import embed, embeddings
from server.handlers.generate import generate
from server.handlers.metrics import metrics
from server.handlers.ps import ps
from server.handlers.rerank import rerank
from server.handlers.show import show
from server.handlers.tags import tags
from server.handlers.tokens import detokenize, tokenize
from server.handlers.version import root, version
from server.http import Request, Response, json_response
from server.openapi import document
from server.route import Route, Table
from server.schema import (
    ChatRequest,
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    EmbedRequest,
    GenerateRequest,
    RerankRequest,
    ShowRequest,
    TokenizeRequest,
)


def openapi(request: Request, context: Context) -> Response:
    """GET /openapi.json: this table as an OpenAPI document."""
    return json_response(document(ROUTES))


_GET_VERSION = Route(version, gives=VersionAnswer)
_GET_TAGS = Route(tags, gives=TagsAnswer)
_ROOT = Route(root, gives=str)

ROUTES: Table = {
    "/": {"GET": _ROOT, "HEAD": _ROOT},
    "/api/version": {"GET": _GET_VERSION, "HEAD": _GET_VERSION},
    "/api/tags": {"GET": _GET_TAGS, "HEAD": _GET_TAGS},
    "/api/ps": {"GET": Route(ps, gives=PsAnswer)},
    "/api/show": {"POST": Route(show, ShowRequest, ShowAnswer)},
    "/api/generate": {"POST": Route(generate, GenerateRequest, GenerateAnswer, streams=True)},
    "/api/chat": {"POST": Route(chat, ChatRequest, ChatAnswer, streams=True)},
    "/api/embed": {"POST": Route(embed, EmbedRequest, EmbedAnswer)},
    "/api/embeddings": {"POST": Route(embeddings, EmbeddingRequest, EmbeddingsAnswer)},
    "/api/tokenize": {"POST": Route(tokenize, TokenizeRequest, TokenizeAnswer)},
    "/api/detokenize": {"POST": Route(detokenize, DetokenizeRequest, DetokenizeAnswer)},
    "/api/rerank": {"POST": Route(rerank, RerankRequest, RerankAnswer)},
    "/api/create": {"POST": Route(create, CreateRequest, ProgressAnswer, streams=True, writes=True)},
    "/api/copy": {"POST": Route(copy, CopyRequest, writes=True)},
    "/api/delete": {"DELETE": Route(delete, DeleteRequest, writes=True)},
    "/api/blobs/{digest}": {
        "HEAD": Route(blob_exists),
        "POST": Route(upload_blob, uploads=True, writes=True, status=(200, 201)),
    },
    "/api/status": {"GET": Route(status, gives=StatusAnswer)},
    "/api/me": {"POST": Route(me, status=())},
    "/api/signout": {"POST": Route(sign_out, status=())},
    "/api/user/keys/{key}": {"DELETE": Route(sign_out, status=())},
    "/api/experimental/web_search": {"POST": Route(web_search, status=())},
    "/api/experimental/web_fetch": {"POST": Route(web_fetch, status=())},
    "/api/experimental/model-recommendations": {"GET": Route(recommendations, gives=RecommendationsAnswer)},
    "/metrics": {"GET": Route(metrics, gives=str)},
    "/openapi.json": {"GET": Route(openapi, gives=dict[str, Any])},
}

_FOLDERS = {path.partition("{")[0]: path for path in ROUTES if "{" in path}


def find(path: str) -> tuple[str, Mapping[str, Route]] | None:
    """The row of the table that a path belongs to: its name and its methods; or None."""
    if path in ROUTES and "{" not in path:
        return path, ROUTES[path]
    folder, _, last = path.rpartition("/")
    name = _FOLDERS.get(f"{folder}/") if last else None
    return (name, ROUTES[name]) if name is not None else None
