"""From the ``model`` of a request to the stored model it means."""

import asyncio
from dataclasses import dataclass

from ollamacore.errors import OllamaCoreError
from server.context import Context
from server.errors import ApiError
from server.models.description import Description, describe, details
from server.models.loaded import ModelSource
from server.store import InvalidNameError, ModelName, StoredModel

CLOUD_DISABLED = "ollama cloud is disabled: remote model is unavailable"


@dataclass(frozen=True, slots=True)
class Target:
    """A stored model that a request runs."""

    stored: StoredModel
    description: Description

    @property
    def source(self) -> ModelSource:
        """What the table of loaded models needs to know."""
        stored = self.stored
        return ModelSource(
            path=stored.model_path,
            name=stored.name.short,
            digest=stored.digest,
            details=details(stored.config, self.description),
        )


def parse_reference(text: str) -> ModelName:
    """Read a model reference; ``:local`` is dropped, a cloud reference is refused: there is no cloud here."""
    name = text.strip()
    local = name.endswith(":local")
    name = name.removesuffix(":local")
    if name.endswith((":cloud", "-cloud")):
        if local:
            raise ApiError(400, f'use either :local or :cloud, not both: "{text}"')
        raise ApiError(403, CLOUD_DISABLED)
    try:
        return ModelName.parse(name)
    except InvalidNameError:
        raise ApiError(400, "invalid model name") from None


async def find_model(context: Context, text: str, shown: str | None = None) -> Target:
    """Look a model up; 404 ``model 'x' not found`` shows the text of the request unless told otherwise."""
    name = parse_reference(text)
    target = await asyncio.to_thread(_find, context, name)
    if target is None:
        raise ApiError(404, f"model '{text if shown is None else shown}' not found")
    return target


def _find(context: Context, name: ModelName) -> Target | None:
    stored = context.store.find(name)
    if stored is None:
        return None
    try:
        return Target(stored, describe(stored.model_path))
    except OSError as error:
        raise ApiError(500, f"the weights of {name.short} cannot be read: {error.strerror}") from None
    except OllamaCoreError as error:
        raise ApiError(500, f"the weights of {name.short} cannot be used: {error}") from None
