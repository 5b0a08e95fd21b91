"""How many prompt tokens share a step with running streams, so that these keep their pace.

A prompt token costs more the deeper it stands in its context, and steps differ between machines and models by orders of
magnitude: the size of a prompt's next chunk comes from the times of the steps before it. No result depends on it, as
no number depends on how a prompt is cut into chunks.
"""

#: a step with prompt tokens may take this many times as long as one of the streams alone, in the mean: the slowest of a
#: hundred take 1.6 to 1.8 times as long as that
SLOWDOWN = 1.9
#: prompt tokens of one step: a prompt always moves on, beside many streams by a token for every second of them (a step
#: reads all keys of the prompt, however few its tokens are), and full GEMM tiles need no more
LEAST, MOST = 1, 64
#: before anything was measured
FIRST = 16
#: weight of a new measurement in running means
_NEWEST = 0.1
#: a step without prompt tokens counts as at most so many times as slow as those before
_JUMP = 1.1


class Pace:
    """Step times of one engine. Used by its thread only."""

    def __init__(self) -> None:
        self._alone: dict[int, float] = {}  # streams -> seconds of a step without prompt tokens
        self._token = 0.0  # seconds that one prompt token adds

    def note(self, streams: int, prompt_tokens: int, seconds: float) -> None:
        """A step has taken so long. A pause of the machine counts little."""
        if not streams:
            return
        if not prompt_tokens:
            known = self._alone.get(streams, seconds)
            self._alone[streams] = known + _NEWEST * (min(seconds, _JUMP * known) - known)
            return
        alone = self._step(streams)
        if self._token:
            seconds = min(seconds, 2 * (alone + self._token * prompt_tokens))
        added = max(seconds - alone, 0.0) / prompt_tokens
        self._token = self._token + _NEWEST * (added - self._token) if self._token else added

    def know(self, streams: int, seconds: float) -> None:
        """So long a step without prompt tokens takes, by somebody's mean of many."""
        self._alone[streams] = seconds

    def prompt_tokens(self, streams: int) -> int:
        """Prompt tokens that the next step may compute beside the streams."""
        step = self._step(streams)
        if not step or not self._token:
            return FIRST
        tokens = int((SLOWDOWN - 1) * step / self._token)
        if tokens > 8:
            tokens -= tokens % 8
        return min(max(tokens, LEAST, streams // 2), MOST)

    def _step(self, streams: int) -> float:
        """Seconds of a step of so many streams alone: measured, or that of the nearest number that was."""
        if not self._alone:
            return 0.0
        nearest = min(self._alone, key=lambda known: abs(known - streams))
        return self._alone[nearest]
