"""Tool calls in the text of an answer: which notation a model has, and an incremental parser for all of them."""

from ollamacore.prompt.tools.calls import Call, Schemas, tool_schemas
from ollamacore.prompt.tools.formats import CallFormat, go_format, jinja_format
from ollamacore.prompt.tools.parser import CallParser

__all__ = ["Call", "CallFormat", "CallParser", "Schemas", "go_format", "jinja_format", "tool_schemas"]
