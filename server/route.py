"""One method of one path: its handler, what it takes and what it gives."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from server.context import Context
from server.http import Request, Response, StreamResponse

Answer = Response | StreamResponse
#: a handler that never waits is a plain function: its answer goes out without a task of its own
Handler = Callable[[Request, Context], Answer | Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """A handler with the types of its bodies; its docstring says what it does."""

    handler: Handler
    takes: type | None = None  # the dataclass of its JSON body
    gives: Any = None  # the TypedDict of its JSON answer; str for plain text, None for an empty body
    streams: bool = False  # answers with records of it, unless asked not to
    uploads: bool = False  # its body is raw bytes
    writes: bool = False  # changes the store: refused by a server that is read-only
    status: tuple[int, ...] = (200,)  # of success; none where only errors are given


#: path -> method -> route; a path that ends in {name} takes one more segment
Table = Mapping[str, Mapping[str, Route]]
