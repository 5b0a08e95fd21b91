"""A timer that is set and cleared with every request, and so must cost next to nothing."""

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls a function at a time that may be moved or taken back.

    One handle of the loop serves many settings: it is left alone while it would fire early enough, and when it
    fires too early it is made again for the rest.
    """

    __slots__ = ("_callback", "_handle", "_loop", "_time")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._callback: Callable[[], None] | None = None
        self._time = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def set(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call `callback` in so many seconds instead of what was set before."""
        self._callback = callback
        self._time = self._loop.time() + seconds
        if self._handle is not None and self._handle.when() > self._time:
            self._handle.cancel()
            self._handle = None
        if self._handle is None:
            self._handle = self._loop.call_later(seconds, self._fire)

    def clear(self) -> None:
        """Call nothing."""
        self._callback = None

    def close(self) -> None:
        """Call nothing any more, and let go of the loop."""
        self._callback = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        callback = self._callback
        if callback is None:
            return
        left = self._time - self._loop.time()
        if left > 0:
            self._handle = self._loop.call_later(left, self._fire)
            return
        self._callback = None
        callback()
