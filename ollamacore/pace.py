"""How much of a prompt shares a step with running streams, so that these keep their pace.

A prompt token costs more the deeper it stands in its context, and steps differ between machines and models by orders
of magnitude: what the next step may compute comes from the times of the steps before it. Where that is less than a
chunk of CHUNK tokens, a chunk takes several steps, some stages of the model in each: a few tokens at a time would read
all keys of the prompt for little work. No result depends on it, as no number depends on how a prompt is cut.
"""

#: a step with prompt tokens may take SLOWDOWN times as long as one of the streams alone, less PAUSE seconds, in the
#: mean. The slowest of a hundred take half as long again, by what others take of the cores now and then. The less it
#: is, the longer a prompt takes, and the more the streams, which grow meanwhile, take by themselves at its end
SLOWDOWN, PAUSE = 2.5, 0.0015
#: and for so many times as long in any case: steps may be shorter than pauses
SHORTEST = 2.0
#: prompt tokens of one step: a prompt always moves on, beside many streams by a token for every other of them. They
#: all grow meanwhile, and slower than that their growth takes what the prompt was to have; full GEMM tiles need no more
LEAST, MOST = 1, 64
#: tokens that go through the model together, where steps have room for fewer
CHUNK = 32
#: before anything was measured
FIRST = 16
#: weight of a new measurement in running means
_NEWEST = 0.1
#: what is known of steps without prompt tokens moves so far with each: to what half of them take
_MOVE = 1.01


class Pace:
    """Step times of one engine with so many stages. Used by its thread only."""

    def __init__(self, n_stages: int) -> None:
        self._n_stages = n_stages
        self._alone: dict[int, float] = {}  # streams -> seconds of a step without prompt tokens
        self._token = 0.0  # seconds that one prompt token adds
        self._memory = 0.0  # seconds that a step takes longer if it gets memory

    def note(self, streams: int, prompt_tokens: float, seconds: float, *, gets_memory: bool = False) -> None:
        """A step has taken so long; of tokens that went through some stages only, their part. A pause of the machine
        counts little.
        """
        if not streams:
            return
        if gets_memory:
            self._memory = max(seconds - self._step(streams) - self._token * prompt_tokens, 0.0)
            return
        if not prompt_tokens:
            known = self._alone.get(streams)
            self._alone[streams] = seconds if known is None else known * (_MOVE if seconds > known else 1 / _MOVE)
            return
        alone = self._step(streams)
        if self._token:
            seconds = min(seconds, 2 * (alone + self._token * prompt_tokens))
        added = max(seconds - alone, 0.0) / prompt_tokens
        self._token = self._token + _NEWEST * (added - self._token) if self._token else added

    def know(self, streams: int, seconds: float) -> None:
        """So long a step without prompt tokens takes, by somebody's measurement of many."""
        self._alone[streams] = seconds

    def chunk(self, room: float) -> int:
        """Tokens of a prompt's next chunk where steps have room for so many."""
        if room >= CHUNK:
            return int(room / 8) * 8
        return max(1, min(CHUNK, int(room * self._n_stages)))

    def stages(self, room: float, tokens: int) -> int:
        """Stages through which a chunk of so many tokens goes in a step: at least one, if there is any room."""
        return max(int(room > 0), min(self._n_stages, int(room * self._n_stages / tokens)))

    def room(self, streams: int, *, gets_memory: bool = False) -> float:
        """Prompt tokens for which the next step has room beside the streams; none, if getting memory needs it."""
        step, spent = self._step(streams), self._memory if gets_memory else 0.0
        if not step or not self._token:
            return FIRST
        longest, least = max(SLOWDOWN * step - PAUSE, SHORTEST * step), max(LEAST, streams / 2)
        room = (longest - step - spent) / self._token
        return 0.0 if spent and room < least else min(max(room, least), MOST)

    def _step(self, streams: int) -> float:
        """Seconds of a step of so many streams alone: measured, or that of the nearest number that was."""
        if not self._alone:
            return 0.0
        nearest = min(self._alone, key=lambda known: abs(known - streams))
        return self._alone[nearest]
