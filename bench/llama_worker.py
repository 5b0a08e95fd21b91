"""llama.cpp as a worker of compare.py; runs in the Python that has llama-cpp-python.

The C interface is called directly: the binding's own loop would add its Python time to llama.cpp's.
"""

import ctypes
import time

import llama_cpp

from bench.worker import serve


class LlamaCpp:
    """One model and context of llama.cpp, sampling greedily in C."""

    def __init__(self, path: str, threads: int, context: int, flash_attention: bool = False):
        self.name = f"llama.cpp (llama-cpp-python {llama_cpp.__version__})"
        self._model = llama_cpp.Llama(
            path, n_ctx=context, n_threads=threads, n_threads_batch=threads, flash_attn=flash_attention,
            verbose=False,
        )
        self.vocabulary = self._model.n_vocab()
        self._context = self._model._ctx.ctx
        self._sampler = llama_cpp.llama_sampler_init_greedy()

        self._kept: list[int] = []

    def _forget(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        self._kept = []

    def _reuse(self, tokens: list[int]) -> list[int]:
        """Keep what the memory has in common with a prompt; returns the rest of the prompt, at least a token."""
        pairs = zip(self._kept, tokens[:-1], strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(self._kept), len(tokens) - 1))
        memory = llama_cpp.llama_get_memory(self._context)
        if not llama_cpp.llama_memory_seq_rm(memory, 0, same, -1):
            self._forget()
            same = 0
        self._kept = tokens
        return tokens[same:]

    def _evaluate(self, tokens: list[int]) -> int:
        """Append tokens and return the greedy next one."""
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        size = self._model.n_batch
        for start in range(0, len(tokens), size):
            part = ctypes.cast(ctypes.byref(array, start * 4), ctypes.POINTER(llama_cpp.llama_token))
            batch = llama_cpp.llama_batch_get_one(part, min(size, len(tokens) - start))
            if llama_cpp.llama_decode(self._context, batch) != 0:
                raise RuntimeError("llama_decode failed")
        return llama_cpp.llama_sampler_sample(self._sampler, self._context, -1)

    def prefill(self, tokens: list[int]) -> tuple[float, int]:
        self._forget()
        start = time.perf_counter()
        self._evaluate(tokens)
        return time.perf_counter() - start, len(tokens)

    def decode(self, tokens: list[int], count: int) -> tuple[float, int]:
        token = self._evaluate(self._reuse(tokens))
        start = time.perf_counter()
        for _ in range(count):
            token = self._evaluate([token])
        return time.perf_counter() - start, count


if __name__ == "__main__":
    serve(LlamaCpp)
