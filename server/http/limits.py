"""Every size and time limit of the HTTP layer, in one place."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds; the defaults suit a server shared by one household or team."""

    #: request line without its CRLF; longer ones are answered 414
    request_line_bytes: int = 8 * 1024
    #: header section with its line ends, trailers included; more is answered 431
    header_bytes: int = 64 * 1024
    #: fields in the header section, trailers included; more is answered 431
    header_fields: int = 100
    #: any request body (a handler sets its own, smaller limit when it reads); more is answered 413
    body_bytes: int = 1 << 40
    #: received bytes that wait for a handler to read them; then the socket is not read
    read_ahead_bytes: int = 64 * 1024
    #: bytes of an answer that wait for the client to read them; then the producer waits
    write_buffer_bytes: int = 128 * 1024
    #: an unread body of at most this size is dropped to keep the connection; with a larger one it is closed
    discard_bytes: int = 64 * 1024
    #: from the first byte of a request (or the start of a connection) to the end of its header section
    header_seconds: float = 30.0
    #: without a byte, while a handler waits for the body
    body_seconds: float = 60.0
    #: between two requests on one connection
    idle_seconds: float = 75.0
    #: without the client taking a byte of an answer that waits; then the connection is cut
    write_seconds: float = 30.0
    #: how long input is drained after the last answer, so that a reset does not overtake it
    linger_seconds: float = 1.0
    #: after a half-close with an answer pending: time to the first interim response that tests who reads; it doubles
    #: from one to the next, so that a client nearby is missed within 0.2 s and one far away is too
    probe_seconds: float = 0.06
    #: connections at a time; more are answered 503
    connections: int = 1024
