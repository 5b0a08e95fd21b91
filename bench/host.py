"""Host time per generated token: what scheduler, sampler, detokeniser and delivery add to the engine's step.

    python -m bench.host MODEL.gguf [--tokens 256] [--threads 2]

Default sampling options, one stream. `between` is the time between two steps, when no thread computes; `beside` is the
time that the calling thread spends on the last token while the other threads have begun the next step.
"""

import argparse
import statistics
from contextlib import closing
from pathlib import Path
from typing import Any

import ollamacore
from ollamacore import _core, scheduler


def main() -> None:
    """Measure and print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.host", description=__doc__, formatter_class=raw)
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    streams: list[_core.Stream] = []

    def kept(*parts: Any) -> _core.Stream:
        streams.append(_core.Stream(*parts))
        return streams[-1]

    scheduler.Stream = kept  # type: ignore[assignment, misc]
    times = []
    with closing(ollamacore.Model.load(args.model, threads=args.threads)) as model:
        for _ in model.generate("Once upon a time", num_predict=args.tokens, seed=1):
            times.append(streams[0].step_ns)  # while the next step is under way
    times = [(began, joined, ended) for began, joined, ended in times if ended < began < joined]
    print(
        f"{len(times)} tokens: {statistics.median(began - ended for began, _, ended in times) / 1000:.1f} us between steps,"
        f" {statistics.median(joined - began for began, joined, _ in times) / 1000:.1f} us beside them (medians)"
    )


if __name__ == "__main__":
    main()
