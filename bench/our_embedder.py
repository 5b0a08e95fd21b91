"""ollamacore as a worker of bench_embed.py, through its public Model."""

import time

import ollamacore
from bench.worker import serve


class Ours:
    """One embedding model; times are wall clock around the public call, with tokenisation."""

    def __init__(self, path: str, threads: int):
        self.name = "ollamacore"
        self._model = ollamacore.Model.load(path, threads=threads)
        self.vocabulary = self._model.n_vocab

    def embed(self, texts: list[str]) -> tuple[float, int]:
        start = time.perf_counter()
        found = self._model.embed(texts)
        return time.perf_counter() - start, sum(found.tokens)


if __name__ == "__main__":
    serve(Ours)
