"""POST /api/rerank: order documents by how well they answer a query."""

from typing import Any

from ollamacore import ContextLengthError, SamplingOptions, Scores
from server.context import Context
from server.errors import ApiError
from server.handlers.body import receive
from server.handlers.reference import find_model
from server.handlers.run import Clock, context_size
from server.http import Request, Response, json_response
from server.schema import RerankRequest


async def rerank(request: Request, context: Context) -> Response:
    """Answer with the documents' places and scores, the best first; without documents, load the model."""
    wanted = await receive(RerankRequest, request)
    if not wanted.model:
        raise ApiError(400, "model is required")
    if wanted.top_n < 0:
        raise ApiError(400, "top_n must not be negative")
    clock = Clock()
    target = await find_model(context, wanted.model)
    if not target.supports("rerank"):
        raise ApiError(400, f'"{wanted.model}" does not support rerank')
    if wanted.documents and not wanted.query:
        raise ApiError(400, "query is required")
    options = SamplingOptions.from_mapping(target.params)
    options = SamplingOptions.from_mapping(wanted.options or {}, options)
    size = context_size(context, target, options)
    async with context.models.lease(target.source, size, wanted.keep_alive_ns) as lease:
        clock.ready()
        found = Scores((), ())
        if wanted.documents:
            try:
                found = await lease.engine.rerank(wanted.query, wanted.documents, num_ctx=size)
            except ContextLengthError:
                raise ApiError(400, "the query length exceeds the context length") from None
    metrics = {**clock.times(), "prompt_eval_count": sum(found.tokens)}
    return json_response(
        {
            "model": wanted.model,
            "results": _results(wanted, found),
            **{name: value for name, value in metrics.items() if value},
        }
    )


def _results(wanted: RerankRequest, found: Scores) -> list[dict[str, Any]]:
    """The best documents; equal ones in the order of the request."""
    order = sorted(range(len(found.relevance)), key=lambda index: -found.relevance[index])
    results: list[dict[str, Any]] = []
    for index in order[: wanted.top_n or None]:
        result = {"index": index, "relevance_score": found.relevance[index]}
        results.append(result | ({"document": wanted.documents[index]} if wanted.return_documents else {}))
    return results
