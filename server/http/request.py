"""A request as a handler sees it; its body is pulled, so a slow handler slows only its own client."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

from server.http.response import HTTPError


class Headers:
    """Header fields in the order received; names compare without case."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields:
            self._fields.setdefault(name.lower(), []).append(value)

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value of a field; of a repeated one all values joined by a comma, as RFC 9110 reads them."""
        values = self._fields.get(name.lower())
        return default if values is None else ", ".join(values)

    def getlist(self, name: str) -> list[str]:
        """The values of a field, one per line received."""
        return list(self._fields.get(name.lower(), ()))

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._fields

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((name, value) for name, values in self._fields.items() for value in values)


async def _no_body() -> bytes:
    return b""


class Request:
    """One request. `path` is percent-decoded once, `query` is as received, without its question mark."""

    __slots__ = (
        "_receive",
        "content_length",
        "headers",
        "local",
        "method",
        "path",
        "query",
        "remote",
        "version",
    )

    def __init__(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Headers | None = None,
        *,
        version: str = "1.1",
        remote: str = "",
        local: str = "",
        content_length: int | None = None,
        receive: Callable[[], Awaitable[bytes]] = _no_body,
    ) -> None:
        """`receive` gives the next part of the body, b"" at its end; `remote` and `local` are `host:port`."""
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers if headers is not None else Headers()
        self.version = version
        self.remote = remote
        self.local = local
        self.content_length = content_length
        self._receive = receive

    def watch(self, on_end: Callable[[bytes], Awaitable[None]]) -> None:
        """Call a function with the whole body when it has been received."""
        receive, pieces = self._receive, bytearray()

        async def watched() -> bytes:
            piece = await receive()
            pieces.extend(piece)
            if not piece:
                await on_end(bytes(pieces))
            return piece

        self._receive = watched

    async def stream(self) -> AsyncIterator[bytes]:
        """The body as it comes; while it is not iterated, the client is not read."""
        while chunk := await self._receive():
            yield chunk

    async def read(self, limit: int) -> bytes:
        """The whole body; more than `limit` bytes raise HTTPError 413, if possible before they are sent."""
        if self.content_length is not None and self.content_length > limit:
            raise HTTPError(413, "request body too large")
        chunks = []
        size = 0
        async for chunk in self.stream():
            size += len(chunk)
            if size > limit:
                raise HTTPError(413, "request body too large")
            chunks.append(chunk)
        return b"".join(chunks)


def loggable(text: str) -> str:
    """`text` for a log line: control and non-ASCII characters are escaped, so no request can forge a line."""
    return text.encode("unicode_escape").decode("ascii")
