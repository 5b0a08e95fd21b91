"""What the server counts of its requests, for /metrics. Everything happens on the event loop, so nothing is locked."""

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

#: upper bounds in seconds: from an answer out of memory to a long prompt on a small machine
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
#: a client that left before its answer was complete
CLIENT_GONE = 499


@dataclass(slots=True)
class Histogram:
    """How many observations lie in each bucket, and their sum; the last bucket has no bound."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one more."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Metrics:
    """Requests since the server started. Routes are those of the path table, so the keys are few."""

    #: (route, method, status) -> from the request to the end of its answer
    requests: defaultdict[tuple[str, str, int], Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    #: route -> from the request to the first token of its answer
    first_tokens: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request has ended."""
        self.requests[route, method, status].observe(seconds)

    def first_token(self, route: str, seconds: float) -> None:
        """A model has begun to answer."""
        self.first_tokens[route].observe(seconds)
