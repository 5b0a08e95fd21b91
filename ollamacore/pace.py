"""How many prompt tokens share a step with running streams, so that these keep their pace.

A prompt token costs more the deeper it stands in its context, and steps differ between machines and models by orders of
magnitude: the size of a prompt's next chunk comes from the times of the steps before it. No result depends on it, as
no number depends on how a prompt is cut into chunks.
"""

#: a step with prompt tokens may take this many times as long as one of the streams alone, in the mean: single steps
#: take longer
SLOWDOWN = 2.5
#: prompt tokens of one step: a prompt always moves on, and full GEMM tiles need no more
LEAST, MOST = 4, 64
#: before anything was measured
FIRST = 16
#: weight of the newest measurement
_NEWEST = 0.3


class Pace:
    """Step times of one engine. Used by its thread only."""

    def __init__(self) -> None:
        self._alone: dict[int, float] = {}  # streams -> seconds of a step without prompt tokens
        self._token = 0.0  # seconds that one prompt token adds

    def note(self, streams: int, prompt_tokens: int, seconds: float) -> None:
        """A step has taken so long."""
        if not streams:
            return
        if not prompt_tokens:
            known = self._alone.get(streams, seconds)
            self._alone[streams] = known + _NEWEST * (seconds - known)
            return
        added = max(seconds - self._step(streams), 0.0) / prompt_tokens
        self._token = self._token + _NEWEST * (added - self._token) if self._token else added

    def prompt_tokens(self, streams: int) -> int:
        """Prompt tokens that the next step may compute beside the streams."""
        step = self._step(streams)
        if not step or not self._token:
            return FIRST
        tokens = int((SLOWDOWN - 1) * step / self._token)
        if tokens > 8:
            tokens -= tokens % 8
        return min(max(tokens, LEAST), MOST)

    def _step(self, streams: int) -> float:
        """Seconds of a step of so many streams alone: measured, or that of the nearest number that was."""
        if not self._alone:
            return 0.0
        nearest = min(self._alone, key=lambda known: abs(known - streams))
        return self._alone[nearest]
