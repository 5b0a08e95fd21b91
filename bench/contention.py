"""Decode speed beside busy processes on the same cores, of ollamacore and of llama.cpp.

    python -m bench.contention MODEL.gguf [--threads 2] [--busy 0 1 4] [--tokens 64] [--rounds 3]

Every round measures each engine beside each number of spinning processes, all on the same CPUs. Prints medians and the
share of the engine's own idle speed that is left.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.compare import ATTEMPTS, Worker, decode_speed, random_prompt
from bench.machine import results_file, stamp

#: spins until its parent is gone
SPIN = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(1000000): pass"
#: beside busy processes the first moments belong to the scheduler's search for balance
SETTLE_SECONDS = 0.2


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that spin for as long as the block lasts, on the CPUs of this process."""
    spinning = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        if count:
            time.sleep(SETTLE_SECONDS)
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def measure(workers: list[Worker], args: argparse.Namespace) -> dict[str, dict[int, list[float]]]:
    """Speeds by engine and number of busy processes, one per round."""
    rng = random.Random(args.seed)
    speeds: dict[str, dict[int, list[float]]] = {w.name: {count: [] for count in args.busy} for w in workers}
    prompts = [random_prompt(rng, workers[0].vocabulary, args.depth) for _ in range(ATTEMPTS)]
    for worker in workers:
        decode_speed(worker, prompts, args.tokens)
    for _ in range(args.rounds):
        prompts = [random_prompt(rng, workers[0].vocabulary, args.depth) for _ in range(ATTEMPTS)]
        for count in args.busy:
            for worker in workers:
                with busy_processes(count):
                    speeds[worker.name][count].append(decode_speed(worker, prompts, args.tokens))
    return speeds


def report(speeds: dict[str, dict[int, list[float]]]) -> dict[str, Any]:
    """Print the table; returns it."""
    table: dict[str, Any] = {}
    for name, by_count in speeds.items():
        idle = statistics.median(by_count[min(by_count)])
        table[name] = {}
        for count, values in by_count.items():
            median = statistics.median(values)
            table[name][count] = {"median": median, "share": median / idle, "rounds": values}
            spread = f"{min(values):.1f} .. {max(values):.1f}"
            print(f"{name:40} {count} busy {median:9.1f} tok/s {median / idle:6.0%}   ({spread})")
    return table


def arguments() -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.contention", description=__doc__, formatter_class=raw)
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 4], help="numbers of spinning processes")
    parser.add_argument("--tokens", type=int, default=64, help="generated per round")
    parser.add_argument("--depth", type=int, default=32, help="context tokens before decoding starts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="of the random prompts")
    parser.add_argument("--peer-python", default=os.environ.get("OLLAMACORE_PEER_PYTHON"))
    parser.add_argument("--only", choices=["ours", "llama.cpp"], help="measure one engine alone")
    parser.add_argument("--save", action="store_true", help="keep the figures under bench/results")
    return parser.parse_args()


def main() -> None:
    """Measure, print, and keep if asked to."""
    args = arguments()
    load = {"path": str(args.model.resolve()), "threads": args.threads, "context": 1024}
    workers = []
    if args.only != "llama.cpp":
        workers.append(Worker(sys.executable, "bench.our_worker", **load))
    if args.only != "ours":
        workers.append(Worker(args.peer_python, "bench.llama_worker", **load))
    table = report(measure(workers, args))
    for worker in workers:
        worker.close()
    if args.save:
        settings = {"model": args.model.name, "threads": args.threads, "tokens": args.tokens, "depth": args.depth}
        target = results_file(f"contention-{args.model.stem.lower()}-{args.threads}t")
        target.write_text(json.dumps({**settings, **stamp(), "decode": table}, indent=1) + "\n")
        print(target)


if __name__ == "__main__":
    main()
