"""GET, HEAD /api/tags: the models in the store."""

import asyncio
import logging
from typing import Any

from ollamacore.errors import OllamaCoreError
from server.context import Context
from server.handlers.details import details_of
from server.http import Request, Response, json_response
from server.store.errors import StoreError
from server.store.store import Store, StoredModel
from server.times import format_local

log = logging.getLogger(__name__)


async def tags(request: Request, context: Context) -> Response:
    """List the stored models, newest first."""
    return json_response({"models": await asyncio.to_thread(_list, context.store)})


def _list(store: Store) -> list[dict[str, Any]]:
    """Every model that can be read; a damaged one is left out with a warning and hides no other."""
    shown = []
    for model in store.list():
        try:
            shown.append(_item(store, model))
        except (OSError, StoreError, OllamaCoreError) as error:
            log.warning("%s is not listed: %s", model.name.short, error)
    return shown


def _item(store: Store, model: StoredModel) -> dict[str, Any]:
    summary = store.summarise(model)
    shown = {
        "name": model.name.short,
        "model": model.name.short,
        "modified_at": format_local(model.modified_at),
        "size": model.size,
        "digest": model.digest,
        "details": details_of(model, summary),
    }
    return shown | ({"capabilities": list(summary.capabilities)} if summary.capabilities else {})
