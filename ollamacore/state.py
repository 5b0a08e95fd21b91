"""What a model is doing and has done: counters that its engine thread keeps, and snapshots that any thread may take.

The engine thread alone writes the counters, as plain integers: a snapshot takes no lock, and its figures may be one
step apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ollamacore.session import DoneReason


@dataclass(slots=True)
class Counters:
    """Totals since the model was loaded."""

    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt tokens, those that the prefix cache had
    generated_tokens: int = 0
    context_shifts: int = 0
    parked: int = 0  # times that a generation gave its KV blocks back and was computed again
    finished: dict[DoneReason, int] = field(
        default_factory=lambda: {"stop": 0, "length": 0, "cancelled": 0, "error": 0}
    )


@dataclass(frozen=True, slots=True)
class ModelState:
    """One moment of a model. Idle, with nothing leaked, `kv_blocks_used` equals `kv_blocks_cached`."""

    running: int
    waiting: int
    kv_blocks: int
    kv_blocks_used: int
    kv_blocks_cached: int
    prefix_evictions: int
    steps: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    context_shifts: int
    parked: int
    finished: Mapping[DoneReason, int]
