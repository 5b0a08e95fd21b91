"""The process around one engine under comparison: a JSON request per line in, a JSON answer per line out.

load {path, threads, context, ...} -> {name, vocabulary}; prefill {tokens} and decode {tokens, count} ->
{seconds, tokens}. The process lives through all rounds, so that two engines alternate on warm weights.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol


class Engine(Protocol):
    """What a worker can be asked to time; both return (seconds, tokens)."""

    name: str
    vocabulary: int

    def prefill(self, tokens: list[int]) -> tuple[float, int]: ...

    def decode(self, tokens: list[int], count: int) -> tuple[float, int]: ...


def serve(load: Callable[..., Engine]) -> None:
    """Answer requests until standard input closes."""
    # What libraries print must not mix with the answers: they get stderr, the answers keep the old stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        operation = request.pop("op")
        if operation == "load":
            engine = load(**request)
            answer = {"name": engine.name, "vocabulary": engine.vocabulary}
        else:
            seconds, tokens = getattr(engine, operation)(**request)
            answer = {"seconds": seconds, "tokens": tokens}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
