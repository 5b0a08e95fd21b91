"""GET /api/ps: the models in memory."""

from server.context import Context
from server.http import Request, Response, json_response
from server.times import format_local_ns


def ps(request: Request, context: Context) -> Response:
    """List the loaded models, longest remaining time first."""
    models = [
        {
            "name": model.source.name,
            "model": model.source.name,
            "size": model.memory_bytes,
            "digest": model.source.digest,
            "details": model.source.details,
            "expires_at": format_local_ns(model.expires_at_ns),
            "size_vram": 0,
            "context_length": model.context,
        }
        for model in context.models.running()
    ]
    return json_response({"models": models})
