"""An event loop whose clock does not wait: when nothing is left to do, it is the time of the next timer.

For code that computes nothing and waits for no thread. What it does then depends on no other process of the machine.
"""

import asyncio
import selectors


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout and 0)
        if timeout and not ready:
            self.now += timeout
        return ready


class ClockLoop(asyncio.SelectorEventLoop):
    """A loop with that clock."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._clock.now
