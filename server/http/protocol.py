"""Incremental HTTP/1.1 request parser: bytes in, events out; no sockets, no clock.

Strategy. The parser is a row of steps; each step consumes whole elements (a line, a piece of the body) from
one buffer, or consumes nothing and asks for more. Every decision depends on the bytes alone, never on how
they were cut into reads: where an error could be seen early (a bare line feed, a line over its limit), the
first offending byte in stream order decides. Work is linear in the bytes received, also for one byte at a
time and for many small chunks.

Where RFC 9112 leaves a choice between lenient and strict, this parser refuses: requests that two servers
could frame differently (Content-Length beside Transfer-Encoding, repeated Content-Length, bare LF, folded
fields, ...) are answered 400 and end the connection. Trailers are checked, counted against the header
limits and dropped.

Clients send the same head again and again. A parser may be given a `HeadCache`: a complete head that stands in the
buffer as a whole and was parsed before gives its `RequestHead` without being parsed again.

The events of a request are one `RequestHead`, any number of `Data`, one `EndOfMessage`; then `start_next`
is to be called before the next request in the buffer is read.
"""

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from server.http.limits import Limits
from server.http.response import Header, HTTPError

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_NAME = re.compile(_TOKEN)
_METHOD_BYTES = 32
_VERSION = re.compile(rb"HTTP/([0-9]\.[0-9])")
#: visible ASCII but for the fragment mark and the backslash, which no client may send raw
_TARGET = re.compile(rb"[\x21\x22\x24-\x5b\x5d-\x7e]+")
_ABSOLUTE = re.compile(r"https?://([^/?]*)(.*)", re.IGNORECASE)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FIELD_BAD = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOST = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+(?:%[0-9A-Za-z._~\-]+)?\]|(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+)"
    r"(?::([0-9]{0,5}))?"
)
#: no leading zeros: some parsers read them as octal
_LENGTH = re.compile(r"0|[1-9][0-9]{0,18}")
_CODING = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CHUNK_EXTENSION_BYTES = 256
_CHUNK_DIGITS = 16
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_CHUNK_SIZE = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:;[ \t]*" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*)"
)
_INT64_MAX = (1 << 63) - 1
#: heads that are worth remembering: many requests of few clients, not one request of everybody
_CACHED_HEADS = 128
_CACHED_HEAD_BYTES = 2048
_CR = 0x0D
_LF = 0x0A


class ProtocolError(HTTPError):
    """The bytes received are no request that this server takes; the connection cannot be used any further."""


class RequestHead(NamedTuple):
    """Request line and header section. Names are lower case; values have no surrounding blanks."""

    method: str
    #: percent-decoded once; "*" for OPTIONS *
    path: str
    query: str
    #: the authority of an absolute-form target has replaced the value of Host
    headers: tuple[Header, ...]
    version: str
    keep_alive: bool
    #: None for a chunked body; 0 without a body
    content_length: int | None
    expect_continue: bool


class Data(NamedTuple):
    """A piece of the body, never empty."""

    data: bytes


class EndOfMessage(NamedTuple):
    """The request is complete."""


Event = RequestHead | Data | EndOfMessage


class HeadCache:
    """Heads by their bytes, for all connections of a server; only those of requests that have no chunked body."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        self._heads: dict[bytes, RequestHead] = {}

    def get(self, raw: bytes) -> RequestHead | None:
        """The head that these bytes are, if they were seen."""
        return self._heads.get(raw)

    def add(self, raw: bytes, head: RequestHead) -> None:
        """Remember a head; when there are too many, all are forgotten."""
        if len(self._heads) >= _CACHED_HEADS:
            self._heads.clear()
        self._heads[raw] = head


class RequestParser:
    """Parses the requests of one connection, one after the other."""

    def __init__(self, limits: Limits, cache: HeadCache | None = None) -> None:
        self._limits = limits
        self._cache = cache
        #: the bytes of the head in work, if it came as a whole and may be remembered
        self._raw_head = b""
        self._buffer = bytearray()
        self._pos = 0
        #: no line end starts before this index
        self._scan = 0
        self._failure: ProtocolError | None = None
        self.start_next()

    def start_next(self) -> None:
        """Begin the next request with the bytes already received."""
        #: the method as soon as it is known, "" before
        self.method = ""
        self._step: Callable[[], Event | None] = self._read_request_line
        self._blank_lines = 0
        self._target = ("", "", "")
        self._version = ""
        self._fields: list[Header] = []
        self._field_count = 0
        self._header_left = self._limits.header_bytes
        self._body_left = 0
        self._chunked = False
        self._chunk_left = 0
        self._chunk_ends = False

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the wire."""
        self._buffer += data

    @property
    def buffered(self) -> int:
        """Bytes received and not yet given out as events."""
        return len(self._buffer)

    @property
    def idle(self) -> bool:
        """Whether nothing of the next request has been received."""
        return self._step == self._read_request_line and not self._buffer

    @property
    def body_left(self) -> int | None:
        """Body bytes not yet given out; None when the body is chunked and not at its end."""
        return None if self._chunked else self._body_left

    def next_event(self) -> Event | None:
        """The next event, or None when more bytes (or, after EndOfMessage, `start_next`) are needed.

        Raises ProtocolError for a request that is refused, and then again on every call.
        """
        if self._failure is not None:
            raise self._failure
        if not self._buffer and self._step == self._read_request_line:
            return None
        try:
            if self._cache is not None and self._pos == self._scan == 0 and self._step == self._read_request_line:
                return self._recall(self._cache)
            return self._step()
        except ProtocolError as error:
            self._failure = error
            raise
        finally:
            if self._pos:
                del self._buffer[: self._pos]
                self._pos = self._scan = 0

    # --- head

    def _recall(self, cache: HeadCache) -> Event | None:
        """The head at the start of the buffer, from the cache or by parsing."""
        end = self._buffer.find(b"\r\n\r\n", 0, _CACHED_HEAD_BYTES) + 4
        self._raw_head = bytes(self._buffer[:end]) if end > 3 else b""
        head = cache.get(self._raw_head)
        if head is None or head.content_length is None:
            return self._read_request_line()
        self._pos = end
        self.method = head.method
        self._body_left = head.content_length
        self._step = self._read_sized
        return head

    def _read_request_line(self) -> Event | None:
        buffer = self._buffer
        while True:
            if self._pos == len(buffer):
                return None
            self._refuse_early()
            line = self._take_line(self._limits.request_line_bytes, 414, "request line too long")
            if line is None:
                return None
            if line:
                break
            self._blank_lines += 1
            if self._blank_lines > 1:
                raise ProtocolError(400, "request line missing")
        self.method, target, self._version = _parse_request_line(line)
        self._target = _parse_target(self.method, target)
        self._step = self._read_fields
        return self._read_fields()

    def _refuse_early(self) -> None:
        """Refuse what is no HTTP (TLS, binary, an endless method) without waiting for a line end."""
        start = bytes(self._buffer[self._pos : self._pos + _METHOD_BYTES + 1])
        if start[0] == _CR:
            return
        method, space, _ = start.partition(b" ")
        if not space and b"\r" in method:
            method = method[: method.index(b"\r")]
        if not _NAME.fullmatch(method) or (not space and len(method) > _METHOD_BYTES):
            raise ProtocolError(400, "malformed request line")

    def _read_fields(self) -> Event | None:
        while (line := self._take_field_line()) is not None:
            if not line:
                return self._end_head()
            self._fields.append(_parse_field(line))
        return None

    def _take_field_line(self) -> bytes | None:
        line = self._take_line(max(self._header_left - 2, 0), 431, "header section too large")
        if line:
            self._header_left -= len(line) + 2
            self._field_count += 1
            if self._field_count > self._limits.header_fields:
                raise ProtocolError(431, "too many header fields")
        return line

    def _end_head(self) -> RequestHead:
        fields: dict[str, list[str]] = {}
        for name, value in self._fields:
            fields.setdefault(name, []).append(value)
        path, query, authority = self._target
        _check_host(fields.get("host", []), self._version)
        if authority:
            self._fields = [(name, value) for name, value in self._fields if name != "host"]
            self._fields.insert(0, ("host", authority))
        length = _body_length(fields, self._version)
        if length is not None and length > self._limits.body_bytes:
            raise ProtocolError(413, "request body too large")
        self._chunked = length is None
        self._body_left = self._limits.body_bytes if length is None else length
        self._step = self._read_chunked if length is None else self._read_sized
        options = ",".join(fields.get("connection", ())).replace("\t", " ").lower().split(",")
        options = [option.strip(" ") for option in options]
        head = RequestHead(
            self.method,
            path,
            query,
            tuple(self._fields),
            self._version,
            "close" not in options and (self._version == "1.1" or "keep-alive" in options),
            length,
            _expects_continue(fields, self._version),
        )
        if self._cache is not None and len(self._raw_head) == self._pos and not self._chunked:
            self._cache.add(self._raw_head, head)
        return head

    # --- body

    def _read_sized(self) -> Event | None:
        if not self._body_left:
            return self._end_message()
        take = min(self._body_left, len(self._buffer) - self._pos)
        if not take:
            return None
        self._body_left -= take
        return Data(bytes(self._take(take)))

    def _read_chunked(self) -> Event | None:
        """All chunk data in the buffer as one event; an error behind it is raised by the next call."""
        pieces: list[bytearray] = []
        try:
            while self._step == self._read_chunked and self._read_chunk_part(pieces):
                pass
        except ProtocolError as error:
            if not pieces:
                raise
            self._failure = error
        if pieces:
            return Data(b"".join(pieces))
        return self._step() if self._step != self._read_chunked else None

    def _read_chunk_part(self, pieces: list[bytearray]) -> bool:
        """Consume a chunk's size line, some of its data or its end; False when more bytes are needed."""
        available = len(self._buffer) - self._pos
        if self._chunk_left:
            take = min(self._chunk_left, available)
            if take:
                pieces.append(self._take(take))
                self._chunk_left -= take
                self._chunk_ends = not self._chunk_left
            return take > 0
        if self._chunk_ends:
            end = self._buffer[self._pos : self._pos + 2]
            if not b"\r\n".startswith(end):
                raise ProtocolError(400, "chunk does not end with CRLF")
            if len(end) == 2:
                self._take(2)
                self._chunk_ends = False
            return len(end) == 2
        line = self._take_line(_CHUNK_DIGITS + _CHUNK_EXTENSION_BYTES, 400, "chunk extension too long")
        if line is None:
            return False
        self._chunk_left = _parse_chunk_size(line)
        if self._chunk_left > self._body_left:
            raise ProtocolError(413, "request body too large")
        self._body_left -= self._chunk_left
        if not self._chunk_left:
            self._step = self._read_trailers
        return True

    def _read_trailers(self) -> Event | None:
        while (line := self._take_field_line()) is not None:
            if not line:
                return self._end_message()
            _parse_field(line)
        return None

    def _end_message(self) -> EndOfMessage:
        self._step = self._wait
        self._chunked = False
        self._body_left = 0
        return EndOfMessage()

    def _wait(self) -> None:
        return None

    # --- buffer

    def _take(self, count: int) -> bytearray:
        start = self._pos
        self._pos = self._scan = start + count
        return self._buffer[start : self._pos]

    def _take_line(self, limit: int, status: int, text: str) -> bytes | None:
        """A line of at most `limit` bytes without its CRLF; None when its end has not been received."""
        buffer = self._buffer
        cr = buffer.find(b"\r", self._scan)
        lf = buffer.find(b"\n", self._scan, cr if cr >= 0 else len(buffer))
        end = lf if lf >= 0 else cr if cr >= 0 else len(buffer)
        if end - self._pos > limit:
            raise ProtocolError(status, text)
        if lf >= 0:
            raise ProtocolError(400, "bare line feed")
        self._scan = end
        if cr < 0 or cr + 1 == len(buffer):
            return None
        if buffer[cr + 1] != _LF:
            raise ProtocolError(400, "bare carriage return")
        line = bytes(buffer[self._pos : cr])
        self._pos = self._scan = cr + 2
        return line


def _parse_request_line(line: bytes) -> tuple[str, bytes, str]:
    parts = line.split(b" ")
    if len(parts) != 3:
        raise ProtocolError(400, "malformed request line")
    method, target, version = parts
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ProtocolError(400, "malformed HTTP version")
    if match[1] not in (b"1.0", b"1.1"):
        raise ProtocolError(505, "HTTP version not supported")
    if not _TARGET.fullmatch(target):
        raise ProtocolError(400, "malformed request target")
    return method.decode("ascii"), target, match[1].decode("ascii")


def _parse_target(method: str, raw: bytes) -> tuple[str, str, str]:
    """Path, query, and the authority of an absolute-form target ("" in the other forms)."""
    target = raw.decode("ascii")
    authority = ""
    if method == "CONNECT":
        if not _HOST.fullmatch(target) or ":" not in target:
            raise ProtocolError(400, "malformed request target")
        raise ProtocolError(405, "CONNECT is not supported", [("Allow", "GET, HEAD, POST, DELETE, OPTIONS")])
    if target == "*" and method == "OPTIONS":
        return "*", "", ""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        authority, target = absolute[1], absolute[2]
        if not _is_host(authority):
            raise ProtocolError(400, "malformed authority in request target")
        if not target and method == "OPTIONS":
            return "*", "", authority
        if not target.startswith("/"):
            target = "/" + target
    if not target.startswith("/"):
        raise ProtocolError(400, "malformed request target")
    path, _, query = target.partition("?")
    return _decode_path(path), query, authority


def _decode_path(path: str) -> str:
    if "%" not in path:
        return path
    if _BAD_PERCENT.search(path):
        raise ProtocolError(400, "malformed percent-encoding in request target")
    try:
        decoded = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError(400, "request target is not valid UTF-8") from None
    if _CONTROL.search(decoded):
        raise ProtocolError(400, "control character in request target")
    return decoded


def _parse_field(line: bytes) -> Header:
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.fullmatch(name) or _FIELD_BAD.search(value):
        raise ProtocolError(400, "malformed header field")
    return name.lower().decode("ascii"), value.strip(b" \t").decode("latin-1")


def _is_host(value: str) -> bool:
    match = _HOST.fullmatch(value)
    return match is not None and int(match[1] or 0) < 65536


def _check_host(values: list[str], version: str) -> None:
    if len(values) > 1 or (not values and version == "1.1"):
        raise ProtocolError(400, "exactly one Host header field is required")
    if values and not _is_host(values[0]):
        raise ProtocolError(400, "malformed Host header field")


def _body_length(fields: dict[str, list[str]], version: str) -> int | None:
    """The length of the body, None for chunked."""
    codings = fields.get("transfer-encoding")
    lengths = fields.get("content-length")
    if codings is not None:
        if lengths is not None:
            raise ProtocolError(400, "both Content-Length and Transfer-Encoding")
        if version == "1.0":
            raise ProtocolError(400, "Transfer-Encoding in an HTTP/1.0 request")
        if len(codings) == 1 and codings[0].lower() == "chunked":
            return None
        if len(codings) == 1 and _CODING.fullmatch(codings[0]):
            raise ProtocolError(501, "transfer coding not supported")
        raise ProtocolError(400, "malformed Transfer-Encoding header field")
    if lengths is None:
        return 0
    if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]) or int(lengths[0]) > _INT64_MAX:
        raise ProtocolError(400, "malformed Content-Length header field")
    return int(lengths[0])


def _expects_continue(fields: dict[str, list[str]], version: str) -> bool:
    values = fields.get("expect")
    if values is None or version == "1.0":
        return False
    if len(values) != 1 or values[0].lower() != "100-continue":
        raise ProtocolError(417, "expectation not supported")
    return True


def _parse_chunk_size(line: bytes) -> int:
    match = _CHUNK_SIZE.fullmatch(line)
    if match is None or len(match[2]) > _CHUNK_EXTENSION_BYTES:
        raise ProtocolError(400, "malformed chunk size")
    size = int(match[1], 16)
    if size > _INT64_MAX:
        raise ProtocolError(400, "malformed chunk size")
    return size
