"""GET, HEAD /api/tags: the models in the store."""

import asyncio
import logging
from typing import Any

from ollamacore.errors import OllamaCoreError
from server.context import Context
from server.http import Request, Response, json_response
from server.models.description import describe, details
from server.store import StoredModel
from server.times import format_local

log = logging.getLogger(__name__)


async def tags(request: Request, context: Context) -> Response:
    """List the stored models, newest first."""
    return json_response({"models": await asyncio.to_thread(_list, context)})


def _list(context: Context) -> list[dict[str, Any]]:
    """Every model that can be read; a damaged one is left out with a warning and hides no other."""
    models = sorted(context.store.list(), key=lambda model: model.modified_at, reverse=True)
    shown = []
    for model in models:
        try:
            shown.append(_item(model))
        except (OSError, OllamaCoreError) as error:
            log.warning("%s is not listed: %s", model.name.short, error)
    return shown


def _item(model: StoredModel) -> dict[str, Any]:
    description = describe(model.model_path)
    return {
        "name": model.name.short,
        "model": model.name.short,
        "modified_at": format_local(model.modified_at),
        "size": model.size,
        "digest": model.digest,
        "details": details(model.config, description),
        "capabilities": list(description.capabilities),
    }
