"""llama.cpp's part of bench.quality; runs in the Python that has llama-cpp-python, gguf and numpy.

The request is JSON on standard input, the answer the last line of standard output.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.llama_embedder import LlamaCpp as Embedder
from tests.data.make_goldens import F16, Peer, exact_answers, peer_distances, write
from tests.generate.convert import convert_gguf
from tests.goldens import DATA, log_softmax

#: a token that shows which chat prompts a model knows -> their family in prompts.json
FAMILIES = {"<|im_start|>": "chatml", "<start_of_turn>": "gemma"}


def prompts_of(model: Path, longest: int) -> dict[str, str]:
    """The prompts that a model knows, of at most so many tokens."""
    peer = Peer(model, kv_type=F16, flash_attention=False, threads=1)
    stored = json.loads((DATA / "prompts.json").read_text())
    prompts = dict(stored["plain"])
    for token, family in FAMILIES.items():
        if len(peer.model.tokenize(token.encode(), add_bos=False, special=True)) == 1:
            prompts |= stored[family]
    return {name: text for name, text in prompts.items() if len(peer.tokenize(text)) <= longest}


def exact(model: Path, threads: int, folder: str, longest: int) -> None:
    """Write exact answers and llama.cpp's distances into a folder."""
    prompts = prompts_of(model, longest)
    with tempfile.TemporaryDirectory() as scratch:
        decoded = Path(scratch, "decoded.gguf")
        convert_gguf(model, decoded, "F32")
        answers = exact_answers(decoded, prompts, threads)
    distances = [peer_distances(model, answers, flash, threads) for flash in (False, True)]
    write(Path(folder), model.name, f"python -m bench.quality {model.name}", prompts, answers, *distances)


def perplexity(model: Path, threads: int, chunks: list[list[int]]) -> float:
    """e to the mean loss of the second halves of chunks."""
    peer = Peer(model, kv_type=F16, flash_attention=False, threads=threads)
    losses = []
    for tokens in chunks:
        half = len(tokens) // 2
        rows = peer.rows(tokens[:-1], half - 1)
        losses += [-log_softmax(row)[token] for row, token in zip(rows, tokens[half:], strict=True)]
    return float(np.exp(np.mean(losses)))


def embed(model: Path, threads: int, texts: list[list[int]]) -> list[list[float]]:
    """The vectors of tokenised texts, one by one."""
    embedder = Embedder(str(model), threads, 512)
    return [np.frombuffer(embedder.run([text])[0], np.float32).astype(float).tolist() for text in texts]


def main() -> None:
    """Answer the request."""
    request: dict[str, Any] = json.load(sys.stdin)
    operation, model = request.pop("op"), Path(request.pop("model"))
    answer = {"exact": exact, "perplexity": perplexity, "embed": embed}[operation](model, **request)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
