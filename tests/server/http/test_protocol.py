"""The request parser: what it takes, what it refuses with which status, and that cuts change nothing."""

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.http.limits import Limits
from server.http.protocol import Data, EndOfMessage, HeadCache, ProtocolError, RequestHead, RequestParser

SMALL = Limits(request_line_bytes=200, header_bytes=400, header_fields=8, body_bytes=1000)
HOST = b"Host: a\r\n"


def events_of(pieces, limits=SMALL, cache=None):
    """The events of all requests in `pieces`; data merged, an error as its status."""
    parser = RequestParser(limits, cache)
    events = []
    try:
        for piece in pieces:
            parser.feed(piece)
            while (event := parser.next_event()) is not None:
                if isinstance(event, Data) and events and isinstance(events[-1], Data):
                    events[-1] = Data(events[-1].data + event.data)
                else:
                    events.append(event)
                if isinstance(event, EndOfMessage):
                    parser.start_next()
    except ProtocolError as error:
        events.append(error.status)
    return events


def assert_cuts_change_nothing(raw, limits=SMALL):
    whole = events_of([raw], limits)
    cache = HeadCache()
    for time in ("first", "second"):
        assert events_of([raw], limits, cache) == whole, f"with a cache of heads, the {time} time"
    assert events_of([raw[i : i + 1] for i in range(len(raw))], limits) == whole, "one byte at a time"
    for cut in range(1, len(raw)):
        assert events_of([raw[:cut], raw[cut:]], limits) == whole, f"cut at {cut}"
    return whole


def head(
    method="GET",
    path="/",
    query="",
    headers=(("host", "a"),),
    version="1.1",
    keep=True,
    length=0,
    expect=False,
):
    return RequestHead(method, path, query, tuple(headers), version, keep, length, expect)


END = EndOfMessage()
CHUNKED = (("host", "a"), ("transfer-encoding", "chunked"))
POST_CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKED_HEAD = head("POST", headers=CHUNKED, length=None)

GOOD = {
    "get": (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", [head(), END]),
    "query": (b"GET /a/b?c=%00&d HTTP/1.1\r\n" + HOST + b"\r\n", [head(path="/a/b", query="c=%00&d"), END]),
    "second question mark": (b"GET /?a?b HTTP/1.1\r\n" + HOST + b"\r\n", [head(query="a?b"), END]),
    "percent decoded once": (
        b"GET /a%2Fb%2520%C3%A9 HTTP/1.1\r\n" + HOST + b"\r\n",
        [head(path="/a/b%20é"), END],
    ),
    "dots stay": (b"GET /../a/./b//c HTTP/1.1\r\n" + HOST + b"\r\n", [head(path="/../a/./b//c"), END]),
    "one empty line before": (b"\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n", [head(), END]),
    "unknown method": (b"get / HTTP/1.1\r\n" + HOST + b"\r\n", [head("get"), END]),
    "method of 32": (b"M" * 32 + b" / HTTP/1.1\r\n" + HOST + b"\r\n", [head("M" * 32), END]),
    "options star": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", [head("OPTIONS", "*"), END]),
    "absolute form": (
        b"GET http://b:80/p?q HTTP/1.1\r\nX: 1\r\n" + HOST + b"\r\n",
        [head(path="/p", query="q", headers=(("host", "b:80"), ("x", "1"))), END],
    ),
    "absolute form without path": (
        b"GET HTTP://[::1]?q HTTP/1.1\r\n" + HOST + b"\r\n",
        [head(query="q", headers=(("host", "[::1]"),)), END],
    ),
    "absolute form of star": (
        b"OPTIONS http://b HTTP/1.1\r\n" + HOST + b"\r\n",
        [head("OPTIONS", "*", headers=(("host", "b"),)), END],
    ),
    "blanks around a value": (
        b"GET / HTTP/1.1\r\nHost:\t a \t\r\nX:\r\nY: a  b\tc \r\n\r\n",
        [head(headers=(("host", "a"), ("x", ""), ("y", "a  b\tc"))), END],
    ),
    "obs-text in a value": (
        b"GET / HTTP/1.1\r\n" + HOST + b"X: \xa0\x85\xff\r\n\r\n",
        [head(headers=(("host", "a"), ("x", "\xa0\x85\xff"))), END],
    ),
    "repeated field": (
        b"GET / HTTP/1.1\r\n" + HOST + b"X: 1\r\nx: 2\r\n\r\n",
        [head(headers=(("host", "a"), ("x", "1"), ("x", "2"))), END],
    ),
    "connection close": (
        b"GET / HTTP/1.1\r\n" + HOST + b"Connection: foo,\tClose\r\n\r\n",
        [head(headers=(("host", "a"), ("connection", "foo,\tClose")), keep=False), END],
    ),
    "http/1.0": (b"GET / HTTP/1.0\r\n\r\n", [head(headers=(), version="1.0", keep=False), END]),
    "http/1.0 keep-alive": (
        b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
        [head(headers=(("connection", "Keep-Alive"),), version="1.0"), END],
    ),
    "http/1.0 expectation is ignored": (
        b"GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
        [head(headers=(("expect", "100-continue"),), version="1.0", keep=False), END],
    ),
    "sized body": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhe\r\no",
        [head("POST", headers=(("host", "a"), ("content-length", "5")), length=5), Data(b"he\r\no"), END],
    ),
    "sized body of none": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n",
        [head("POST", headers=(("host", "a"), ("content-length", "0"))), END],
    ),
    "get with body": (
        b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi",
        [head(headers=(("host", "a"), ("content-length", "2")), length=2), Data(b"hi"), END],
    ),
    "expectation": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n",
        [
            head(
                "POST",
                headers=(("host", "a"), ("expect", "100-Continue"), ("content-length", "1")),
                length=1,
                expect=True,
            )
        ],
    ),
    "chunks": (
        POST_CHUNKED + b"5\r\nhello\r\n00A\r\n, world!!!\r\n0\r\n\r\n",
        [CHUNKED_HEAD, Data(b"hello, world!!!"), END],
    ),
    "empty chunked body": (POST_CHUNKED + b"0\r\n\r\n", [CHUNKED_HEAD, END]),
    "chunked in capitals": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: \tCHUNKED \r\n\r\n1\r\na\r\n0\r\n\r\n",
        [
            head("POST", headers=(("host", "a"), ("transfer-encoding", "CHUNKED")), length=None),
            Data(b"a"),
            END,
        ],
    ),
    "sixteen digits": (POST_CHUNKED + b"0000000000000001\r\na\r\n0\r\n\r\n", [CHUNKED_HEAD, Data(b"a"), END]),
    "chunk extensions": (
        POST_CHUNKED + b'1;a;b=c; d="e;\\"\xe9"\r\na\r\n0;z\r\n\r\n',
        [CHUNKED_HEAD, Data(b"a"), END],
    ),
    "trailers are dropped": (
        POST_CHUNKED + b"1\r\na\r\n0\r\nContent-Length: 9\r\nX: y\r\n\r\n",
        [CHUNKED_HEAD, Data(b"a"), END],
    ),
    "pipeline": (
        b"GET /1 HTTP/1.1\r\n" + HOST + b"\r\n" + POST_CHUNKED + b"1\r\na\r\n0\r\n\r\n"
        b"POST /3 HTTP/1.1\r\n"
        + HOST
        + b"Content-Length: 3\r\n\r\nGET\r\nGET /4 HTTP/1.1\r\n"
        + HOST
        + b"\r\n",
        [
            head(path="/1"),
            END,
            CHUNKED_HEAD,
            Data(b"a"),
            END,
            head("POST", "/3", headers=(("host", "a"), ("content-length", "3")), length=3),
            Data(b"GET"),
            END,
            head(path="/4"),
            END,
        ],
    ),
    "incomplete": (b"GET / HTTP/1.1\r\n" + HOST + b"\r", []),
}


@pytest.mark.parametrize("name", GOOD)
def test_request_gives_events_however_it_is_cut(name):
    raw, expected = GOOD[name]
    assert assert_cuts_change_nothing(raw) == expected


@pytest.mark.parametrize(
    "host",
    ["a", "localhost:11434", "127.0.0.1", "[::1]:80", "[fe80::1%eth0]", "a_b.c-d", "a:", "%61", "a:65535"],
)
def test_host_accepted(host):
    assert events_of([f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()]) == [
        head(headers=(("host", host),)),
        END,
    ]


def line(raw):
    return raw + b"\r\n" + HOST + b"\r\n"


def field(raw):
    return b"POST / HTTP/1.1\r\n" + HOST + raw + b"\r\n\r\nabcde"


def host(raw):
    return b"GET / HTTP/1.1\r\nHost: " + raw + b"\r\n\r\n"


def chunk(raw):
    return POST_CHUNKED + raw


HOSTILE = {
    # request line
    "bare LF": (b"GET / HTTP/1.1\n" + HOST + b"\n", 400),
    "bare LF only in the request line": (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    "bare CR": (b"GET / HTTP/1.1\rHost: a\r\r", 400),
    "CR CR LF": (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
    "two empty lines before": (b"\r\n\r\n" + line(b"GET / HTTP/1.1"), 400),
    "LF before": (b"\n" + line(b"GET / HTTP/1.1"), 400),
    "space before": (line(b" GET / HTTP/1.1"), 400),
    "two spaces": (line(b"GET  / HTTP/1.1"), 400),
    "two spaces before the version": (line(b"GET /  HTTP/1.1"), 400),
    "space behind": (line(b"GET / HTTP/1.1 "), 400),
    "tab": (line(b"GET\t/\tHTTP/1.1"), 400),
    "no target": (line(b"GET HTTP/1.1"), 400),
    "empty target": (line(b"GET  HTTP/1.1"), 400),
    "no version": (line(b"GET /"), 400),
    "space in target": (line(b"GET /a b HTTP/1.1"), 400),
    "colon in method": (line(b"GE:T / HTTP/1.1"), 400),
    "method of 33": (line(b"M" * 33 + b" / HTTP/1.1"), 400),
    "endless method": (b"M" * 300, 400),
    "NUL in method": (line(b"G\x00T / HTTP/1.1"), 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "obs-text in method": (b"\xc3\x89T / HTTP/1.1\r\n", 400),
    "version 2.0": (line(b"GET / HTTP/2.0"), 505),
    "version 1.2": (line(b"GET / HTTP/1.2"), 505),
    "version 0.9": (line(b"GET / HTTP/0.9"), 505),
    "h2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "version 1": (line(b"GET / HTTP/1"), 400),
    "version 1.10": (line(b"GET / HTTP/1.10"), 400),
    "version 01.1": (line(b"GET / HTTP/01.1"), 400),
    "version in small letters": (line(b"GET / http/1.1"), 400),
    "version with other digits": (line("GET / HTTP/1.\N{FULLWIDTH DIGIT ONE}".encode()), 400),
    "version with a comma": (line(b"GET / HTTP/1,1"), 400),
    "another protocol": (line(b"GET / RTSP/1.1"), 400),
    "long request line": (line(b"GET /" + b"a" * 200 + b" HTTP/1.1"), 414),
    "endless request line": (b"GET /" + b"a" * 300, 414),
    # targets
    "target without slash": (line(b"GET a HTTP/1.1"), 400),
    "star for GET": (line(b"GET * HTTP/1.1"), 400),
    "authority form for GET": (line(b"GET a:80 HTTP/1.1"), 400),
    "CONNECT": (line(b"CONNECT a:80 HTTP/1.1"), 405),
    "CONNECT with a path": (line(b"CONNECT / HTTP/1.1"), 400),
    "CONNECT without port": (line(b"CONNECT a HTTP/1.1"), 400),
    "fragment": (line(b"GET /a#b HTTP/1.1"), 400),
    "backslash": (line(b"GET /a\\b HTTP/1.1"), 400),
    "NUL in target": (line(b"GET /\x00 HTTP/1.1"), 400),
    "raw obs-text in target": (line(b"GET /\xc0\xaf HTTP/1.1"), 400),
    "DEL in target": (line(b"GET /\x7f HTTP/1.1"), 400),
    "%00": (line(b"GET /a%00 HTTP/1.1"), 400),
    "%0d%0a": (line(b"GET /a%0d%0aX:y HTTP/1.1"), 400),
    "percent and no digits": (line(b"GET /%zz HTTP/1.1"), 400),
    "percent at the end": (line(b"GET /a% HTTP/1.1"), 400),
    "percent and one digit": (line(b"GET /a%2 HTTP/1.1"), 400),
    "overlong UTF-8": (line(b"GET /%c0%af HTTP/1.1"), 400),
    "absolute form with userinfo": (line(b"GET http://u@a/ HTTP/1.1"), 400),
    "absolute form without host": (line(b"GET http:///a HTTP/1.1"), 400),
    "absolute form of another scheme": (line(b"GET ftp://a/ HTTP/1.1"), 400),
    "absolute form without Host field": (b"GET http://a/ HTTP/1.1\r\n\r\n", 400),
    # fields
    "space before colon": (field(b"X : y"), 400),
    "tab before colon": (field(b"X\t: y"), 400),
    "obs-fold": (field(b"X: y\r\n z"), 400),
    "obs-fold by tab": (field(b"X: y\r\n\tz"), 400),
    "space before the first field": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "no colon": (field(b"X"), 400),
    "empty name": (field(b": y"), 400),
    "blank line of a space": (field(b" "), 400),
    "NUL in value": (field(b"X: a\x00b"), 400),
    "control in value": (field(b"X: a\x01b"), 400),
    "DEL in value": (field(b"X: a\x7fb"), 400),
    "vertical tab in value": (field(b"X: \x0by"), 400),
    "bare CR in value": (field(b"X: a\rb"), 400),
    "bare LF in value": (field(b"X: a\nb: c"), 400),
    "NUL in name": (field(b"X\x00: y"), 400),
    "obs-text in name": (field(b"X\xe9: y"), 400),
    "parenthesis in name": (field(b"X(: y"), 400),
    "long value": (field(b"X: " + b"y" * 400), 431),
    "endless value": (b"GET / HTTP/1.1\r\nX: " + b"y" * 500, 431),
    "many long fields": (field(b"\r\n".join([b"X: " + b"y" * 100] * 4)), 431),
    "many fields": (field(b"\r\n".join([b"X: y"] * 8)), 431),
    # host
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "same host twice": (b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
    "two hosts in 1.0": (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "empty host": (host(b""), 400),
    "host with path": (host(b"a/b"), 400),
    "host with userinfo": (host(b"u@a"), 400),
    "host list": (host(b"a, b"), 400),
    "host list without space": (host(b"a,b"), 400),
    "host with space": (host(b"a b"), 400),
    "host with scheme": (host(b"http://a"), 400),
    "host with a word as port": (host(b"a:x"), 400),
    "host with a large port": (host(b"a:65536"), 400),
    "host with two ports": (host(b"a:1:2"), 400),
    "host with an open bracket": (host(b"[::1"), 400),
    "host not ASCII": (host("é".encode()), 400),
    "host with fullwidth port": (host("a:\N{FULLWIDTH DIGIT ONE}".encode()), 400),
    # length
    "CL and TE": (field(b"Content-Length: 5\r\nTransfer-Encoding: chunked"), 400),
    "TE and CL": (field(b"Transfer-Encoding: chunked\r\nContent-Length: 5"), 400),
    "CL +5": (field(b"Content-Length: +5"), 400),
    "CL -5": (field(b"Content-Length: -5"), 400),
    "CL -0": (field(b"Content-Length: -0"), 400),
    "CL 0x5": (field(b"Content-Length: 0x5"), 400),
    "CL 1_0": (field(b"Content-Length: 1_0"), 400),
    "CL 5.0": (field(b"Content-Length: 5.0"), 400),
    "CL 05": (field(b"Content-Length: 05"), 400),
    "CL 1 2": (field(b"Content-Length: 1 2"), 400),
    "CL empty": (field(b"Content-Length:"), 400),
    "CL of fullwidth digits": (field("Content-Length: \N{FULLWIDTH DIGIT FIVE}".encode()), 400),
    "CL of superscript": (field(b"Content-Length: \xb2"), 400),
    "CL with NBSP": (field(b"Content-Length: \xa05"), 400),
    "CL list": (field(b"Content-Length: 5, 5"), 400),
    "CL twice": (field(b"Content-Length: 5\r\nContent-Length: 5"), 400),
    "CL twice, different": (field(b"Content-Length: 5\r\nContent-Length: 6"), 400),
    "CL of 20 digits": (field(b"Content-Length: 18446744073709551621"), 400),
    "CL beyond int64": (field(b"Content-Length: 9223372036854775808"), 400),
    "CL over the limit": (field(b"Content-Length: 1001"), 413),
    # transfer coding
    "TE gzip": (field(b"Transfer-Encoding: gzip"), 501),
    "TE identity": (field(b"Transfer-Encoding: identity"), 501),
    "TE xchunked": (field(b"Transfer-Encoding: xchunked"), 501),
    "TE gzip, chunked": (field(b"Transfer-Encoding: gzip, chunked"), 400),
    "TE chunked, gzip": (field(b"Transfer-Encoding: chunked, gzip"), 400),
    "TE chunked, chunked": (field(b"Transfer-Encoding: chunked, chunked"), 400),
    "TE ,chunked": (field(b"Transfer-Encoding: ,chunked"), 400),
    "TE chunked,": (field(b"Transfer-Encoding: chunked,"), 400),
    "TE chunked;a=b": (field(b"Transfer-Encoding: chunked;a=b"), 400),
    "TE twice": (field(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400),
    "TE in two lines": (field(b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"), 400),
    "TE empty": (field(b"Transfer-Encoding:"), 400),
    "TE quoted": (field(b'Transfer-Encoding: "chunked"'), 400),
    "TE with vertical tab": (field(b"Transfer-Encoding: \x0bchunked"), 400),
    "TE with form feed": (field(b"Transfer-Encoding: chunked\x0c"), 400),
    "TE with NBSP": (field(b"Transfer-Encoding: chunked\xa0"), 400),
    "TE with NEL": (field(b"Transfer-Encoding: \x85chunked"), 400),
    "TE with space before colon": (field(b"Transfer-Encoding : chunked"), 400),
    "TE folded": (field(b"Transfer-Encoding:\r\n chunked"), 400),
    "TE with Kelvin sign": (
        field("Transfer-Encoding: chunKed".replace("K", "\N{KELVIN SIGN}").encode()),
        400,
    ),
    "TE in 1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    # expectations
    "unknown expectation": (field(b"Expect: more"), 417),
    "two expectations": (field(b"Expect: 100-continue\r\nExpect: 100-continue"), 417),
    # chunks
    "chunk size not hex": (chunk(b"Z\r\n"), 400),
    "chunk size empty": (chunk(b"\r\nabc"), 400),
    "chunk size 0x5": (chunk(b"0x5\r\nhello\r\n"), 400),
    "chunk size +5": (chunk(b"+5\r\nhello\r\n"), 400),
    "chunk size -1": (chunk(b"-1\r\n"), 400),
    "chunk size 1_0": (chunk(b"1_0\r\n"), 400),
    "chunk size with space before": (chunk(b" 5\r\nhello\r\n"), 400),
    "chunk size with space behind": (chunk(b"5 \r\nhello\r\n"), 400),
    "chunk size with tab behind": (chunk(b"5\t\r\nhello\r\n"), 400),
    "chunk size of 17 digits": (chunk(b"00000000000000005\r\nhello\r\n"), 400),
    "chunk size beyond int64": (chunk(b"FFFFFFFFFFFFFFFF\r\nhello\r\n"), 400),
    "chunk size of fullwidth digits": (chunk("\N{FULLWIDTH DIGIT FIVE}\r\nhello\r\n".encode()), 400),
    "chunk over the limit": (chunk(b"3e9\r\n"), 413),
    "chunk size ended by LF": (chunk(b"5\nhello\r\n0\r\n\r\n"), 400),
    "chunk size ended by CR": (chunk(b"5\rhello\r\n0\r\n\r\n"), 400),
    "chunk extension without name": (chunk(b"5;\r\nhello\r\n"), 400),
    "chunk extension with NUL": (chunk(b"5;a=\x00\r\nhello\r\n"), 400),
    "chunk extension with LF": (chunk(b"5;a\nhello\r\n"), 400),
    "chunk extension with CR": (chunk(b"5;a\rb\r\nhello\r\n"), 400),
    "chunk extension with an open quote": (chunk(b'5;a="b\r\nhello\r\n'), 400),
    "chunk extension too long": (chunk(b"5;" + b"a" * 256 + b"\r\nhello\r\n"), 400),
    "chunk extension endless": (chunk(b"5;" + b"a" * 500), 400),
    # trailers
    "trailer folded": (chunk(b"0\r\nX: y\r\n z\r\n\r\n"), 400),
    "trailer without colon": (chunk(b"0\r\nX\r\n\r\n"), 400),
    "trailer with bare LF": (chunk(b"0\r\nX: y\n\r\n"), 400),
    "end of chunks by LF": (chunk(b"0\r\n\n"), 400),
    "trailers too long": (chunk(b"0\r\nX: " + b"y" * 400 + b"\r\n\r\n"), 431),
    "too many trailers": (chunk(b"0\r\n" + b"X: y\r\n" * 7 + b"\r\n"), 431),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_request_is_refused_however_it_is_cut(name):
    raw, status = HOSTILE[name]
    events = assert_cuts_change_nothing(raw)
    assert events[-1] == status
    assert [event for event in events[:-1] if not isinstance(event, RequestHead)] == [], (
        "no body before the error"
    )


@pytest.mark.parametrize("end", [b"xx", b"\n\r", b"\r\r", b"\n", b"\r", b"", b"\rx"])
def test_chunk_data_must_end_with_crlf(end):
    events = assert_cuts_change_nothing(chunk(b"5\r\nhello" + end + b"0\r\n\r\n"))
    assert events == [CHUNKED_HEAD, Data(b"hello"), 400]


def test_limits_are_met_exactly():
    target = b"/" + b"a" * (SMALL.request_line_bytes - len(b"GET / HTTP/1.1"))
    assert events_of([line(b"GET " + target + b" HTTP/1.1")])[-1] == END
    assert events_of([line(b"GET a" + target + b" HTTP/1.1")]) == [414]
    value = b"y" * (SMALL.header_bytes - len(HOST) - len(b"X: \r\n"))
    assert events_of([b"GET / HTTP/1.1\r\n" + HOST + b"X: " + value + b"\r\n\r\n"])[-1] == END
    assert events_of([b"GET / HTTP/1.1\r\n" + HOST + b"X: y" + value + b"\r\n\r\n"]) == [431]
    assert events_of([b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 7 + b"\r\n"])[-1] == END
    assert events_of([field(b"Content-Length: 1000")])[0].content_length == 1000
    chunks = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
    assert events_of([chunk(chunks + b"0\r\n\r\n")])[1:] == [Data(b"x" * 1000), END]
    assert events_of([chunk(chunks + b"1\r\nx\r\n0\r\n\r\n")])[1:] == [Data(b"x" * 1000), 413]


def test_error_is_raised_again_and_no_later_request_is_read():
    parser = RequestParser(SMALL)
    parser.feed(b"GET / HTTP/3.0\r\n\r\n")
    for _ in range(2):
        with pytest.raises(ProtocolError) as caught:
            parser.next_event()
        assert caught.value.status == 505
        parser.feed(GOOD["get"][0])


def test_next_request_waits_for_start_next():
    parser = RequestParser(SMALL)
    parser.feed(GOOD["get"][0] * 2)
    assert [parser.next_event() for _ in range(3)] == [head(), END, None]
    parser.start_next()
    assert parser.next_event() == head()


def test_idle_body_left_and_method_follow_the_message():
    parser = RequestParser(SMALL)
    assert parser.idle
    parser.feed(b"PUT / HTTP/1.1\r\n")
    assert parser.next_event() is None
    assert not parser.idle
    assert parser.method == "PUT"
    parser.feed(HOST + b"Content-Length: 5\r\n\r\nab")
    parser.next_event()
    assert parser.body_left == 5
    parser.next_event()
    assert (parser.body_left, parser.buffered) == (3, 0)
    parser.feed(b"cde")
    parser.next_event()
    assert isinstance(parser.next_event(), EndOfMessage)
    parser.start_next()
    assert (parser.idle, parser.method) == (True, "")
    parser.feed(POST_CHUNKED)
    parser.next_event()
    assert parser.body_left is None


class CountingBuffer(bytearray):
    """Counts the bytes that the parser could look at in searches."""

    looked_at = 0

    def find(self, sub, start=0, end=None):
        end = len(self) if end is None else end
        found = super().find(sub, start, end)
        CountingBuffer.looked_at += (found if found >= 0 else end) - start + 1
        return found


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_work_is_linear_in_the_input(step, monkeypatch):
    raw = b"GET /" + b"a" * 4000 + b" HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 4000 + b"\r\n\r\n"
    raw += POST_CHUNKED + b"1\r\na\r\n" * 4000 + b"0\r\n\r\n"
    monkeypatch.setattr(CountingBuffer, "looked_at", 0)
    parser = RequestParser(Limits())
    parser._buffer = CountingBuffer()
    data = []
    ended = 0
    for start in range(0, len(raw), step):
        parser.feed(raw[start : start + step])
        while (event := parser.next_event()) is not None:
            if isinstance(event, Data):
                data.append(event.data)
            elif isinstance(event, EndOfMessage):
                ended += 1
                parser.start_next()
    assert (ended, b"".join(data)) == (2, b"a" * 4000)
    assert CountingBuffer.looked_at < 8 * len(raw)
    if step == 100_000:
        assert len(data) == 1, "many small chunks are given out together"


TOKENS = st.sampled_from(
    [
        b"GET",
        b"POST",
        b" ",
        b"/",
        b"/a?b=c",
        b"http://b/c",
        b"*",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"Host: a",
        b"Host:",
        b"Content-Length: 3",
        b"Content-Length: 03",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
        b"Expect: 100-continue",
        b"X: y",
        b"X:\ty ",
        b":",
        b"3",
        b"0",
        b"a",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"3;x=y\r\nabc\r\n",
        b"abc",
        b"\x00",
        b"\x0b",
        b"\xa0",
        b"\x85",
        b",",
        b"chunked",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
    ]
)
SEEDS = st.sampled_from([raw for raw, _ in [*GOOD.values(), *HOSTILE.values()]])


@st.composite
def requests(draw):
    """A request from the tables with a few pieces replaced, or pieces at random."""
    if draw(st.integers(0, 3)) == 0:
        return b"".join(draw(st.lists(TOKENS, max_size=12)))
    raw = draw(SEEDS)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(raw)))
        raw = raw[:start] + draw(TOKENS) + raw[start + draw(st.integers(0, 4)) :]
    return raw


def h11_events(raw):
    """The first message as h11 reads it."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(raw)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    return request, body


@settings(max_examples=600, deadline=None)
@given(requests())
def test_what_we_accept_h11_reads_alike(raw):
    events = events_of([raw])
    if END not in events:
        return
    ours = events[0]
    theirs, body = h11_events(raw.removeprefix(b"\r\n"))
    target = theirs.target.decode()
    assert (ours.method, ours.version) == (theirs.method.decode(), theirs.http_version.decode())
    fields = [(name.decode(), value.decode("latin-1")) for name, value in theirs.headers]
    if target.lower().startswith("http"):
        ours = ours._replace(headers=tuple((n, v) for n, v in ours.headers if n != "host"))
        fields = [(n, v) for n, v in fields if n != "host"]
        assert "%" in target or ours.path in ("/", "*") or target.partition("?")[0].endswith(ours.path)
    elif "%" not in target:
        assert target in (ours.path, f"{ours.path}?{ours.query}")
    normal = [(n, v.lower() if n == "transfer-encoding" else v) for n, v in ours.headers]
    assert normal == fields
    assert b"".join(event.data for event in events[: events.index(END)] if isinstance(event, Data)) == body


@settings(max_examples=300, deadline=None)
@given(requests(), st.lists(st.integers(1, 40), max_size=20))
def test_random_cuts_change_nothing(raw, sizes):
    pieces = []
    rest = raw
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert events_of([*pieces, rest]) == events_of([raw])
