"""How far a model's answers are from the exact ones, in ollamacore and in llama.cpp, and their perplexities.

    python -m bench.quality MODEL.gguf [--threads 2] [--chunks 40] [--longest 70] [--save]

The exact answer is the file decoded to F32, computed by llama.cpp with an F32 cache. A generative model is measured by
the KL divergence and the mean difference of the ten best log-probabilities at the last positions of each prompt of
tests/data/prompts.json (from the kept answers of tests/data where they are of this file, else made anew), and by its
perplexity on the second halves of chunks of 512 tokens of bench/data/war-and-peace.txt. A BERT encoder with mean
pooling is measured by the sine of the angle between its vectors and those computed by numpy in float64, for llama.cpp's
GELU is the tanh form, tabulated, where the models have the one with the error function. llama.cpp is found as in
bench.compare; its Python needs gguf and numpy too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

import ollamacore
from bench.machine import ROOT, save
from tests.generate.bert import BertReference
from tests.goldens import DATA, Golden, differences, divergence, load_golden, log_softmax

TEXT = Path(__file__).parent / "data" / "war-and-peace.txt"
#: tokens of a chunk of text; its second half is scored
CHUNK = 512


def peer(args: argparse.Namespace, operation: str, **arguments: Any) -> Any:
    """What the peer's process answers to one request."""
    request = {"op": operation, "model": str(args.model.resolve()), "threads": args.threads, **arguments}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command, sent = [args.peer_python, "-m", "bench.llama_quality"], json.dumps(request)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, input=sent, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def kept_golden(file: str) -> Path | None:
    """The folder of tests/data with the exact answers of a file."""
    for report in DATA.glob("*/logits.json"):
        if json.loads(report.read_text())["model"] == file:
            return report.parent
    return None


def exact_answers(args: argparse.Namespace) -> tuple[Golden, dict[str, Any]]:
    """The exact answers of a model with llama.cpp's distances, kept or made now."""
    folder = args.golden or kept_golden(args.model.name)
    with tempfile.TemporaryDirectory() as scratch:
        if folder is None:
            folder = Path(scratch)
            peer(args, "exact", folder=str(folder), longest=args.longest)
        return load_golden(folder), json.loads((folder / "logits.json").read_text())


def distances(model: ollamacore.Model, golden: Golden) -> dict[str, float]:
    """Our mean distances from the exact answers."""
    found = []
    for case in golden.cases:
        rows = model.logits(case.tokens, last=len(case.exact))
        pairs = zip(case.exact, rows, strict=True)
        found += [(divergence(*pair), differences(*pair).mean()) for pair in pairs]
    kl, difference = np.mean(found, axis=0)
    return {"kl": float(kl), "difference": float(difference), "positions": len(found)}


def chunks_of(model: ollamacore.Model, count: int) -> list[list[int]]:
    """The text's tokens in chunks, each behind BOS where the model has it."""
    tokens = model.tokenize(TEXT.read_text(), add_special=False)
    start = model.tokenize("", add_special=True)[:1] if model.tokenizer.add_bos else []
    size = CHUNK - len(start)
    whole = range(0, len(tokens) - size + 1, size)
    return [start + tokens[at : at + size] for at in whole][:count]


def perplexity(model: ollamacore.Model, chunks: list[list[int]]) -> float:
    """e to the mean loss of the second halves."""
    losses = []
    for tokens in chunks:
        scored = tokens[CHUNK // 2 :]
        rows = model.logits(tokens[:-1], last=len(scored))
        losses += [-log_softmax(row)[token] for row, token in zip(rows, scored, strict=True)]
    return float(np.exp(np.mean(losses)))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Figures of a generative model."""
    golden, report = exact_answers(args)
    with closing(ollamacore.Model.load(args.model, threads=args.threads, context=1024, kv_type="f16")) as model:
        ours = distances(model, golden)
        chunks = chunks_of(model, args.chunks)
        ours["perplexity"] = perplexity(model, chunks)
    theirs = report["llama_cpp"] | {"perplexity": peer(args, "perplexity", chunks=chunks)}
    return {"prompts": len(golden.cases), "chunks": len(chunks), "ours": ours, "llama_cpp": theirs}


def measure_encoder(args: argparse.Namespace) -> dict[str, Any]:
    """Figures of an encoder: mean and largest sine of the angle to the exact vectors."""
    prompts = json.loads((DATA / "prompts.json").read_text())["plain"]
    with closing(ollamacore.Model.load(args.model, threads=args.threads)) as model:
        texts = [model.tokenize(text)[:args.longest] for text in prompts.values()]
        ours = model.embed(texts).vectors.astype(np.float64)
    reference = BertReference(args.model)
    exact = np.array([reference.hidden(text).mean(axis=0) for text in texts])
    theirs = np.array(peer(args, "embed", texts=texts))

    def angles(vectors: np.ndarray) -> dict[str, float]:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        known = exact / np.linalg.norm(exact, axis=1, keepdims=True)
        off = np.linalg.norm(unit - known * (unit * known).sum(axis=1, keepdims=True), axis=1)
        return {"angle": float(off.mean()), "largest": float(off.max())}

    return {"prompts": len(texts), "ours": angles(ours), "llama_cpp": angles(theirs)}


def arguments() -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__, formatter_class=raw)
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--chunks", type=int, default=40, help="of the text, for the perplexity")
    parser.add_argument("--longest", type=int, default=70, help="tokens of the prompts that are measured anew, at most")
    parser.add_argument("--golden", type=Path, help="a folder with exact answers, as tests.data.make_goldens writes it")
    parser.add_argument("--peer-python", default=os.environ.get("OLLAMACORE_PEER_PYTHON"))
    parser.add_argument("--save", action="store_true", help="keep the figures under bench/results")
    args = parser.parse_args()
    if not args.peer_python:
        parser.error("give --peer-python, or set OLLAMACORE_PEER_PYTHON")
    return args


def main() -> None:
    """Measure, print, and keep if asked to."""
    args = arguments()
    with ollamacore.GGUFFile.open(args.model) as file:
        is_encoder = f"{file.architecture}.pooling_type" in file.metadata
    figures = (measure_encoder if is_encoder else measure)(args)
    for engine in ("ours", "llama_cpp"):
        values = {key: value for key, value in figures[engine].items() if isinstance(value, float)}
        print(f"{engine:10} " + "  ".join(f"{key} {value:.6g}" for key, value in values.items()))
    worse = [key for key, value in figures["ours"].items() if value > _limit(key, figures["llama_cpp"].get(key))]
    print(f"no worse than llama.cpp: {'no, ' + ', '.join(worse) if worse else 'yes'} ({figures['prompts']} prompts)")
    if args.save:
        print(save(f"quality-{args.model.stem.lower()}", {"model": args.model.name, "threads": args.threads}, figures))
    sys.exit(bool(worse))


def _limit(key: str, theirs: Any) -> float:
    """The largest figure of ours that is no worse than llama.cpp's; perplexity may be 0.2 % above."""
    if not isinstance(theirs, float):
        return float("inf")
    return theirs * 1.002 if key == "perplexity" else theirs


if __name__ == "__main__":
    main()
