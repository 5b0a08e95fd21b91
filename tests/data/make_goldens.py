"""Make tests/data/<model>/logits.{npz,json}: exact logits of real models, and llama.cpp's distance from them.

    python -m tests.data.make_goldens [--models DIR] [--threads 2] [NAME ...]

Runs from the repository root in an environment of its own with gguf, numpy and a natively built
llama-cpp-python (bench/README.md says how); no test runs it. The exact answer of a file is the file decoded
to F32 and computed by llama.cpp with an F32 KV cache and without flash attention. Each prompt of prompts.json
is taken at its last positions and followed along its exact greedy path. Then llama.cpp computes the file
itself at the same positions, with the binding's defaults (F16 KV cache, no flash attention), and once more
with flash attention.
"""

import argparse
import gc
import json
import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np

from tests.fetch import cache_folder
from tests.generate.convert import convert_gguf
from tests.goldens import COMPARED, DATA, TOP, differences, divergence, summarise

#: golden -> file in the model folder, format to convert it to first, family of the chat prompts
GOLDENS = {
    "smollm2-135m-q4_1": ("SmolLM2-135M-Instruct.Q4_1.gguf", None, "chatml"),
    "smollm2-135m-f16": ("SmolLM2-135M-Instruct.Q4_1.gguf", "F16", "chatml"),
    "smollm2-135m-bf16": ("SmolLM2-135M-Instruct.Q4_1.gguf", "BF16", "chatml"),
    "gemma3-270m-q4_k_m": ("gemma-3-270m-q4_k_m.gguf", None, "gemma"),
    "qwen2.5-coder-0.5b-q4_k_m": ("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", None, "chatml"),
}
#: positions inside each prompt with its end (fewer where it is shorter), and after it along the greedy path
INSIDE, AFTER = 12, 4
F32, F16 = 0, 1
#: room for the longest prompt, evaluated in one batch
CONTEXT = 1024


class Peer:
    """llama.cpp on one file."""

    def __init__(self, path, *, kv_type, flash_attention, threads):
        self.model = llama_cpp.Llama(
            str(path), n_ctx=CONTEXT, n_batch=CONTEXT, n_threads=threads, n_threads_batch=threads, verbose=False,
            type_k=kv_type, type_v=kv_type, flash_attn=flash_attention,
        )  # fmt: skip
        self.context = self.model._ctx.ctx

    def tokenize(self, text):
        return self.model.tokenize(text.encode(), add_bos=True, special=True)

    def _evaluate(self, start, tokens, outputs):
        """Append tokens at position start; the logits of the last ones."""
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index], batch.pos[index] = token, start + index
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
            batch.logits[index] = index >= len(tokens) - outputs
        status = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_batch_free(batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        for index in range(len(tokens) - outputs, len(tokens)):
            row = llama_cpp.llama_get_logits_ith(self.context, index)
            yield np.ctypeslib.as_array(row, shape=(self.model.n_vocab(),))

    def rows(self, tokens, first):
        """Logits at position first and at each later one; tokens may grow meanwhile."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        position = 0
        while position < len(tokens):
            new = tokens[position:]
            yield from self._evaluate(position, new, len(new) - max(0, first - position))
            position += len(new)


def exact_answers(path, prompts, threads):
    """For each prompt: its tokens with the exact greedy path, and what is kept of the last positions."""
    peer = Peer(path, kv_type=F32, flash_attention=False, threads=threads)
    answers = []
    for text in prompts.values():
        tokens, kept = peer.tokenize(text), []
        length = len(tokens)
        for logits in peer.rows(tokens, max(0, length - INSIDE)):
            kept.append(summarise(logits))
            position = max(0, length - INSIDE) + len(kept)
            if length <= position < length + AFTER:
                tokens.append(int(kept[-1].ids[0]))
        answers.append((tokens, kept))
    return answers


def peer_distances(path, answers, flash_attention, threads):
    """llama.cpp's divergence and mean difference at every kept position: two arrays."""
    peer = Peer(path, kv_type=F16, flash_attention=flash_attention, threads=threads)
    pairs = [
        (divergence(exact, logits), differences(exact, logits).mean())
        for tokens, kept in answers
        for exact, logits in zip(kept, peer.rows(tokens, len(tokens) - len(kept)), strict=True)
    ]
    return np.asarray(pairs, dtype=np.float32).T


def write(folder, model, command, prompts, answers, distances, with_flash):
    """Store one golden in a folder."""
    folder.mkdir(exist_ok=True)
    exact = [one for _, kept in answers for one in kept]
    np.savez_compressed(
        folder / "logits.npz",
        tokens=np.concatenate([tokens for tokens, _ in answers]).astype(np.int32),
        lengths=np.asarray([len(tokens) for tokens, _ in answers], dtype=np.int32),
        positions=np.asarray([len(kept) for _, kept in answers], dtype=np.int32),
        ids=np.asarray([one.ids for one in exact]),
        logprobs=np.asarray([one.logprobs for one in exact]),
        rest=np.asarray([one.rest for one in exact]),
        llama_cpp_kl=distances[0],
        llama_cpp_difference=distances[1],
    )
    report = {
        "model": model,
        "command": command,
        "top": TOP,
        "positions": len(exact),
        "compared": COMPARED,
        "llama_cpp": {
            "kl": float(distances[0].mean(dtype=np.float64)),
            "difference": float(distances[1].mean(dtype=np.float64)),
            "kl_with_flash_attention": float(with_flash[0].mean(dtype=np.float64)),
            "difference_with_flash_attention": float(with_flash[1].mean(dtype=np.float64)),
            "binding": f"llama-cpp-python {llama_cpp.__version__}",
            "system": llama_cpp.llama_print_system_info().decode().strip(" |"),
        },
        "prompts": list(prompts),
    }
    (folder / "logits.json").write_text(json.dumps(report, indent=1) + "\n")
    print(folder.name, json.dumps(report["llama_cpp"]), flush=True)


def make(name, models, threads):
    """Make one golden from the model folder."""
    file, kind, family = GOLDENS[name]
    stored = json.loads((DATA / "prompts.json").read_text())
    prompts = stored["plain"] | stored[family]
    with tempfile.TemporaryDirectory() as folder:
        source = models / file
        if kind is not None:
            source = Path(folder, f"{kind}.gguf")
            convert_gguf(models / file, source, kind)
        decoded = Path(folder, "decoded.gguf")
        convert_gguf(source, decoded, "F32")
        answers = exact_answers(decoded, prompts, threads)
        gc.collect()
        distances = peer_distances(source, answers, False, threads)
        with_flash = peer_distances(source, answers, True, threads)
    model = file if kind is None else f"{file} converted to {kind}"
    write(DATA / name, model, f"python -m tests.data.make_goldens {name}", prompts, answers, distances, with_flash)


def main():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(GOLDENS)} (default: all)")
    parser.add_argument("--models", type=Path, default=cache_folder(), help="folder with the GGUF files")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if unknown := set(args.names) - set(GOLDENS):
        sys.exit(f"unknown golden: {', '.join(sorted(unknown))}")
    for name in args.names or GOLDENS:
        make(name, args.models, args.threads)


if __name__ == "__main__":
    main()
