"""Every weight format against llama.cpp: a generated model of each, decode and prefill, rounds that alternate.

    python -m bench.formats [--format Q4_0,Q4_K] [--threads 2] [--rounds 3] [--layers 6] [--save]

Options and figures are those of bench/compare.py. With --save the figures of the formats at hand replace those of
earlier runs in bench/results/<processor>-<cores>/formats-<isa>.json.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.compare import Worker, measure
from bench.generate import write_model
from bench.machine import results_file, stamp
from ollamacore import _core

FORMATS = [row[1] for row in _core.format_rows()]


def compare(name: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Both engines on one format: medians in tokens per second, and their ratios."""
    model = write_model(folder / f"{name}.gguf", layers=args.layers, tensor_type=name)
    load = {"path": str(model), "threads": args.threads, "context": args.prompt_tokens + args.tokens + 64}
    workers = [
        Worker(sys.executable, "bench.our_worker", **load),
        Worker(args.peer_python, "bench.llama_worker", **load),
    ]
    speeds = measure(workers, args)
    for worker in workers:
        worker.close()
    figures: dict[str, Any] = {}
    for kind, engines in speeds.items():
        ours, theirs = (statistics.median(values) for values in engines.values())
        figures[kind] = {"ours": ours, "llama.cpp": theirs, "ratio": ours / theirs}
    model.unlink()
    return figures


def save(figures: dict[str, Any]) -> None:
    """Put the figures beside those of other formats."""
    target = results_file(f"formats-{os.environ.get('OLLAMACORE_CPU', 'best')}")
    kept = json.loads(target.read_text()) if target.exists() else {}
    for name, found in figures.items():
        kept[name] = {**stamp(), **found}
    target.write_text(json.dumps(kept, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.formats", description=__doc__, formatter_class=raw)
    parser.add_argument("--format", default=",".join(FORMATS), help="comma-separated")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peer-python", default=os.environ.get("OLLAMACORE_PEER_PYTHON"))
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    if not args.peer_python:
        parser.error("give --peer-python, or set OLLAMACORE_PEER_PYTHON")
    return args


def main() -> None:
    """Measure one format after the other."""
    args = arguments()
    print(f"{'format':8} {'decode':>8} {'peer':>7} {'ratio':>6} {'prefill':>8} {'peer':>7} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.format.split(","):
            figures = compare(name, Path(folder), args)
            columns = (f"{f['ours']:8.1f} {f['llama.cpp']:7.1f} {f['ratio']:6.2f}" for f in figures.values())
            print(f"{name:8}", *reversed(list(columns)), flush=True)
            if args.save:
                save({name: figures})


if __name__ == "__main__":
    main()
