"""What an engine's thread has for the event loop, and the bell by which it wakes the loop.

`call_soon_threadsafe` wakes the loop while the engine's thread still holds the interpreter: the loop runs, waits for
that, and has to be woken once more. Where cores are busy the second waking often costs a time slice, and the token
comes with the next one. So the engine rings by itself when it has let go (`Model.load`).
"""

import asyncio
import os
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

_BATCH = 4096  # bytes of rings read at once


class Mailbox(Generic[T]):
    """Items on their way to queues of the event loop that runs when it is made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: deque[tuple[asyncio.Queue[T], T]] = deque()
        self._rings, self.bell = os.pipe()  # bell: write to it to have the items delivered
        os.set_blocking(self._rings, False)
        os.set_blocking(self.bell, False)
        self._loop.add_reader(self._rings, self._hear)

    def post(self, queue: asyncio.Queue[T], item: T) -> None:
        """From any thread: the item goes to the queue when the bell has rung."""
        self._items.append((queue, item))

    def close(self) -> None:
        """Deliver what is left. Nobody may write to the bell any more."""
        self._loop.remove_reader(self._rings)
        self._deliver()
        os.close(self._rings)
        os.close(self.bell)

    def _hear(self) -> None:
        os.read(self._rings, _BATCH)
        self._deliver()

    def _deliver(self) -> None:
        while self._items:
            queue, item = self._items.popleft()
            queue.put_nowait(item)
