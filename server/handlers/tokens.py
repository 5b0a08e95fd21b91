"""POST /api/tokenize and /api/detokenize: text to token ids and back, without loading the weights."""

from server.context import Context
from server.errors import ApiError
from server.handlers.body import receive
from server.handlers.prompt import conversation, render, thinking
from server.handlers.reference import Target, find_model
from server.http import Request, Response, json_response
from server.models.engine import Text
from server.schema import DetokenizeRequest, TokenizeRequest


async def tokenize(request: Request, context: Context) -> Response:
    """Answer with the token ids of a text, or of the prompt that the model's template makes of messages."""
    wanted = await receive(TokenizeRequest, request)
    if wanted.content and wanted.messages:
        raise ApiError(400, "content and messages cannot be combined")
    target, text = await _open(context, wanted.model)
    content, add_special = wanted.content, wanted.add_special
    if wanted.messages:
        content, add_special = await _rendered(text, target, wanted), True
    tokens = await text.tokenize(content, add_special=add_special)
    return json_response({"model": wanted.model, "tokens": tokens, "count": len(tokens)})


async def detokenize(request: Request, context: Context) -> Response:
    """Answer with the text of token ids, special tokens spelled out."""
    wanted = await receive(DetokenizeRequest, request)
    _, text = await _open(context, wanted.model)
    return json_response({"model": wanted.model, "content": await text.detokenize(wanted.tokens)})


async def _open(context: Context, name: str) -> tuple[Target, Text]:
    """The model of a name, and its vocabulary."""
    if not name:
        raise ApiError(400, "model is required")
    target = await find_model(context, name)
    return target, await context.models.text(target.source.path)


async def _rendered(text: Text, target: Target, wanted: TokenizeRequest) -> str:
    """The prompt that chat would make of these messages."""
    if wanted.tools and not target.supports("tools"):
        raise ApiError(400, f"{target.stored.name.full} does not support tools")
    messages = conversation(target, wanted.messages)
    return await render(text, target, messages, think=thinking(wanted, target), tools=wanted.tools)
