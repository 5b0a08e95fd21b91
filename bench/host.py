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
    with closing(ollamacore.Model.load(args.model, threads=args.threads)) as model:
        # read while the next step is under way
        seen = [streams[0].step_ns for _ in model.generate("Once upon a time", num_predict=args.tokens, seed=1)]
    times = [(began - ended, joined - began) for began, joined, ended in seen if ended < began < joined]
    between, beside = (statistics.median(column) / 1000 for column in zip(*times, strict=True))
    print(f"{len(times)} tokens: {between:.1f} us between two steps, {beside:.1f} us beside one (medians)")


if __name__ == "__main__":
    main()
