"""Hidden states of tiny random models of every encoder architecture, against transformers or float64 numpy.

tests/data/make_encoder_goldens.py made what transformers computes; tests/generate/encoders.py has the rest.
"""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import ollamacore
from tests.generate.encoders import (
    CONTEXT,
    ENCODERS,
    FIRST,
    IN_NUMPY,
    LAST,
    MEAN,
    RANK,
    TEXTS,
    hidden_states,
    single_logit,
    tiny_encoder,
)

GOLDENS = Path(__file__).parents[1] / "data" / "encoders.npz"
PLAIN = [name for name, model in ENCODERS.items() if model.head in ("", "projections")]


def vectors_of(path, texts, threads=2):
    with closing(ollamacore.Model.load(path, threads=threads)) as model:
        return model.embed(texts, normalize=False).vectors


def expected(name):
    """(texts, poolings, width)"""
    if name not in IN_NUMPY:
        return np.load(GOLDENS)[name]
    hidden = [hidden_states(name, text) for text in TEXTS]
    return np.stack([[x.mean(axis=0), x[0], x[-1]] for x in hidden])


@pytest.mark.parametrize("name", PLAIN)
def test_hidden_states_equal_the_reference(tmp_path, name):
    exact = expected(name)
    for place, pooling in enumerate((MEAN, FIRST, LAST)):
        found = vectors_of(tiny_encoder(tmp_path / "m.gguf", name, pooling=pooling), TEXTS)
        np.testing.assert_allclose(found, exact[:, place], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["jina-bert-v2-code", "nomic-bert-moe", "modern-bert", "gemma-embedding"])
@pytest.mark.parametrize("tensor_type", ["F32", "Q8_0"])
def test_bits_do_not_depend_on_threads_or_neighbours(tmp_path, name, tensor_type):
    path = tiny_encoder(tmp_path / "m.gguf", name, tensor_type=tensor_type)
    texts = [*TEXTS, *([5 + (i * n) % 340 for i in range(n)] for n in (1, 33, 90, 310))]
    together = vectors_of(path, texts)
    np.testing.assert_array_equal(vectors_of(path, texts, threads=1), together)
    with closing(ollamacore.Model.load(path, threads=2)) as model:
        for text, vector in zip(texts, together, strict=True):
            np.testing.assert_array_equal(model.embed([text], normalize=False).vectors[0], vector)


def test_no_text_is_longer_than_the_table_of_positions(tmp_path):
    path = tiny_encoder(tmp_path / "m.gguf", "xlm-roberta")
    key, size = b"bert.context_length\x04\0\0\0", (CONTEXT).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(key + size, key + (CONTEXT + 2).to_bytes(4, "little")))
    with closing(ollamacore.Model.load(path)) as model:
        assert (model.context_length, model.max_context) == (CONTEXT + 2, CONTEXT)
        assert model.embed([[5] * (CONTEXT + 1)]).tokens == (CONTEXT,)


@pytest.mark.parametrize("name", ["xlm-roberta-rank", "modern-bert-rank", "jina-bert-v2-rank"])
def test_scores_of_heads_equal_the_reference(tmp_path, name):
    path = tiny_encoder(tmp_path / "m.gguf", name, pooling=RANK)
    with closing(ollamacore.Model.load(path, threads=2)) as model:
        head = model._head
        found = model._embedder.embed(TEXTS, num_ctx=640, truncate=False, cancel=None, pooling=head.pooling)
        scores = [head.relevance(vector) for vector in found.vectors]
    logits = [single_logit(name, text) for text in TEXTS] if name in IN_NUMPY else np.load(GOLDENS)[name][:, 0]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-np.array(logits))), rtol=0, atol=1e-5)
