"""Host time per generated token: what scheduler, sampler, detokeniser and delivery add to the engine's step.

    python -m bench.host MODEL.gguf [--tokens 256] [--threads 2]

Default sampling options, one stream. The step is timed inside, the token outside; the difference is the host's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from array import array
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import ollamacore
from ollamacore import _core


class TimedEngine(_core.Engine):
    """An engine that notes when each step begins and ends."""

    times: ClassVar[list[tuple[int, int]]] = []

    def step(self, batch: list[tuple[_core.Sequence, array[int] | int, int]]) -> int:
        """One step, timed."""
        start = time.perf_counter_ns()
        status = super().step(batch)
        self.times.append((start, time.perf_counter_ns()))
        return status


def main() -> None:
    """Measure and print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.host", description=__doc__, formatter_class=raw)
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    _core.Engine = TimedEngine  # type: ignore[misc]
    with closing(ollamacore.Model.load(args.model, threads=args.threads)) as model:
        model.generate("Once upon a time", num_predict=args.tokens, seed=1).text()
    gaps = [
        (begin - end) / 1000 for (_, end), (begin, _) in zip(TimedEngine.times, TimedEngine.times[1:], strict=False)
    ]
    steps = [(end - begin) / 1000 for begin, end in TimedEngine.times[1:]]
    print(f"{len(gaps)} tokens: step {statistics.median(steps):.0f} us, host {statistics.median(gaps):.1f} us (median)")


if __name__ == "__main__":
    main()
