"""Embedding throughput of ollamacore and of llama.cpp: same file, same threads, 256 short texts a call, in turn.

    python -m bench.compare_embed MODEL.gguf [--threads 2] [--texts 256] [--rounds 7] [--peer-batch 512]

Prints medians in texts per second and their ratio. llama.cpp is found as in bench.compare.
"""

import argparse
import os
import random
import statistics
import sys
from pathlib import Path

from bench.compare import Worker

WORDS = [
    "the", "sky", "is", "blue", "because", "light", "from", "sun", "scatters", "in", "air", "and",
    "short", "waves", "more", "than", "long", "ones", "how", "do", "I", "cook", "rice", "without", "it",
    "sticking", "what", "year", "did", "war", "end", "best", "way", "to", "learn", "python", "list",
    "comprehension", "cat", "sat", "on", "mat", "while", "rain", "fell", "over", "old", "town", "invoice",
    "total", "must", "be", "paid", "within", "thirty", "days", "where", "can", "my", "order", "been",
    "shipped", "yet",
]  # fmt: skip


def short_texts(rng: random.Random, count: int) -> list[str]:
    """Texts of 4 to 20 common words, never the same twice."""
    return [" ".join(rng.choices(WORDS, k=rng.randint(4, 20))) for _ in range(count)]


def arguments() -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare_embed", description=__doc__, formatter_class=raw
    )
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peer-batch", type=int, default=512, help="tokens of one llama.cpp batch")
    parser.add_argument("--peer-python", default=os.environ.get("OLLAMACORE_PEER_PYTHON"))
    args = parser.parse_args()
    if not args.peer_python:
        parser.error("give --peer-python, or set OLLAMACORE_PEER_PYTHON")
    return args


def main() -> None:
    """Measure and print; a first round is thrown away."""
    args = arguments()
    rng = random.Random(args.seed)
    load = {"path": str(args.model.resolve()), "threads": args.threads}
    workers = [
        Worker(sys.executable, "bench.our_embedder", **load),
        Worker(args.peer_python, "bench.llama_embedder", **load, batch=args.peer_batch),
    ]
    speeds: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for number in range(args.rounds + 1):
        texts = short_texts(rng, args.texts)
        for worker in workers if number % 2 else reversed(workers):
            answer = worker.ask("embed", texts=texts)
            if number:
                speeds[worker.name].append(args.texts / answer["seconds"])
    for worker in workers:
        worker.close()
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, values in speeds.items():
        print(f"{name:40} {medians[name]:9.1f} texts/s   ({min(values):.1f} .. {max(values):.1f})")
    ours, theirs = medians.values()
    print(f"{'ratio, ours / llama.cpp':40} {ours / theirs:9.2f}")


if __name__ == "__main__":
    main()
