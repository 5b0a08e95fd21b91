"""How far every matmul kernel is from this machine's limits: a table of GB/s, their share of a read sweep, MAC/cycle.

    python -m bench.kernels [--isa AVX2] [--format Q4_0,Q4_K] [--rounds 3] [--save]

cache   one column times 1 MB of weights, which stay in the second-level cache: GB/s, and bytes a cycle
1t, 2t  one column times weights that no cache holds (--megabytes), by one and by two threads: GB/s, and their
        share of what a plain read of the same bytes by the same threads reaches, round by round; medians
n=...   weights in the second-level cache times n columns: multiply-adds per cycle and core
Cycles are those of a chain of additions timed right after each kernel, so a changing clock does not matter.
"""

import argparse
import ctypes
import json
import mmap
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import results_file, stamp
from ollamacore import _core

FORMATS = {row[0]: row[1:] for row in _core.format_rows()}
K = 2048
CACHE = 1 << 20
COLUMNS = (2, 4, 8, 32, 128)
#: bytes that a sweep asks for in advance; whatever is fastest here is the machine's figure
AHEAD = (0, 2048, 4096, 8192)
#: additions of one calibration of the clock: a third of a millisecond
CHAIN = 1 << 20
#: does the share [begin, end) of some bytes, begin and end in 0 .. 1, and tells how many that was
Work = Callable[[float, float], int]


def load_sweep() -> ctypes.CDLL:
    """sweep.c, compiled for this processor."""
    source = Path(__file__).with_name("sweep.c")
    with tempfile.TemporaryDirectory() as folder:
        library = str(Path(folder) / "sweep.so")
        subprocess.run(["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source], check=True)
        loaded = ctypes.CDLL(library)
    loaded.read_sweep.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    loaded.read_sweep.restype = ctypes.c_int64
    loaded.add_chain.argtypes = [ctypes.c_uint64]
    loaded.add_chain.restype = ctypes.c_uint64
    return loaded


def timed(function: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


class Bench:
    """The weights and activations that all measurements share."""

    def __init__(self, megabytes: int, rounds: int):
        self.rounds = rounds
        self._sweep = load_sweep()
        self._pool = ThreadPoolExecutor(2)
        self._memory = mmap.mmap(-1, megabytes << 20)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        # The same small number in every byte is a normal float in every format: no denormals, no NaN.
        self.weights = np.frombuffer(self._memory, np.uint8)
        self.weights[:] = 0x11
        self._ahead = AHEAD[0]
        self._ahead = max(AHEAD, key=lambda ahead: self._rate(2, partial(self._read, ahead=ahead)))

    def _read(self, begin: float, end: float, ahead: int | None = None) -> int:
        """Read a share of the weights and do nothing with them."""
        first, last = (int(len(self.weights) * at) // 4096 * 4096 for at in (begin, end))
        ahead = self._ahead if ahead is None else ahead
        self._sweep.read_sweep(self.weights.ctypes.data + first, last - first, ahead)
        return last - first

    def _rate(self, threads: int, work: Work) -> float:
        """GB/s of threads that each do their share of the work."""
        start = time.perf_counter()
        shares = [self._pool.submit(work, i / threads, (i + 1) / threads) for i in range(threads)]
        done = sum(share.result() for share in shares)
        return done / (time.perf_counter() - start) / 1e9

    def _cycle(self) -> float:
        """Seconds of one cycle."""
        return timed(lambda: self._sweep.add_chain(CHAIN)) / CHAIN

    def _matmul(self, index: int, gguf_type: int, size: int, columns: int, repeat: int) -> tuple[Work, int, int]:
        """A function that multiplies a share of about `size` bytes of weights, `repeat` times; the bytes and rows of that."""
        _, block, _, group_bytes, _ = FORMATS[gguf_type]
        group = K // block * group_bytes
        groups = size // group
        rng = np.random.default_rng(0)
        x = rng.standard_normal(columns * K).astype(np.float32)
        codes = rng.integers(-127, 127, columns * K, dtype=np.int8, endpoint=True)
        scale, total = np.full(columns * K // 16, 0.01, np.float32), np.full(columns * K // 32, 0.1, np.float32)
        y = np.zeros(columns * 8 * groups, np.float32)

        def work(begin: float, end: float) -> int:
            first, last = int(groups * begin), int(groups * end)
            activations = (x, codes, scale, total, columns, K)
            _core.run_matmul(index, self.weights, *activations, y, 8 * groups, first, last, repeat)
            return (last - first) * group * repeat

        return work, groups * group * repeat, 8 * groups * repeat

    def from_memory(self, index: int, gguf_type: int, threads: int) -> dict[str, float]:
        """GB/s of one column, and the share of the sweep."""
        work, _, _ = self._matmul(index, gguf_type, len(self.weights), 1, 1)
        pairs = [(self._rate(threads, work), self._rate(threads, self._read)) for _ in range(self.rounds)]
        share = statistics.median(rate / sweep for rate, sweep in pairs)
        rates, sweeps = (statistics.median(values) for values in zip(*pairs, strict=True))
        return {"GB/s": rates, "sweep GB/s": sweeps, "share": share}

    def in_cache(self, index: int, gguf_type: int, columns: int) -> dict[str, float]:
        """GB/s, bytes and multiply-adds per cycle of one thread; the best of several runs."""
        share, repeat = (1, 32) if columns == 1 else (4, max(1, 64 // columns))
        work, size, rows = self._matmul(index, gguf_type, CACHE // share, columns, repeat)
        pairs = [(timed(lambda: work(0, 1)), self._cycle()) for _ in range(3 + 4 * self.rounds)]
        seconds, cycle = (min(times) for times in zip(*pairs, strict=True))
        cycles = seconds / cycle
        return {"GB/s": size / seconds / 1e9, "B/cycle": size / cycles, "MAC/cycle": rows * K * columns / cycles}

    def row(self, index: int, gguf_type: int) -> dict[str, Any]:
        """Everything about one row of kernels.def."""
        memory = {f"{threads}t": self.from_memory(index, gguf_type, threads) for threads in (1, 2)}
        cache = {f"n={n}": self.in_cache(index, gguf_type, n) for n in (1, *COLUMNS)}
        return {**memory, **cache}

    def sweep(self, threads: int) -> float:
        """GB/s of a plain read, the best of several."""
        return max(self._rate(threads, self._read) for _ in range(2 + self.rounds))

    def clock(self) -> float:
        """GHz."""
        return 1e-9 / min(self._cycle() for _ in range(9))


def header() -> str:
    """The first line of the table."""
    columns = "".join(f"{f'n={n}':>7}" for n in COLUMNS)
    return f"{'format':8} {'isa':11} {'cache':>6} {'B/cyc':>6} {'1t':>6} {'':>4} {'2t':>6} {'':>4} {columns}"


def line(name: str, isa: str, figures: dict[str, Any]) -> str:
    """One kernel's line of the table."""
    cache = figures["n=1"]
    memory = " ".join(f"{figures[t]['GB/s']:6.1f} {figures[t]['share']:4.0%}" for t in ("1t", "2t"))
    columns = "".join(f"{figures[f'n={n}']['MAC/cycle']:7.1f}" for n in COLUMNS)
    return f"{name:8} {isa:11} {cache['GB/s']:6.1f} {cache['B/cycle']:6.1f} {memory} {columns}"


def main() -> None:
    """Measure the rows that were asked for."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description=__doc__, formatter_class=raw)
    parser.add_argument("--isa", help="rows of these levels alone, comma-separated")
    parser.add_argument("--format", help="rows of these formats alone, comma-separated")
    parser.add_argument("--megabytes", type=int, default=640, help="weights of 1t and 2t: more than the caches hold")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="keep the figures under bench/results")
    args = parser.parse_args()
    bench = Bench(args.megabytes, args.rounds)
    table: dict[str, dict[str, Any]] = {}
    print(f"{bench.clock():.2f} GHz, read sweep {bench.sweep(1):.1f} GB/s (1 thread) {bench.sweep(2):.1f} GB/s (2)")
    print(header())
    for index, (op, name, _, gguf_type, isa, runs) in enumerate(_core.kernel_rows()):
        if op != "matmul" or not runs or (isa == "generic" and not args.isa):
            continue
        if (args.isa and isa not in args.isa.split(",")) or (args.format and name not in args.format.split(",")):
            continue
        table.setdefault(name, {})[isa] = bench.row(index, gguf_type)
        print(line(name, isa, table[name][isa]), flush=True)
    if args.save:
        settings = {**stamp(), "megabytes": args.megabytes, "rounds": args.rounds, "GHz": bench.clock()}
        results_file("kernels").write_text(json.dumps({**settings, "kernels": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
