"""ollamacore as a worker of compare.py, through its public Model.

Without prompt lookup: it would speed up repetitive text and so flatter an engine's decoding.
"""

import time

import ollamacore
from bench.worker import serve


class Ours:
    """One ollamacore.Model, sampling greedily; times are wall clock around the public calls."""

    def __init__(self, path: str, threads: int, context: int):
        self.name = "ollamacore"
        self._model = ollamacore.Model.load(path, threads=threads, context=context, lookup=False)
        self.vocabulary = self._model.tokenizer.n_vocab

    def prefill(self, tokens: list[int]) -> tuple[float, int]:
        start = time.perf_counter()
        for _ in self._model.generate(tokens, temperature=0.0, num_predict=1):
            pass
        return time.perf_counter() - start, len(tokens)

    def decode(self, tokens: list[int], count: int) -> tuple[float, int]:
        """Time from the first chunk on, so without the prompt; fewer tokens if the model ends early."""
        generated, start = 0, 0.0
        for chunk in self._model.generate(tokens, temperature=0.0, num_predict=count + 1):
            if start == 0.0:
                start = time.perf_counter()
            else:
                generated += len(chunk.tokens)
        return time.perf_counter() - start, generated


if __name__ == "__main__":
    serve(Ours)
