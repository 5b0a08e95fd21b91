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
from server.store.store import Store
from server.times import format_local

#: The prompt template of a model that has none.
DEFAULT_TEMPLATE = "{{ .Prompt }}"


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


def _insert_note(description: GGUFDescription) -> str:
    """A comment at the end of a template that says how a gap is written: clients look for `.Suffix` in there."""
    marks = description.insert
    if marks is None or "insert" not in description.capabilities:
        return ""
    return "{#- insert: %s{{ .Prompt }}%s{{ .Suffix }}%s -#}" % marks  # noqa: UP031  braces


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
        "template": (description.chat_template or model.template or DEFAULT_TEMPLATE) + _insert_note(description),
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
