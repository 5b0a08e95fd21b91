"""POST /api/show: everything known about one model."""

import asyncio
from typing import Any

from server.context import Context
from server.errors import ApiError
from server.handlers.body import receive
from server.handlers.details import details_of
from server.handlers.reference import parse_reference
from server.http import Request, Response, json_response
from server.schema import ShowRequest
from server.store.describe import GGUFDescription
from server.store.modelfile import render_modelfile, render_parameters
from server.store.names import ModelName
from server.store.store import Store, StoredModel
from server.times import format_local


async def show(request: Request, context: Context) -> Response:
    """Describe a model; ``verbose`` adds the long arrays of its file."""
    wanted = await receive(ShowRequest, request)
    text = wanted.model or wanted.name
    if not text:
        raise ApiError(400, "model is required")
    name = parse_reference(text, "remote model details are")
    shown = await asyncio.to_thread(_show, context.store, name, wanted)
    if (request.headers.get("user-agent") or "").startswith("GitHubCopilotChat/"):
        shown["model_info"] = {**shown["model_info"], "general.basename": text}
    return json_response(shown)


def _template(store: Store, model: StoredModel, description: GGUFDescription) -> str:
    """The template that writes the prompts, and a comment on how a gap is written if it does not say so.

    Clients look for `.Suffix` in there.
    """
    go = store.template(model)
    source = (description.chat_template or "") if go is None else go.source
    marks = description.insert
    if marks is None or "insert" not in description.capabilities or (go and "suffix" in go.variables):
        return source
    gap = "insert: %s{{ .Prompt }}%s{{ .Suffix }}%s" % marks  # noqa: UP031  braces
    return source + ("{#- %s -#}" if go is None else "{{- /* %s */ -}}") % gap


def _show(store: Store, name: ModelName, wanted: ShowRequest) -> dict[str, Any]:
    model = store.find(name)
    if model is None:
        raise ApiError(404, f"model '{name.short}' not found")
    description = store.describe(model, verbose=wanted.verbose)
    summary = store.summarise(model)
    parameters = {**model.params, **(wanted.options or {})}
    system = wanted.system or model.system
    fields = {
        "license": "\n".join(model.licenses),
        "modelfile": render_modelfile(model, system=system, parameters=parameters),
        "parameters": render_parameters(parameters),
        "template": _template(store, model, description),
        "system": system,
    }
    shown: dict[str, Any] = {key: value for key, value in fields.items() if value}
    shown["details"] = details_of(model, summary)
    if model.messages:
        shown["messages"] = model.messages
    shown["model_info"] = dict(description.model_info)
    shown["tensors"] = [
        {"name": tensor.name, "type": tensor.type, "shape": list(tensor.shape)}
        for tensor in description.tensors
    ]
    shown["capabilities"] = list(summary.capabilities)
    shown["modified_at"] = format_local(model.modified_at)
    return shown
