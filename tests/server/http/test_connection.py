"""Connections on real loopback sockets, over asyncio and uvloop; long times pass on a turned clock."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import socket
import struct
import subprocess
import sys
import textwrap

import pytest
import uvloop

from server.http import HTTPError, Limits, Response, Server, StreamResponse, text_response
from server.http.connection import Connection

GET = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


class WarpLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock moves only when a test turns it."""

    now = 0.0

    def time(self):
        return self.now


LOOPS = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request):
    """Runs a coroutine on each kind of loop."""

    def run_on(coroutine):
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(coroutine)

    return run_on


def run_warped(coroutine):
    with asyncio.Runner(loop_factory=WarpLoop) as runner:
        return runner.run(coroutine)


def warp(seconds):
    asyncio.get_running_loop().now += seconds


class Reply:
    """One response as it was read from the wire."""

    def __init__(self, head):
        status_line, *lines = head.decode("latin-1").rstrip().split("\r\n")
        self.version, status, _ = status_line.split(" ", 2)
        self.status = int(status)
        self.fields = [tuple(line.split(": ", 1)) for line in lines]
        self.headers = {name.lower(): value for name, value in self.fields}
        self.body = b""
        self.chunks = []

    @property
    def error(self):
        assert self.headers["content-type"] == "application/json; charset=utf-8"
        return json.loads(self.body)["error"]


class Client:
    """A raw client: sends bytes as they are, reads replies strictly."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    def send(self, data):
        self.writer.write(data)

    async def reply(self, method="GET"):
        reply = Reply(await self.reader.readuntil(b"\r\n\r\n"))
        if method == "HEAD" or reply.status in (100, 204, 304):
            return reply
        if "content-length" in reply.headers:
            reply.body = await self.reader.readexactly(int(reply.headers["content-length"]))
        elif reply.headers.get("transfer-encoding") == "chunked":
            while size := int((await self.reader.readuntil(b"\r\n")).removesuffix(b"\r\n"), 16):
                reply.chunks.append(await self.reader.readexactly(size))
                assert await self.reader.readexactly(2) == b"\r\n"
            assert await self.reader.readexactly(2) == b"\r\n"
            reply.body = b"".join(reply.chunks)
        else:
            reply.body = await self.reader.read()
        return reply

    async def ask(self, data, method="GET"):
        self.send(data)
        return await self.reply(method)

    async def at_end(self):
        """Whether the server has closed in an orderly way with nothing more to read."""
        return await self.reader.read() == b""


@contextlib.asynccontextmanager
async def serving(app, **limits):
    """A server and a function that connects clients to it."""
    server = Server(app, Limits(**limits))
    await server.start("127.0.0.1", 0)
    writers = []

    async def connect(**options):
        sock = socket.socket()
        for option, value in options.items():
            sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option), value)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, server.address)
        except OSError:
            sock.close()
            raise
        reader, writer = await asyncio.open_connection(sock=sock)
        writers.append(writer)
        return Client(reader, writer)

    try:
        yield server, connect
    finally:
        for writer in writers:
            writer.transport.abort()
        await server.stop(0)


async def echo(request):
    body = await request.read(1 << 20)
    return text_response(f"{request.method} {request.path} {body.decode()}")


def post(body, path="/p", extra=b""):
    return b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%b\r\n%b" % (
        path.encode(),
        len(body),
        extra,
        body,
    )


class Stream:
    """A handler that streams; tells when it ended and how."""

    def __init__(self, items=None, after=None):
        self.items = items
        self.after = after
        self.produced = 0
        self.started = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, request):
        return StreamResponse(self.chunks(), headers=(("Content-Type", "application/x-ndjson"),))

    async def chunks(self):
        try:
            self.started.set()
            for item in self.items:
                self.produced += 1
                yield item
            if self.after is not None:
                await self.after()
        finally:
            self.ended.set()


async def never():
    await asyncio.Event().wait()


def reset_on_close(client):
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def until(predicate):
    """Turn the loop until `predicate()` holds."""
    while not predicate():  # noqa: ASYNC110 - the predicate looks inside; there is no event to wait for
        await asyncio.sleep(0)


async def settled(value):
    """Wait until `value()` has not changed for many turns of the loop."""
    last, unchanged = value(), 0
    while unchanged < 2000:
        await asyncio.sleep(0)
        unchanged = unchanged + 1 if value() == last else 0
        last = value()
    return last


# --- requests and answers


def test_answer_has_length_date_and_the_handlers_fields(run):
    async def main():
        async with serving(echo) as (_, connect):
            reply = await (await connect()).ask(GET)
            assert (reply.version, reply.status, reply.body) == ("HTTP/1.1", 200, b"GET /hello ")
            assert [name for name, _ in reply.fields] == ["Content-Type", "Date", "Content-Length"]
            assert reply.headers["date"].endswith(" GMT")

    run(main())


def test_request_tells_addresses_version_query_and_fields(run):
    async def app(request):
        values = [request.remote, request.local, request.version, request.query, request.headers.get("X-A")]
        return text_response(" ".join(values))

    async def main():
        async with serving(app) as (server, connect):
            client = await connect()
            reply = await client.ask(b"GET /a?b=c HTTP/1.0\r\nx-a: d\r\n\r\n")
            port = client.writer.get_extra_info("sockname")[1]
            assert reply.body.decode() == f"127.0.0.1:{port} 127.0.0.1:{server.address[1]} 1.0 b=c d"

    run(main())


def test_connection_serves_many_requests(run):
    async def main():
        async with serving(echo) as (_, connect):
            client = await connect()
            for i in range(20):
                assert (await client.ask(post(b"%d" % i))).body == b"POST /p %d" % i

    run(main())


def test_request_of_single_bytes_is_served(run):
    async def main():
        async with serving(echo) as (_, connect):
            client = await connect()
            raw = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            raw += b"2\r\nhi\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n"
            for i in range(len(raw)):
                client.send(raw[i : i + 1])
                await asyncio.sleep(0)
            assert (await client.reply()).body == b"POST /c hi!"

    run(main())


def test_pipelined_requests_are_answered_in_order_one_at_a_time(run):
    working = set()

    async def app(request):
        assert not working
        working.add(request.path)
        await asyncio.sleep(0.02 if request.path == "/0" else 0)
        working.remove(request.path)
        return text_response(request.path)

    async def main():
        async with serving(app) as (_, connect):
            client = await connect()
            client.send(b"".join(post(b"x" * 100, f"/{i}") for i in range(50)))
            assert [(await client.reply()).body.decode() for _ in range(50)] == [f"/{i}" for i in range(50)]

    run(main())


def test_unread_input_is_bounded(run):
    release = asyncio.Event()

    async def app(request):
        if request.path == "/0":
            await release.wait()
        return text_response(request.path)

    async def main():
        async with serving(app) as (server, connect):
            client = await connect(SO_SNDBUF=4096)
            requests = [
                b"GET /%d HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (i, b"y" * 8000) for i in range(400)
            ]
            client.send(b"".join(requests))
            left = await settled(client.writer.transport.get_write_buffer_size)
            (connection,) = server._connections
            assert left > 0, "the server reads no further"
            assert connection._parser.buffered <= server.limits.read_ahead_bytes
            release.set()
            for i in range(400):
                assert (await client.reply()).body == b"/%d" % i

    run(main())


@pytest.mark.parametrize(
    ("request_line", "fields", "connection"),
    [
        (b"HTTP/1.1", b"", None),
        (b"HTTP/1.1", b"Connection: close\r\n", "close"),
        (b"HTTP/1.0", b"", "close"),
        (b"HTTP/1.0", b"Connection: keep-alive\r\n", "keep-alive"),
    ],
)
def test_connection_is_kept_or_closed_as_asked(run, request_line, fields, connection):
    async def main():
        async with serving(echo) as (_, connect):
            client = await connect()
            raw = b"GET / " + request_line + b"\r\nHost: a\r\n" + fields + b"\r\n"
            assert (await client.ask(raw)).headers.get("connection") == connection
            if connection == "close":
                assert await client.at_end()
            else:
                assert (await client.ask(raw)).status == 200

    run(main())


def test_head_has_the_fields_of_get_and_no_body(run):
    async def app(request):
        if request.path == "/error":
            raise HTTPError(404, "not there")
        if request.path == "/stream":
            return await Stream([b"never sent"])(request)
        return text_response("hello")

    async def main():
        async with serving(app) as (_, connect):
            client = await connect()
            for path in ("/", "/error", "/stream"):
                raw = f"{{}} {path} HTTP/1.1\r\nHost: a\r\n\r\n"
                got = await client.ask(raw.format("GET").encode())
                head = await client.ask(raw.format("HEAD").encode(), "HEAD")
                assert (head.status, [n for n, _ in head.fields]) == (got.status, [n for n, _ in got.fields])
                assert head.headers.get("content-length") == got.headers.get("content-length")
            client.send(b"HEAD / HTTP/1.1\r\n\r\n")
            assert (await client.reply("HEAD")).status == 400
            assert await client.at_end()

    run(main())


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_body_has_no_length(run, status):
    async def app(request):
        return Response(status)

    async def main():
        async with serving(app) as (_, connect):
            client = await connect()
            for _ in range(2):
                reply = await client.ask(GET)
                assert (reply.status, "content-length" in reply.headers) == (status, False)

    run(main())


def test_large_answer_arrives_whole(run):
    body = bytes(range(256)) * 20_000

    async def app(request):
        return Response(body=body)

    async def main():
        async with serving(app) as (_, connect):
            client = await connect()
            for _ in range(2):
                assert (await client.ask(GET)).body == body

    run(main())


# --- streams


def test_stream_sends_each_item_as_one_chunk_and_keeps_the_connection(run):
    async def main():
        large = b"x" * 300_000
        async with serving(Stream([b"a\n", b"", b"bc\n", large])) as (_, connect):
            client = await connect()
            for _ in range(2):
                reply = await client.ask(GET)
                assert reply.chunks == [b"a\n", b"bc\n", large]
                assert reply.headers["content-type"] == "application/x-ndjson"
                assert "content-length" not in reply.headers

    run(main())


def test_stream_item_is_sent_before_the_next_is_made(run):
    async def main():
        gate = asyncio.Event()
        async with serving(Stream([b"first"], gate.wait)) as (_, connect):
            client = await connect()
            client.send(GET)
            assert (await client.reader.readuntil(b"first\r\n")).endswith(b"5\r\nfirst\r\n")
            gate.set()
            assert await client.reader.readexactly(5) == b"0\r\n\r\n"

    run(main())


def test_empty_stream_is_a_whole_answer(run):
    async def main():
        async with serving(Stream([])) as (_, connect):
            client = await connect()
            assert (await client.ask(GET)).body == b""
            assert (await client.ask(GET)).status == 200

    run(main())


def test_stream_to_http_1_0_ends_with_the_connection(run):
    async def main():
        async with serving(Stream([b"a", b"b"])) as (_, connect):
            client = await connect()
            reply = await client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (reply.body, reply.headers["connection"]) == (b"ab", "close")
            assert "transfer-encoding" not in reply.headers

    run(main())


def test_stream_that_fails_before_its_first_item_is_an_error_answer(run):
    async def fail():
        raise HTTPError(404, "model 'x' not found")

    async def main():
        async with serving(Stream([], fail)) as (_, connect):
            client = await connect()
            for _ in range(2):
                reply = await client.ask(GET)
                assert (reply.status, reply.error) == (404, "model 'x' not found")

    run(main())


def test_stream_that_fails_later_ends_without_its_last_chunk(run, caplog):
    async def fail():
        raise ValueError("boom")

    async def main():
        async with serving(Stream([b"a"], fail)) as (_, connect):
            client = await connect()
            client.send(GET + GET)
            assert (await client.reader.read()).endswith(b"\r\n\r\n1\r\na\r\n")

    run(main())
    assert "boom" in caplog.text


# --- errors


def test_error_of_a_handler_is_its_status_and_text(run):
    async def app(request):
        raise HTTPError(405, "405 <method>", [("Allow", "GET")])

    async def main():
        async with serving(app) as (_, connect):
            client = await connect()
            for _ in range(2):
                reply = await client.ask(GET)
                assert (reply.status, reply.error, reply.headers["allow"]) == (405, "405 <method>", "GET")

    run(main())


async def broken_value(request):
    raise ValueError("secret")


async def broken_field(request):
    return Response(headers=(("X", "a\r\nY: b"),))


async def broken_result(request):
    return None


@pytest.mark.parametrize("app", [broken_value, broken_field, broken_result])
def test_exception_of_a_handler_is_500_and_logged(run, caplog, app):
    async def main():
        async with serving(app) as (_, connect):
            client = await connect()
            for _ in range(2):
                reply = await client.ask(b"GET /a%E2%80%A8b HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (reply.status, reply.error) == (500, "internal server error")
                assert "y" not in reply.headers

    run(main())
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert caplog.records[0].getMessage() == "GET /a\\u2028b failed"


async def cancelled_within(request):
    raise asyncio.CancelledError


async def broken_error(request):
    raise HTTPError(400, "", [("X", "a\nb")])


@pytest.mark.parametrize(("app", "logged"), [(cancelled_within, 0), (broken_error, 1)])
def test_request_without_an_answer_ends_its_connection(run, caplog, app, logged):
    async def main():
        async with serving(app) as (server, connect):
            client = await connect()
            client.send(GET + GET)
            with contextlib.suppress(ConnectionResetError):
                assert await client.at_end()
            await server._empty.wait()

    run(main())
    assert len(caplog.records) == logged


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 66_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
def test_framing_error_is_answered_once_and_the_answer_survives_more_input(run, raw, status):
    async def main():
        async with serving(echo) as (_, connect):
            client = await connect()
            client.send(raw + GET + b"x" * 2_000_000)
            reply = await client.reply()
            assert (reply.status, reply.headers["connection"]) == (status, "close")
            assert reply.error
            assert await client.at_end()

    run(main())


def test_bad_chunk_reaches_the_reading_handler_and_ends_the_connection(run):
    seen = []

    async def app(request):
        try:
            return text_response((await request.read(100)).decode())
        except HTTPError as error:
            seen.append(error.status)
            raise

    async def main():
        async with serving(app) as (_, connect):
            client = await connect()
            raw = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nZ\r\n"
            reply = await client.ask(raw + GET)
            assert (reply.status, reply.headers["connection"]) == (400, "close")
            assert await client.at_end()

    run(main())
    assert seen == [400]


# --- request bodies


def test_body_over_the_handlers_limit_is_413_before_it_is_sent(run):
    async def app(request):
        return text_response((await request.read(10)).decode())

    async def main():
        async with serving(app) as (_, connect):
            client = await connect()
            raw = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n"
            reply = await client.ask(raw)
            assert (reply.status, reply.headers["connection"]) == (413, "close")
            assert await client.at_end()

    run(main())


def test_continue_is_sent_when_the_handler_reads(run):
    async def main():
        async with serving(echo) as (_, connect):
            client = await connect()
            raw = b"POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
            assert (await client.ask(raw)).status == 100
            assert (await client.ask(b"hi")).body == b"POST /p hi"
            assert (await client.ask(raw + b"hi")).body == b"POST /p hi", "not needed when the body is there"

    run(main())


def test_continue_is_sent_once(run):
    async def main():
        async with serving(echo) as (server, connect):
            client = await connect()
            raw = b"POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
            assert (await client.ask(raw)).status == 100
            (connection,) = server._connections
            client.send(b"2")
            await until(lambda: connection._parser.buffered == 1)
            assert (await client.ask(b"\r\nhi\r\n0\r\n\r\n")).body == b"POST /p hi"

    run(main())


def test_trailers_longer_than_the_read_ahead_are_taken(run):
    async def main():
        async with serving(echo, header_bytes=200_000) as (_, connect):
            client = await connect()
            raw = b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: "
            assert (await client.ask(raw + b"y" * 150_000 + b"\r\n\r\n")).body == b"POST /p hi"

    run(main())


def test_answer_without_reading_closes_when_the_client_waits_for_continue(run):
    async def app(request):
        return text_response("no")

    async def main():
        async with serving(app) as (_, connect):
            client = await connect()
            reply = await client.ask(
                b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
            )
            assert (reply.status, reply.headers["connection"]) == (200, "close")
            assert await client.at_end()

    run(main())


def test_small_unread_body_is_dropped_also_when_it_comes_late(run):
    async def app(request):
        return text_response(request.path)

    async def main():
        async with serving(app) as (_, connect):
            client = await connect()
            assert (await client.ask(post(b"GET /evil HTTP/1.1\r\n\r\n", "/1"))).body == b"/1"
            assert (
                await client.ask(b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGE")
            ).body == b"/2"
            client.send(b"T /")
            assert (await client.ask(post(b"", "/3"))).body == b"/3"

    run(main())


@pytest.mark.parametrize("framing", [b"Content-Length: 9000000", b"Transfer-Encoding: chunked"])
def test_large_or_endless_unread_body_ends_the_connection_after_the_answer(run, framing):
    async def app(request):
        return text_response("no")

    async def main():
        async with serving(app) as (_, connect):
            client = await connect()
            client.send(
                b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n100000\r\n" + b"x" * 1_000_000
            )
            reply = await client.reply()
            assert (reply.body, reply.headers["connection"]) == (b"no", "close")
            assert await client.at_end()

    run(main())


def test_body_is_read_no_faster_than_the_handler_takes_it(run):
    async def main():
        gate = asyncio.Event()
        size = 0

        async def app(request):
            nonlocal size
            await gate.wait()
            async for chunk in request.stream():
                assert len(chunk) <= 64 * 1024
                size += len(chunk)
            return text_response(str(size))

        async with serving(app) as (_, connect):
            client = await connect(SO_SNDBUF=65536)
            client.send(post(b"x" * 12_000_000))
            assert await settled(client.writer.transport.get_write_buffer_size) > 1_000_000
            gate.set()
            assert (await client.reply()).body == b"12000000"

    run(main())


def test_body_cannot_be_read_after_the_answer_has_started(run):
    async def main():
        async def app(request):
            async def chunks():
                yield b"a"
                await request.read(100)

            return StreamResponse(chunks())

        async with serving(app) as (_, connect):
            client = await connect()
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
            assert (await client.reader.read()).endswith(b"1\r\na\r\n")

    run(main())


# --- the client leaves


@pytest.mark.parametrize("extra", [b"", GET])
def test_half_closed_client_gets_its_answers(run, extra):
    async def main():
        async with serving(echo) as (_, connect):
            client = await connect()
            client.send(post(b"hi") + extra)
            client.writer.write_eof()
            assert (await client.reply()).body == b"POST /p hi"
            if extra:
                assert (await client.reply()).body == b"GET /hello "
            assert await client.at_end()

    run(main())


@pytest.mark.parametrize("first", [0, 1])
def test_half_closed_client_that_reads_gets_a_late_answer(run, first):
    async def main():
        gate = asyncio.Event()

        async def app(request):
            if request.method == "POST":
                return text_response("at once")
            await gate.wait()
            return text_response("late")

        async with serving(app, probe_seconds=0.005) as (_, connect):
            client = await connect()
            client.send(post(b"") * first + GET)
            client.writer.write_eof()
            for _ in range(first):
                assert (await client.reply()).body == b"at once"
            for _ in range(3):
                assert (await client.reply()).status == 100
            gate.set()
            assert (await client.reply()).body == b"late"
            assert await client.at_end()

    run(main())


def test_half_closed_client_gets_nothing_between_the_items_of_a_stream():
    async def main():
        gate = asyncio.Event()
        async with serving(Stream([b"a"], gate.wait)) as (server, connect):
            client = await connect()
            client.send(GET)
            await client.reader.readuntil(b"1\r\na\r\n")
            client.writer.write_eof()
            (connection,) = server._connections
            await until(lambda: connection._eof)
            await turn(1)
            gate.set()
            assert await client.reader.read() == b"0\r\n\r\n"

    run_warped(main())


@pytest.mark.parametrize("raw", [b"GET / HT", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab"])
def test_half_close_inside_a_request_is_400(run, raw):
    async def main():
        async with serving(echo) as (_, connect):
            client = await connect()
            client.send(raw)
            client.writer.write_eof()
            assert (await client.reply()).error.endswith("ended early")
            assert await client.at_end()

    run(main())


def test_idle_client_that_leaves_is_forgotten(run):
    async def main():
        async with serving(echo) as (server, connect):
            client = await connect()
            await client.ask(GET)
            client.writer.write_eof()
            assert await client.at_end()
            await server._empty.wait()

    run(main())


@pytest.mark.parametrize("reset", [False, True])
def test_client_that_leaves_cancels_the_handler(run, reset):
    async def main():
        started, cancelled = asyncio.Event(), asyncio.Event()

        async def app(request):
            try:
                started.set()
                await never()
            finally:
                cancelled.set()

        async with serving(app, probe_seconds=0.005) as (server, connect):
            client = await connect()
            client.send(GET)
            await started.wait()
            if reset:
                reset_on_close(client)
            client.writer.close()
            await cancelled.wait()
            await server._empty.wait()

    run(main())


@pytest.mark.parametrize("busy", [True, False])
def test_client_that_leaves_inside_a_stream_closes_the_iterator(run, busy):
    async def main():
        stream = Stream(iter(lambda: b"x" * 100, b"")) if busy else Stream([b"a"], never)
        async with serving(stream) as (server, connect):
            client = await connect()
            client.send(GET)
            await client.reader.readexactly(10)
            reset_on_close(client)
            client.writer.transport.abort()
            await stream.ended.wait()
            await server._empty.wait()

    run(main())


def test_producer_that_swallows_its_cancellation_is_stopped_by_the_next_item(run):
    async def main():
        stopped = asyncio.Event()
        items = []

        async def stubborn():
            try:
                yield b"a"
                with contextlib.suppress(asyncio.CancelledError):
                    await never()
                for i in range(1000):
                    items.append(i)
                    yield b"more"
            finally:
                stopped.set()

        async def app(request):
            return StreamResponse(stubborn())

        async with serving(app) as (server, connect):
            client = await connect()
            client.send(GET)
            await client.reader.readuntil(b"1\r\na\r\n")
            reset_on_close(client)
            client.writer.transport.abort()
            await stopped.wait()
            await server._empty.wait()
            assert items == [0]

    run(main())


# --- slow clients


def test_client_that_does_not_read_stops_the_producer_and_is_cut(run):
    async def main():
        stream = Stream(iter(lambda: b"x" * 10_000, b""))
        async with serving(stream, write_seconds=0.6) as (server, connect):
            client = await connect(SO_RCVBUF=4096)
            client.writer.transport.pause_reading()
            client.send(GET)
            await stream.started.wait()
            await settled(lambda: stream.produced)
            (connection,) = server._connections
            assert 0 < connection._transport.get_write_buffer_size() <= 256 * 1024
            await stream.ended.wait()
            await server._empty.wait()

    run(main())


class StuckTransport:
    """Takes what is written and sends only what a test lets it send."""

    def __init__(self):
        self.waiting = 0
        self.closed = self.aborted = False

    def set_write_buffer_limits(self, high):
        pass

    def get_extra_info(self, name):
        return None

    def get_write_buffer_size(self):
        return self.waiting

    def is_closing(self):
        return self.closed

    def can_write_eof(self):
        return True

    def write(self, data):
        self.waiting += len(data)

    def write_eof(self):
        pass

    def close(self):
        self.closed = True

    def abort(self):
        self.aborted = True


async def turn(seconds):
    warp(seconds)
    for _ in range(5):
        await asyncio.sleep(0)


def test_answer_is_cut_only_when_nothing_of_it_is_taken_for_a_while():
    async def main():
        transport = StuckTransport()
        connection = Connection(Server(echo, Limits(header_seconds=1e9)), asyncio.get_running_loop())
        connection.connection_made(transport)
        transport.waiting = 200_000
        connection.pause_writing()
        for _ in range(5):
            await turn(20)
            assert not transport.aborted
            transport.waiting -= 100
        connection.resume_writing()
        for _ in range(5):
            await turn(1000)
        assert not transport.aborted, "no limit while the client keeps up"
        connection.pause_writing()
        await turn(31)
        assert transport.aborted
        connection.connection_lost(None)
        transport.aborted = False
        await turn(31)
        assert not transport.aborted, "no timer outlives the connection"

    run_warped(main())


@pytest.mark.parametrize("paused", [False, True])
def test_rest_of_the_last_answer_is_cut_too(paused):
    async def main():
        transport = StuckTransport()
        connection = Connection(Server(echo), asyncio.get_running_loop())
        connection.connection_made(transport)
        raw = b"GET / HTTP/1.1\r\n\r\n"
        connection.get_buffer(-1)[: len(raw)] = raw
        connection.buffer_updated(len(raw))
        assert transport.waiting > 0
        await turn(1.5)
        assert transport.closed
        if paused:
            connection.pause_writing()
            connection.resume_writing()
        await turn(29)
        assert not transport.aborted
        await turn(2)
        assert transport.aborted
        connection.connection_lost(None)

    run_warped(main())


@pytest.mark.parametrize(
    ("raw", "ready", "seconds", "text"),
    [
        (b"", lambda connection: True, 29, None),
        (b"G", lambda connection: not connection._parser.idle, 29, "request header timeout"),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\n",
            lambda connection: connection._parser.method == "GET",
            29,
            "request header timeout",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab",
            lambda connection: connection._exchange is not None and connection._exchange.receiver is not None,
            59,
            "request body timeout",
        ),
    ],
)
def test_slow_request_is_ended_after_its_time(raw, ready, seconds, text):
    async def main():
        async with serving(echo) as (server, connect):
            client = await connect()
            client.send(raw)
            await until(lambda: server._connections and all(map(ready, server._connections)))
            warp(seconds)
            for _ in range(20):
                await asyncio.sleep(0)
            (connection,) = server._connections
            assert not connection._ending
            warp(2)
            if text is not None:
                reply = await client.reply()
                assert (reply.status, reply.error, reply.headers["connection"]) == (408, text, "close")
            assert await client.at_end()

    run_warped(main())


def test_header_time_counts_from_the_first_byte_of_each_request():
    async def main():
        async with serving(echo) as (server, connect):
            client = await connect()
            for _ in range(3):
                await client.ask(GET)
                (connection,) = server._connections
                await until(lambda c=connection: c._waits_for == "request")
                warp(70)
                for _ in range(20):
                    await asyncio.sleep(0)
            client.send(GET[:5])
            await until(lambda: connection._waits_for == "head")
            warp(20)
            client.send(GET[5:9])
            await until(lambda: connection._parser.buffered == 9)
            warp(11)
            assert (await client.reply()).status == 408

    run_warped(main())


def test_idle_connection_is_closed_silently():
    async def main():
        async with serving(echo) as (_, connect):
            client = await connect()
            await client.ask(GET)
            warp(76)
            assert await client.at_end()

    run_warped(main())


def test_no_timeout_while_a_handler_works():
    async def main():
        started, gate = asyncio.Event(), asyncio.Event()

        async def app(request):
            await request.read(10)
            started.set()
            await gate.wait()
            return text_response("done")

        async with serving(app) as (_, connect):
            client = await connect()
            client.send(post(b"hi"))
            await started.wait()
            for _ in range(5):
                warp(100)
                await asyncio.sleep(0)
            gate.set()
            assert (await client.reply()).body == b"done"

    run_warped(main())


# --- many connections, the end


def test_connections_over_the_limit_are_told_so(run):
    async def main():
        async with serving(echo, connections=2) as (server, connect):
            clients = [await connect() for _ in range(2)]
            for client in clients:
                await client.ask(GET)
            late = await connect()
            reply = await late.ask(GET)
            assert (reply.status, reply.error) == (503, "too many connections")
            assert await late.at_end()
            clients[0].writer.close()
            late.writer.close()
            await settled(lambda: len(server._connections))
            assert (await (await connect()).ask(GET)).status == 200

    run(main())


def test_stop_lets_running_streams_finish_and_closes_idle_connections(run):
    async def main():
        gate = asyncio.Event()
        stream = Stream([b"a"], gate.wait)
        async with serving(stream) as (server, connect):
            idle, busy = await connect(), await connect()
            busy.send(GET + GET)
            await busy.reader.readuntil(b"1\r\na\r\n")
            stopping = asyncio.create_task(server.stop(60))
            assert await idle.at_end()
            with pytest.raises(OSError, match=r".*"):
                await connect()
            assert not stopping.done()
            gate.set()
            assert await busy.reader.read() == b"0\r\n\r\n", "the second request is not served"
            busy.writer.close()
            await stopping

    run(main())


def test_stop_cuts_what_does_not_finish(run):
    async def main():
        stream = Stream([b"a"], never)
        async with serving(stream) as (server, connect):
            client = await connect()
            client.send(GET)
            await client.reader.readuntil(b"1\r\na\r\n")
            await server.stop(0.01)
            assert stream.ended.is_set()
            with contextlib.suppress(ConnectionResetError):
                assert await client.at_end()

    run(main())


def test_answer_during_stop_says_close(run):
    async def main():
        started, gate = asyncio.Event(), asyncio.Event()

        async def app(request):
            started.set()
            await gate.wait()
            return text_response("done")

        async with serving(app) as (server, connect):
            client = await connect()
            client.send(GET)
            await started.wait()
            stopping = asyncio.create_task(server.stop(60))
            await asyncio.sleep(0)
            gate.set()
            reply = await client.reply()
            assert (reply.body, reply.headers["connection"]) == (b"done", "close")
            client.writer.close()
            await stopping

    run(main())


def test_address_in_use_is_an_os_error(run):
    async def main():
        async with serving(echo) as (server, _):
            with pytest.raises(OSError, match="in use"):
                await Server(echo).start(*server.address)

    run(main())


EXHAUSTION = """
    import asyncio, os, resource, socket, sys, time
    import uvloop
    from server.http import Server, text_response

    async def app(request):
        return text_response("ok")

    async def main():
        server = Server(app)
        await server.start("127.0.0.1", 0)
        socks = [socket.socket() for _ in range(60)]
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, used + 20))
        for sock in socks:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, server.address)
        before = time.process_time()
        await asyncio.sleep(1.0)
        busy = time.process_time() - before
        for sock in socks:
            sock.close()
        for _ in range(100):
            try:
                reader, writer = await asyncio.open_connection(*server.address)
                writer.write(b"GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
                reply = await reader.read()
                writer.close()
                if reply.endswith(b"ok"):
                    break
            except OSError:
                pass
            await asyncio.sleep(0.05)
        print("alive" if reply.endswith(b"ok") else "dead", "spins" if busy > 0.6 else "rests")

    loop = uvloop.new_event_loop if sys.argv[1] == "uvloop" else asyncio.SelectorEventLoop
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors in /proc")
@pytest.mark.parametrize("loop", LOOPS)
def test_server_survives_running_out_of_descriptors(loop):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(EXHAUSTION), loop], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["alive", "rests"], done.stderr[-2000:]


def test_limits_cannot_be_changed_while_they_are_used():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().connections = 1
