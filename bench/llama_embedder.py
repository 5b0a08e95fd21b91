"""llama.cpp as a worker of compare_embed.py; runs in the Python that has llama-cpp-python.

Texts are packed into batches as ours packs them, sorted by length, with one sequence for each text. The C interface is
called directly: the binding's own loop would add its Python time to llama.cpp's.
"""

import ctypes
import time

import llama_cpp

from bench.worker import serve

#: what one batch may hold: LLAMA_MAX_SEQ sequences
MAX_SEQS = 256


class LlamaCpp:
    """An embedding model and context of llama.cpp."""

    def __init__(self, path: str, threads: int, batch: int):
        self.name = f"llama.cpp (llama-cpp-python {llama_cpp.__version__})"
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = batch
        params.n_seq_max = MAX_SEQS
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = True
        params.kv_unified = True
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self._width = llama_cpp.llama_model_n_embd(self._model)
        self._size = batch
        self._batch = llama_cpp.llama_batch_init(batch, 0, 1)

    def _tokens(self, text: str) -> list[int]:
        raw = text.encode()
        out = (llama_cpp.llama_token * (len(raw) + 8))()
        n = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), out, len(out), True, True)
        return out[:n]

    def run(self, texts: list[list[int]]) -> list[list[float]]:
        batch, at = self._batch, 0
        for number, tokens in enumerate(texts):
            for position, token in enumerate(tokens):
                batch.token[at], batch.pos[at], batch.logits[at] = token, position, 1
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, number
                at += 1
        batch.n_tokens = at
        if llama_cpp.llama_encode(self._context, batch) != 0:
            raise RuntimeError("llama_encode failed")
        rows = []
        for number in range(len(texts)):
            row = llama_cpp.llama_get_embeddings_seq(self._context, number)
            rows.append(ctypes.string_at(row, 4 * self._width))
        return rows

    def embed(self, texts: list[str]) -> tuple[float, int]:
        start = time.perf_counter()
        tokens = sorted(map(self._tokens, texts), key=len)
        group: list[list[int]] = []
        size = 0
        for ids in tokens:
            if group and (size + len(ids) > self._size or len(group) == MAX_SEQS):
                self.run(group)
                group, size = [], 0
            group.append(ids)
            size += len(ids)
        self.run(group)
        return time.perf_counter() - start, sum(map(len, tokens))


if __name__ == "__main__":
    serve(LlamaCpp)
