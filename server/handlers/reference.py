"""From the ``model`` of a request to the stored model it means."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ollamacore import ModelfileTemplate
from server.context import Context
from server.errors import ApiError
from server.handlers.details import details_of
from server.models.loaded import ModelSource
from server.store.describe import GGUFDescription
from server.store.errors import InvalidNameError
from server.store.names import ModelName
from server.store.store import Store, StoredModel

CLOUD_DISABLED = "ollama cloud is disabled: {} unavailable"


@dataclass(frozen=True, slots=True)
class Target:
    """A stored model that a request runs, and what its manifest and file say: read off the event loop."""

    stored: StoredModel
    source: ModelSource
    description: GGUFDescription
    params: Mapping[str, Any]
    system: str
    messages: Sequence[dict[str, Any]]
    capabilities: Sequence[str]
    template: ModelfileTemplate | None  # that writes prompts; None: the Jinja template of the file does

    def supports(self, capability: str) -> bool:
        """Whether the weights and the template in force can do this: completion, tools, thinking, insert."""
        return capability in self.capabilities


def parse_reference(text: str, wanted: str = "remote model is") -> ModelName:
    """Read a model reference; ``:local`` is dropped, a cloud reference is refused: there is no cloud here."""
    name = text.strip()
    local = name.endswith(":local")
    name = name.removesuffix(":local")
    if name.endswith((":cloud", "-cloud")):
        if local:
            raise ApiError(400, f'use either :local or :cloud, not both: "{text}"')
        raise ApiError(403, CLOUD_DISABLED.format(wanted))
    try:
        return ModelName.parse(name)
    except InvalidNameError:
        raise ApiError(400, "invalid model name") from None


async def find_model(context: Context, text: str) -> Target:
    """Look up the model that a request runs; 404 ``model 'x' not found`` if there is none."""
    name = parse_reference(text)
    target = await asyncio.to_thread(_find, context.store, name)
    if target is None:
        raise ApiError(404, f"model '{text}' not found")
    return target


def _find(store: Store, name: ModelName) -> Target | None:
    stored = store.find(name)
    if stored is None:
        return None
    path = store.verified_path(stored.model_layer.digest)
    summary = store.summarise(stored)
    details = details_of(stored, summary, parent=False)
    return Target(
        stored=stored,
        source=ModelSource(path, stored.name.short, stored.digest, details),
        description=store.describe(stored),
        params=stored.params,
        system=stored.system or "",
        messages=stored.messages,
        capabilities=summary.capabilities,
        template=store.template(stored),
    )
