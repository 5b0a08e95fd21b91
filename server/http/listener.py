"""The listening side: accepts connections, counts them, and ends them in an orderly way."""

import asyncio
import logging
import os
import socket
import stat
import time
from email.utils import formatdate
from pathlib import Path
from ssl import SSLContext

from server.http.connection import Application, Connection
from server.http.limits import Limits
from server.http.protocol import HeadCache

_BACKLOG = 1024
#: connections beyond the limit that are told so at a time; more are closed without an answer
_REFUSALS = 64
#: how long `stop` waits for the tasks that it has cancelled
_CUT_SECONDS = 5.0

_logger = logging.getLogger(__name__)


class Server:
    """Serves an application on one address until it is stopped."""

    def __init__(self, app: Application, limits: Limits | None = None) -> None:
        self.app = app
        self.limits = limits if limits is not None else Limits()
        self.heads = HeadCache()
        self.incoming = memoryview(bytearray(self.limits.read_ahead_bytes // 2))
        self.stopping = False
        self._server: asyncio.Server | None = None
        self._address = ("", 0)
        self._path: Path | None = None
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._date = (0, b"")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that the server listens on; the port is the real one also when 0 was asked for."""
        return self._address

    async def start(self, host: str, port: int, tls: SSLContext | None = None) -> None:
        """Listen on a TCP address. OSError when it cannot be had."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self, loop), host, port, backlog=_BACKLOG, ssl=tls
        )
        self._address = self._server.sockets[0].getsockname()[:2]

    async def start_unix(self, path: Path, tls: SSLContext | None = None) -> None:
        """Listen on a socket in the file system, for its owner and group. OSError when it cannot be had."""
        loop = asyncio.get_running_loop()
        listening = _unix_socket(path)
        self._server = await loop.create_unix_server(
            lambda: Connection(self, loop), sock=listening, backlog=_BACKLOG, ssl=tls
        )
        self._path = path

    async def stop(self, drain_seconds: float) -> None:
        """Accept nothing more, close idle connections, let requests finish for a while, cut the rest."""
        self.stopping = True
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        for connection in list(self._connections):
            connection.shutdown()
        if await self._drained(drain_seconds):
            return
        for connection in list(self._connections):
            connection.abort()
        if not await self._drained(_CUT_SECONDS):
            _logger.error("%d requests do not end although they were cancelled", len(self._connections))

    async def _drained(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def date_line(self) -> bytes:
        """The line of the Date field, made once a second."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, f"Date: {formatdate(now, usegmt=True)}\r\n".encode())
        return self._date[1]

    def admit(self, connection: Connection) -> bool:
        """Register a new connection; False when there are too many and it is to be refused."""
        self._connections.add(connection)
        self._empty.clear()
        count = len(self._connections)
        if count > self.limits.connections + _REFUSALS:
            connection.abort()
        return count <= self.limits.connections and not self.stopping

    def forget(self, connection: Connection) -> None:
        """The connection is closed and its task has ended."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()


def _unix_socket(path: Path) -> socket.socket:
    """A bound socket, in the place of one that a server which is gone has left behind."""
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise FileExistsError(f"{path} is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise OSError(f"another server listens on {path}")
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    try:
        mask = os.umask(0o117)
        try:
            listening.bind(str(path))
        finally:
            os.umask(mask)
    except OSError:
        listening.close()
        raise
    return listening
