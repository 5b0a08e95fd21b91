"""How fast models load, and what they then take.

    python -m bench.bench_load [FORMAT or FILE ...] [--megabytes 512] [--save]

For every format a model of that many megabytes is generated (real shapes, random codes, sane scales) and loaded from
the page cache in a process of its own, several times. Printed are seconds per gigabyte (best and median), and the peak
of resident memory during a load and what stays after it, both above the process as it was before and per file size.
The process first touches and frees as much memory as a load takes: on a virtual machine the first touch of a page
that the host has not given yet costs ten times as much as that of any other, and says nothing about a load.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np

from bench.machine import results_file, stamp
from ollamacore import Model, _core

WIDTH, FEED_FORWARD, HEADS, KV_HEADS = 2048, 8192, 16, 4
VOCABULARY = 4096
LAYER = {
    "attn_q": (WIDTH, WIDTH), "attn_k": (KV_HEADS * 128, WIDTH), "attn_v": (KV_HEADS * 128, WIDTH),
    "attn_output": (WIDTH, WIDTH), "ffn_gate": (FEED_FORWARD, WIDTH), "ffn_up": (FEED_FORWARD, WIDTH),
    "ffn_down": (WIDTH, FEED_FORWARD),
}  # fmt: skip
#: bytes of a block that hold a half float, by format; the top byte of each must not be that of NaN or infinity
SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "TQ1_0": (52,), "TQ2_0": (64,), "IQ1_M": ()}
MINIMA = {"Q4_1", "Q5_1", "Q4_K", "Q5_K"}


def generate(path: Path, name: str, megabytes: int) -> None:
    """Write a llama model with matrices of one format and about that size."""
    kind = gguf.GGMLQuantizationType[name]
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    layer_bytes = sum(rows * k for rows, k in LAYER.values()) // block * block_bytes
    writer = gguf.GGUFWriter(path, "llama")
    n_layer = max(1, round(megabytes * 1e6 / layer_bytes))
    write_metadata(writer, n_layer)
    blob = random_blocks(name, block_bytes, FEED_FORWARD * WIDTH // block)
    shapes = {"token_embd": (VOCABULARY, WIDTH)}
    for layer in range(n_layer):
        shapes |= {f"blk.{layer}.{key}": shape for key, shape in LAYER.items()}
    for key, (rows, k) in shapes.items():
        data = blob[: rows * k // block].reshape(rows, -1)
        writer.add_tensor(f"{key}.weight", data, raw_shape=data.shape, raw_dtype=kind)
    norms = ["output_norm", *(f"blk.{i}.{n}_norm" for i in range(n_layer) for n in ("attn", "ffn"))]
    for key in norms:
        writer.add_tensor(f"{key}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_blocks(name: str, block_bytes: int, count: int) -> np.ndarray:
    """Blocks of random codes whose scales are small."""
    blocks = np.random.default_rng(1).integers(0, 256, (count, block_bytes), np.uint8)
    if name in ("F32", "F16", "BF16"):
        kinds = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
        zeros = np.zeros(count, kinds[name])
        return zeros.view(np.uint8).reshape(count, block_bytes)
    for at in SCALES.get(name, (0, 2) if name in MINIMA else (0,)):
        blocks[:, at : at + 2] = np.array([0.001], np.float16).view(np.uint8)
    return blocks


def write_metadata(writer: gguf.GGUFWriter, n_layer: int) -> None:
    """A llama with a vocabulary of numbers."""
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["a", "b", "ab", *(f"t{i}" for i in range(VOCABULARY - 3))])
    writer.add_token_types([1] * VOCABULARY)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)


def resident(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def measure(path: Path, rounds: int) -> dict[str, float]:
    """Load a file again and again in this process."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while file.read(1 << 22):
            pass
    Model.load(path, context=128, kv_bytes=1 << 26).close()  # warms the pool and the host's memory
    before, times, after = resident("VmRSS"), [], 0
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    for _ in range(rounds):
        start = time.perf_counter()
        model = Model.load(path, context=128, kv_bytes=1 << 26)
        times.append(time.perf_counter() - start)
        after = resident("VmRSS")
        model.close()
        del model  # and its vocabulary, before the next load
    gigabytes = size / 1e9
    return {
        "best": min(times) / gigabytes,
        "median": statistics.median(times) / gigabytes,
        "peak": (resident("VmHWM") - before) / size,
        "after": (after - before) / size,
    }


def keep(label: str, row: dict[str, float]) -> None:
    """Put the figures beside those of other files."""
    target = results_file("load")
    kept = json.loads(target.read_text()) if target.exists() else {}
    kept[label] = {**stamp(), **row}
    target.write_text(json.dumps(kept, indent=1) + "\n")


def main() -> None:
    """Generate, load, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.bench_load", description=__doc__)
    parser.add_argument("formats", nargs="*", help="GGUF type names, or paths of files (default: all formats)")
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="keep the figures under bench/results")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(Path(args.formats[0]), args.rounds)))
        return
    print(f"{'':24} s/GB best  median   resident: peak  after")
    for name in args.formats or [row[1] for row in _core.format_rows()]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(name)
            if not path.suffix:
                path = Path(folder, "model.gguf")
                generate(path, name, args.megabytes)
            command = [sys.executable, "-m", "bench.bench_load", str(path), "--one", "--rounds", str(args.rounds)]
            row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        label = Path(name).stem[:24]
        figures = f"{row['best']:9.3f} {row['median']:7.3f} {row['peak']:16.3f} {row['after']:6.3f}"
        print(f"{label:24} {figures}", flush=True)
        if args.save:
            keep(Path(name).stem.lower(), row)


if __name__ == "__main__":
    main()
