"""Decode and prefill speed of ollamacore and of llama.cpp: same file, same threads, rounds that alternate.

    python -m bench.compare MODEL.gguf [--threads 2] [--prompt-tokens 512] [--tokens 64] [--rounds 5] [--context 4096]

Each engine lives in a process of its own through all rounds. Prints medians in tokens per second and ratios.
llama.cpp is found by `import llama_cpp` in --peer-python or $OLLAMACORE_PEER_PYTHON (bench/README.md).
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.machine import ROOT, save

#: decode requests that may end early (the model chose an end token) before the round is given up
ATTEMPTS = 5


class Worker:
    """One engine's process."""

    def __init__(self, python: str, module: str, **load: Any):
        command = [python, "-m", module]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        answer = self.ask("load", **load)
        self.name: str = answer["name"]
        self.vocabulary: int = answer["vocabulary"]

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """One request and its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"op": operation, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self._process.args} ended with status {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def random_prompt(rng: random.Random, vocabulary: int, length: int) -> list[int]:
    """Ordinary tokens in random order: never the same prefix twice, so that no cache can help."""
    return [rng.randrange(vocabulary // 64, vocabulary // 2) for _ in range(length)]


def prefill_speed(worker: Worker, prompt: list[int]) -> float:
    """Prompt tokens per second."""
    answer = worker.ask("prefill", tokens=prompt)
    return answer["tokens"] / answer["seconds"]


def decode_speed(worker: Worker, prompts: list[list[int]], count: int) -> float:
    """Generated tokens per second, for the first prompt that does not end the generation too early."""
    for prompt in prompts:
        answer = worker.ask("decode", tokens=prompt, count=count)
        if answer["tokens"] >= count / 2:
            return answer["tokens"] / answer["seconds"]
    sys.exit(f"{worker.name}: every generation ended early")


def measure_at(workers: list[Worker], args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Decode speeds with args.context tokens in the KV cache: they are the same in all rounds and stay there."""
    rng = random.Random(args.seed)
    vocabulary = workers[0].vocabulary
    kept = random_prompt(rng, vocabulary, args.context - args.tokens - 1)
    speeds: dict[str, dict[str, list[float]]] = {"decode": {worker.name: [] for worker in workers}}
    for number in range(args.rounds + 1):
        prompts = [kept + random_prompt(rng, vocabulary, 1) for _ in range(ATTEMPTS)]
        for worker in workers if number % 2 else reversed(workers):
            decode = decode_speed(worker, prompts, args.tokens)
            if number:
                speeds["decode"][worker.name].append(decode)
    return speeds


def measure(workers: list[Worker], args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Speeds by kind and engine, one per round; a first round is thrown away."""
    rng = random.Random(args.seed)
    vocabulary = workers[0].vocabulary
    speeds: dict[str, dict[str, list[float]]] = {
        kind: {worker.name: [] for worker in workers} for kind in ("prefill", "decode")
    }
    for number in range(args.rounds + 1):
        long = random_prompt(rng, vocabulary, args.prompt_tokens)
        short = [random_prompt(rng, vocabulary, args.depth) for _ in range(ATTEMPTS)]
        for worker in workers if number % 2 else reversed(workers):
            prefill = prefill_speed(worker, long)
            decode = decode_speed(worker, short, args.tokens)
            if number:
                speeds["prefill"][worker.name].append(prefill)
                speeds["decode"][worker.name].append(decode)
    return speeds


def report(speeds: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Print the table; returns it."""
    table: dict[str, Any] = {}
    for kind, engines in speeds.items():
        medians = {name: statistics.median(values) for name, values in engines.items()}
        table[kind] = {"median": medians, "rounds": engines}
        for name, values in engines.items():
            spread = f"{min(values):.1f} .. {max(values):.1f}"
            print(f"{kind:8} {name:40} {medians[name]:9.1f} tok/s   ({spread})")
        if len(medians) == 2:
            ours, theirs = medians.values()
            table[kind]["ratio"] = ours / theirs
            print(f"{kind:8} {'ratio, ours / llama.cpp':40} {ours / theirs:9.2f}")
    return table


def keep(table: dict[str, Any], args: argparse.Namespace) -> Path:
    """Keep the figures under bench/results."""
    settings = {
        "model": args.model.name,
        "threads": args.threads,
        "prompt_tokens": args.prompt_tokens,
        "tokens": args.tokens,
        "depth": args.depth,
        "context": args.context,
    }
    at = f"-{args.context}" if args.context else ""
    level = f"-{os.environ['OLLAMACORE_CPU']}" if os.environ.get("OLLAMACORE_CPU") else ""
    return save(f"{args.model.stem.lower()}-{args.threads}t{at}{level}", settings, table)


def arguments() -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__, formatter_class=raw)
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64, help="generated per round")
    parser.add_argument("--depth", type=int, default=32, help="context tokens before decoding starts")
    parser.add_argument("--context", type=int, help="measure only decoding, up to this many tokens of context")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1, help="of the random prompts")
    parser.add_argument("--peer-python", default=os.environ.get("OLLAMACORE_PEER_PYTHON"))
    parser.add_argument("--flash-attention", action="store_true", help="switch it on in llama.cpp")
    parser.add_argument("--only", choices=["ours", "llama.cpp"], help="measure one engine alone")
    parser.add_argument("--save", action="store_true", help="keep the figures under bench/results")
    args = parser.parse_args()
    if args.only != "ours" and not args.peer_python:
        parser.error("give --peer-python, or set OLLAMACORE_PEER_PYTHON, or measure with --only ours")
    return args


def main() -> None:
    """Measure, print, and keep if asked to."""
    args = arguments()
    context = (args.context or max(args.prompt_tokens, args.depth + args.tokens)) + 32
    load = {"path": str(args.model.resolve()), "threads": args.threads, "context": context}
    workers = []
    if args.only != "llama.cpp":
        workers.append(Worker(sys.executable, "bench.our_worker", **load))
    if args.only != "ours":
        flash = {"flash_attention": args.flash_attention}
        workers.append(Worker(args.peer_python, "bench.llama_worker", **load, **flash))
    table = report((measure_at if args.context else measure)(workers, args))
    for worker in workers:
        worker.close()
    if args.save:
        print(keep(table, args))


if __name__ == "__main__":
    main()
