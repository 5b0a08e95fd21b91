"""One client connection: an asyncio.BufferedProtocol around the sans-IO parser.

Life of a connection. Exactly one request is in work at a time; it is an `_Exchange` here. An application that
knows its answer at once returns it, and it is sent there and then; else the exchange runs in a task of its
own. While there is no exchange, received bytes go through the parser until a head is complete; what follows a
head stays in the parser's buffer until the handler asks for the body, or until the answer is complete and the
next request begins. So answers keep the order of requests, and unread input is bounded: beyond half of
`read_ahead_bytes` the socket is not read.

Who ends it. Every way out goes through one of three doors:
`_linger`  after a last answer: shut down writing, drop input for a second, so that no reset overtakes it;
`_close`   nothing more will be read: flush what waits, then close;
`abort`    nothing more will be sent.
All of them meet in `connection_lost`, which cancels the task of the exchange; the task closes the handler's
iterator.

Half-close. A client that has shut down its sending side still gets its answer. The same FIN also comes from
a client that is gone, so while an answer is pending and unstarted, two interim responses (100) are sent: a
client that still reads must skip them (RFC 9110 15.2), one that is gone answers the first with a reset, and
the second write fails.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

from server.http.deadline import Deadline
from server.http.limits import Limits
from server.http.protocol import Data, EndOfMessage, HeadCache, ProtocolError, RequestHead, RequestParser
from server.http.request import Headers, Request, loggable
from server.http.response import Header, HTTPError, Response, StreamResponse, encode_head, error_response

_logger = logging.getLogger(__name__)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: one write is at most this large, so that the transport never holds much more than its high-water mark
_SLICE_BYTES = 64 * 1024
#: interim responses after a half-close; the second write fails where the reset that the first one provoked has come
_PROBES = 3
_BODILESS = frozenset({204, 304})
#: pipelined requests answered at once before other connections get their turn
_ANSWERS_AT_ONCE = 16

Answer = Response | StreamResponse
Application = Callable[[Request], Answer | Awaitable[Answer]]


class Owner(Protocol):
    """What a connection needs of its server."""

    app: Application
    limits: Limits
    heads: HeadCache
    #: where any connection's next bytes go; they are taken out before anything else is read. A view, because asyncio's
    #: TLS slices what it fills, and a slice of a bytearray is a copy
    incoming: memoryview
    #: no further request is to be served
    stopping: bool

    def date_line(self) -> bytes:
        """The line of the Date field."""

    def admit(self, connection: "Connection") -> bool:
        """Register a new connection; False when there are too many."""

    def forget(self, connection: "Connection") -> None:
        """The connection is closed and its task has ended."""


class _Exchange:
    """One request and its answer."""

    __slots__ = ("body_ended", "chunked", "continue_due", "head", "keep", "probes", "receiver", "started", "task")

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.task: asyncio.Task[None] | None = None
        #: a handler that waits for the body
        self.receiver: asyncio.Future[bool] | None = None
        #: the client waits for an interim response before it sends the body
        self.continue_due = head.expect_continue
        self.body_ended = head.content_length == 0
        #: whether the head of the answer has been written
        self.started = False
        #: whether another request may follow
        self.keep = head.keep_alive
        self.probes = 0
        #: whether a stream is sent in chunks; to HTTP/1.0 clients its end is the end of the connection
        self.chunked = head.version == "1.1"


class Connection(asyncio.BufferedProtocol):
    """Serves the requests of one client, in order."""

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._limits = owner.limits
        self._loop = loop
        self._parser = RequestParser(owner.limits, owner.heads)
        self._transport: asyncio.Transport
        self._exchange: _Exchange | None = None
        self._fields: tuple[Header, ...] | None = None
        self._headers = Headers()
        self._remote = ""
        self._local = ""
        #: bounds the one thing that the connection waits for: a head, the next request, a body, the end
        self._deadline = Deadline(loop)
        self._waits_for = ""
        self._write_timer: asyncio.TimerHandle | None = None
        self._write_left = 0
        self._writable: asyncio.Future[bool] | None = None
        self._reading_paused = False
        self._writing_paused = False
        #: the client has shut down its sending side
        self._eof = False
        #: the rest of an unread request body is being dropped
        self._discarding = False
        #: the last answer is written; input is dropped
        self._ending = False
        self._lost = False

    # --- called by the server

    def shutdown(self) -> None:
        """Serve nothing more: an idle connection is closed now, a busy one after its answer."""
        if self._exchange is None and not self._ending:
            self._close()

    def abort(self) -> None:
        """End the connection at once, whatever is in work."""
        self._transport.abort()

    # --- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to wait for a request, or refuse the connection when there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes)
        self._remote = _address(transport.get_extra_info("peername"))
        self._local = _address(transport.get_extra_info("sockname"))
        if self._owner.admit(self):
            self._deadline.set(self._limits.header_seconds, self._close)
        else:
            self._fail(HTTPError(503, "too many connections"))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for the next read: half the read-ahead limit; reading goes on until more than half waits."""
        return self._owner.incoming

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came from the client."""
        if self._ending:
            return
        self._parser.feed(self._owner.incoming[:nbytes])
        exchange = self._exchange
        if exchange is None:
            self._advance()
        else:
            if exchange.receiver is not None:
                _wake(exchange.receiver)
            if self._parser.buffered > self._limits.read_ahead_bytes // 2 and not self._reading_paused:
                self._reading_paused = True
                self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client sends nothing more; it may still read."""
        if not self._transport.can_write_eof():
            return False  # TLS has no half-closed connections: the client is gone
        self._eof = True
        exchange = self._exchange
        if exchange is None:
            self._end_input()
        else:
            if exchange.receiver is not None:
                _wake(exchange.receiver)
            self._probe_later(exchange)
        return True

    def pause_writing(self) -> None:
        """The client does not keep up: the producer waits, but not for ever."""
        self._writing_paused = True
        self._watch_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writing_paused = False
        if self._writable is not None:
            _wake(self._writable)
        if self._write_timer is not None and not self._transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: stop what works for it."""
        self._lost = True
        self._deadline.close()
        if self._write_timer is not None:
            self._write_timer.cancel()
        if self._exchange is None:
            self._owner.forget(self)
        elif self._exchange.task is not None:
            self._exchange.task.cancel()

    # --- requests

    def _advance(self) -> None:
        """Serve the requests whose heads are complete, then wait for more bytes."""
        for _ in range(_ANSWERS_AT_ONCE):
            if not self._serve_next():
                return
        self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        if not self._lost and self._exchange is None:
            self._advance()

    def _serve_next(self) -> bool:
        """Start the next request; True if it was answered at once and another one may follow."""
        try:
            event = self._parser.next_event()
            while self._discarding and event is not None:
                if isinstance(event, EndOfMessage):
                    self._discarding = False
                    self._parser.start_next()
                event = self._parser.next_event()
        except ProtocolError as error:
            self._fail(error)
            return False
        if isinstance(event, RequestHead):
            return self._start(event)
        if self._eof:
            self._end_input()
        else:
            self._await_bytes()
        return False

    def _await_bytes(self) -> None:
        self._resume_reading()
        if self._discarding:
            self._deadline.set(self._limits.body_seconds, self._close)
        elif self._parser.idle:
            if self._waits_for != "request":
                self._waits_for = "request"
                self._deadline.set(self._limits.idle_seconds, self._close)
        elif self._waits_for != "head":
            self._waits_for = "head"
            error = HTTPError(408, "request header timeout")
            self._deadline.set(self._limits.header_seconds, lambda: self._fail(error))

    def _end_input(self) -> None:
        """The client has sent its last byte, and no request is in work."""
        if self._ending or self._discarding or self._parser.idle:
            self._close()
        else:
            self._fail(HTTPError(400, "request ended early"))

    def _start(self, head: RequestHead) -> bool:
        """Hand a request to the application; True if it was answered at once and another one may follow."""
        self._deadline.clear()
        self._waits_for = ""
        exchange = self._exchange = _Exchange(head)
        if head.headers is not self._fields:  # clients send the same head again and again
            self._fields, self._headers = head.headers, Headers(head.headers)
        request = Request(
            head.method,
            head.path,
            head.query,
            self._headers,
            version=head.version,
            remote=self._remote,
            local=self._local,
            content_length=head.content_length,
            receive=lambda: self._receive(exchange),
        )
        answer = self._ask(request)
        if isinstance(answer, Response) and len(answer.body) <= _SLICE_BYTES and not self._writing_paused:
            self._exchange = None
            return self._send_at_once(exchange, answer)
        exchange.task = self._loop.create_task(self._answer(exchange, request, answer))
        exchange.task.add_done_callback(self._finish)
        if self._eof:
            self._probe_later(exchange)
        return False

    def _ask(self, request: Request) -> Answer | Awaitable[Answer]:
        """The application's answer, or what it will come from."""
        try:
            return self._owner.app(request)
        except HTTPError as error:
            return error_response(error)
        except Exception:
            _logger.exception("%s %s failed", request.method, loggable(request.path))
            return error_response(HTTPError(500, "internal server error"))

    def _send_at_once(self, exchange: _Exchange, answer: Response) -> bool:
        """Send a small answer; True when another request may follow."""
        try:
            self._transport.write(self._whole(exchange, answer))
        except Exception:
            _logger.exception("an answer could not be sent")
            self.abort()
            return False
        return self._go_on(exchange)

    def _go_on(self, exchange: _Exchange) -> bool:
        """The answer is complete: True when another request may follow, else the connection ends."""
        if not exchange.keep or self._owner.stopping:
            self._linger()
            return False
        self._discarding = not exchange.body_ended
        if exchange.body_ended:
            self._parser.start_next()
        return True

    def _finish(self, task: asyncio.Task[None]) -> None:
        """The task of the exchange has ended: go on with the next request, or end the connection."""
        exchange = cast(_Exchange, self._exchange)
        self._exchange = None
        if self._lost:
            self._owner.forget(self)
        elif task.cancelled():
            self.abort()
        elif (error := task.exception()) is not None:
            _logger.error("an answer could not be sent", exc_info=error)
            self.abort()
        elif self._go_on(exchange):
            self._advance()

    async def _receive(self, exchange: _Exchange) -> bytes:
        """The next part of the body, b"" at its end."""
        while not exchange.body_ended:
            if exchange.started or self._lost:
                raise RuntimeError("the request body can be read only until the answer starts")
            event = self._parser.next_event()
            if isinstance(event, Data):
                exchange.continue_due = False
                return event.data
            if isinstance(event, EndOfMessage):
                exchange.body_ended = True
            elif self._eof:
                exchange.keep = False
                raise HTTPError(400, "request body ended early")
            else:
                await self._await_body(exchange)
        return b""

    async def _await_body(self, exchange: _Exchange) -> None:
        if exchange.continue_due:
            exchange.continue_due = False
            self._transport.write(_CONTINUE)
        self._resume_reading()
        receiver = exchange.receiver = self._loop.create_future()
        self._deadline.set(self._limits.body_seconds, lambda: _wake(receiver, False))
        try:
            if not await receiver:
                exchange.keep = False
                raise HTTPError(408, "request body timeout")
        finally:
            exchange.receiver = None
            self._deadline.clear()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    # --- answers

    async def _answer(self, exchange: _Exchange, request: Request, answer: Answer | Awaitable[Answer]) -> None:
        """Wait for the answer and send it: the task of one exchange."""
        try:
            response = answer if isinstance(answer, Response | StreamResponse) else await answer
            if isinstance(response, StreamResponse):
                await self._send_stream(exchange, response)
            else:
                await self._send(exchange, response)
            return
        except HTTPError as error:
            failure = error
        except Exception:
            _logger.exception("%s %s failed", request.method, loggable(request.path))
            failure = HTTPError(500, "internal server error")
        if exchange.started:
            exchange.keep = False  # without a last chunk the client can tell that the stream broke off
        else:
            await self._send(exchange, error_response(failure))

    async def _send(self, exchange: _Exchange, response: Response) -> None:
        if len(response.body) <= _SLICE_BYTES:
            await self._write(self._whole(exchange, response))
            return
        self._transport.write(self._head_of(exchange, response, _length(response)))
        if exchange.head.method != "HEAD" and response.status not in _BODILESS:
            await self._write(response.body)

    def _whole(self, exchange: _Exchange, response: Response) -> bytes:
        """The bytes of an answer: its head, and its body unless it has none."""
        head = self._head_of(exchange, response, _length(response))
        if exchange.head.method == "HEAD" or response.status in _BODILESS:
            return head
        return head + response.body

    async def _send_stream(self, exchange: _Exchange, response: StreamResponse) -> None:
        framing = b"Transfer-Encoding: chunked\r\n" if exchange.chunked else b""
        has_body = exchange.head.method != "HEAD"
        try:
            if has_body:
                async for chunk in response.chunks:
                    if not exchange.started:
                        self._transport.write(self._head_of(exchange, response, framing))
                    if chunk:
                        await self._write_chunk(chunk, exchange.chunked)
            if not exchange.started:
                self._transport.write(self._head_of(exchange, response, framing))
            if has_body and exchange.chunked:
                self._transport.write(b"0\r\n\r\n")
        finally:
            close = getattr(response.chunks, "aclose", None)
            if close is not None:
                await close()

    def _head_of(self, exchange: _Exchange, response: Answer, framing: bytes) -> bytes:
        """The head of an answer, which is to be sent now; decides whether the connection goes on."""
        sized = exchange.chunked or isinstance(response, Response)
        keep = exchange.keep and sized and not self._owner.stopping and self._settle_body(exchange)
        connection = b""
        if not keep:
            connection = b"Connection: close\r\n"
        elif not exchange.chunked:
            connection = b"Connection: keep-alive\r\n"
        own = b"%b%b%b" % (self._owner.date_line(), framing, connection)
        head = encode_head(response.status, response.headers, own)
        exchange.keep = keep
        exchange.started = True
        return head

    def _settle_body(self, exchange: _Exchange) -> bool:
        """Drop what is left of the request body; True when the connection can serve another request."""
        try:
            while not exchange.body_ended and (event := self._parser.next_event()) is not None:
                exchange.body_ended = isinstance(event, EndOfMessage)
        except ProtocolError:
            return False
        left = self._parser.body_left
        return exchange.body_ended or (
            not exchange.continue_due and left is not None and left <= self._limits.discard_bytes
        )

    async def _write_chunk(self, chunk: bytes, chunked: bool) -> None:
        if not chunked:
            await self._write(chunk)
        elif len(chunk) <= _SLICE_BYTES:
            await self._write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        else:
            self._transport.write(b"%x\r\n" % len(chunk))
            await self._write(chunk)
            self._transport.write(b"\r\n")

    async def _write(self, data: bytes) -> None:
        """Send `data` in slices; wait while the client does not keep up."""
        view = memoryview(data)
        for start in range(0, len(view), _SLICE_BYTES):
            if self._lost:
                raise asyncio.CancelledError  # a handler swallowed the first one
            self._transport.write(view[start : start + _SLICE_BYTES])
            while self._writing_paused:
                self._writable = self._loop.create_future()
                await self._writable

    # --- the end

    def _fail(self, error: HTTPError) -> None:
        """Answer a request that never reached a handler; its connection ends."""
        response = error_response(error)
        own = b"%b%bConnection: close\r\n" % (self._owner.date_line(), _length(response))
        head = encode_head(response.status, response.headers, own)
        self._transport.write(head if self._parser.method == "HEAD" else head + response.body)
        self._linger()

    def _linger(self) -> None:
        """The last answer is written: shut down writing, and drop input for a while."""
        if self._eof or self._transport.is_closing() or not self._transport.can_write_eof():
            self._close()
            return
        self._ending = True
        self._transport.write_eof()
        self._resume_reading()
        self._deadline.set(self._limits.linger_seconds, self._close)

    def _close(self) -> None:
        """Flush and close; a client that does not take the rest is cut."""
        self._ending = True
        self._deadline.clear()
        self._transport.close()
        self._watch_writing()

    def _watch_writing(self) -> None:
        """Cut the connection when, from now on, the client takes nothing for `write_seconds`."""
        if self._write_timer is not None:
            self._write_timer.cancel()
        self._write_left = self._transport.get_write_buffer_size()
        self._write_timer = self._loop.call_later(self._limits.write_seconds, self._check_writing)

    def _check_writing(self) -> None:
        if self._transport.get_write_buffer_size() < self._write_left:
            self._watch_writing()
        else:
            self.abort()

    def _probe_later(self, exchange: _Exchange) -> None:
        if exchange.probes < _PROBES and exchange.head.version == "1.1":
            self._loop.call_later(self._limits.probe_seconds * 2**exchange.probes, self._probe, exchange)

    def _probe(self, exchange: _Exchange) -> None:
        if exchange is self._exchange and not exchange.started and not self._lost:
            exchange.probes += 1
            self._transport.write(_CONTINUE)
            self._probe_later(exchange)


def _length(response: Response) -> bytes:
    """The line of the field that frames a whole answer."""
    return b"" if response.status in _BODILESS else b"Content-Length: %d\r\n" % len(response.body)


def _address(name: object) -> str:
    """`host:port` of a socket name, an IPv6 host in brackets."""
    if not isinstance(name, tuple):
        return ""
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _wake(future: asyncio.Future[bool], result: bool = True) -> None:
    if not future.done():
        future.set_result(result)
