"""Host time per generated token: what scheduler, sampler, detokeniser and delivery add to the engine's step.

    python -m bench.host MODEL.gguf [--tokens 256] [--threads 2]

Default sampling options, one stream. `between` is the time between two steps, when no thread computes; `beside` is the
time that the calling thread spends on the last token while the other threads have begun the next step.
"""

import argparse
import statistics
import time
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import ollamacore
from ollamacore import _core, scheduler


class TimedStream(_core.Stream):
    """A stream that notes what happens between its steps."""

    steps: ClassVar[list[int]] = []
    between: ClassVar[list[int]] = []
    beside: ClassVar[list[int]] = []

    def advance(self, most: int) -> list[int]:
        """One step, timed."""
        joined = time.monotonic_ns()
        began, ended_before = self.step_ns
        tokens = super().advance(most)
        if ended_before:
            self.steps.append(self.step_ns[1] - began)
            self.between.append(began - ended_before)
            self.beside.append(joined - began)
        return tokens


def main() -> None:
    """Measure and print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.host", description=__doc__, formatter_class=raw)
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    scheduler.Stream = TimedStream  # type: ignore[misc]
    with closing(ollamacore.Model.load(args.model, threads=args.threads)) as model:
        model.generate("Once upon a time", num_predict=args.tokens, seed=1).text()
    step, between, beside = (
        statistics.median(times) / 1000 for times in (TimedStream.steps, TimedStream.between, TimedStream.beside)
    )
    print(f"{len(TimedStream.steps)} steps of {step:.0f} us, host {between:.1f} us between, {beside:.1f} us beside (medians)")


if __name__ == "__main__":
    main()
