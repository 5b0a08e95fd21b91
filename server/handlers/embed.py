"""POST /api/embed and the older POST /api/embeddings: vectors for texts."""

import math
from dataclasses import dataclass
from typing import Any

from ollamacore import ContextLengthError, Embeddings, SamplingOptions
from server.context import Context
from server.errors import ApiError, api_error
from server.handlers.body import receive
from server.handlers.reference import Target, find_model
from server.handlers.run import Clock, context_size
from server.http import Request, Response, json_response
from server.schema import EmbeddingRequest, EmbedRequest

#: architectures whose vectors the older route gives as the model makes them, with any length
RAW = ("bert", "nomic-bert")

TOO_LONG = "the input length exceeds the context length"
NO_ROOM = "input after truncation exceeds maximum context length"


async def embed(request: Request, context: Context) -> Response:
    """Answer with a vector of length one for each text; without a text, load the model."""
    wanted = await receive(EmbedRequest, request)
    texts = _texts(wanted.input)
    if not wanted.model:
        raise ApiError(404, "model '' not found")
    clock = Clock()
    target = await _find(context, wanted.model)
    job = _Job(wanted.truncate is not False, wanted.dimensions)
    try:
        found = await _run(context, target, wanted, texts, job, clock)
    except ContextLengthError:
        raise ApiError(400, NO_ROOM if job.truncate else TOO_LONG) from None
    if found is None:
        return json_response({"model": wanted.model, "embeddings": []})
    metrics = {**clock.times(), "prompt_eval_count": sum(found.tokens)}
    return json_response(
        {
            "model": wanted.model,
            "embeddings": found.vectors,
            **{name: value for name, value in metrics.items() if value},
        }
    )


async def embeddings(request: Request, context: Context) -> Response:
    """Answer with one vector, as numbers of double precision; without a prompt, load the model."""
    wanted = await receive(EmbeddingRequest, request)
    if not wanted.model:
        raise ApiError(400, "model is required")
    target = await _find(context, wanted.model)
    texts = [wanted.prompt] if wanted.prompt else []
    job = _Job(normalize=target.description.architecture not in RAW)
    try:
        found = await _run(context, target, wanted, texts, job, Clock())
    except (ContextLengthError, ApiError) as error:
        known = api_error(error)
        raise ApiError(500 if known is None or known.status == 400 else known.status, str(error)) from None
    return json_response({"embedding": [] if found is None else found.vectors[0].tolist()})


@dataclass(frozen=True, slots=True)
class _Job:
    """How texts become vectors."""

    truncate: bool = True
    dimensions: int = 0
    normalize: bool = True


def _texts(value: object) -> list[str]:
    """The texts of an input: none, one string, or an array of strings."""
    if value is None or value == "":
        return []
    texts: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise ApiError(400, "invalid input type")
    return texts


async def _find(context: Context, name: str) -> Target:
    try:
        target = await find_model(context, name)
    except ApiError as error:
        if error.status != 404:
            raise
        raise ApiError(404, f'model "{name}" not found, try pulling it first') from None
    if target.supports("rerank"):
        raise ApiError(400, f'"{name}" does not support embeddings')
    return target


async def _run(
    context: Context,
    target: Target,
    wanted: EmbedRequest | EmbeddingRequest,
    texts: list[str],
    job: _Job,
    clock: Clock,
) -> Embeddings | None:
    """The vectors of the texts, or None where there are no texts and the model was only to be loaded."""
    options = SamplingOptions.from_mapping(target.params)
    options = SamplingOptions.from_mapping(wanted.options or {}, options)
    size = context_size(context, target, options)
    async with context.models.lease(target.source, size, wanted.keep_alive_ns) as lease:
        clock.ready()
        if not texts:
            return None
        found = await lease.engine.embed(
            texts, num_ctx=size, truncate=job.truncate, dimensions=job.dimensions or None, normalize=job.normalize
        )
    if not math.isfinite(found.vectors.sum()):
        raise ApiError(400, "embedding contains NaN or Inf values")
    return found
