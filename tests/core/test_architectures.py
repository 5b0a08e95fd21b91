"""Logits of tiny random models of every decoder architecture against transformers (tests/data/make_arch_goldens.py)."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import ollamacore
from tests.generate.decoders import CONTEXT, DECODERS, KEPT, TOKENS, tiny_decoder

GOLDENS = Path(__file__).parents[1] / "data" / "architectures.npz"


@pytest.mark.parametrize("name", DECODERS)
def test_logits_equal_transformers(tmp_path, name):
    path = tiny_decoder(tmp_path / "m.gguf", name)
    with closing(ollamacore.Model.load(path, context=CONTEXT, threads=2, kv_type="f32")) as model:
        ours = model.logits(TOKENS, last=KEPT)
    assert np.abs(ours - np.load(GOLDENS)[name]).max() < 1e-4


@pytest.mark.parametrize("name", ["olmo2", "phi3", "falcon-40b", "cohere2"])
@pytest.mark.parametrize("tensor_type", ["F32", "Q8_0"])
def test_bits_do_not_depend_on_threads_or_neighbours(tmp_path, name, tensor_type):
    path = tiny_decoder(tmp_path / "m.gguf", name, tensor_type)
    with closing(ollamacore.Model.load(path, context=CONTEXT, threads=1)) as model:
        whole = model.logits(TOKENS, last=len(TOKENS))
    with closing(ollamacore.Model.load(path, context=CONTEXT, threads=2)) as model:
        np.testing.assert_array_equal(model.logits(TOKENS), whole[-1:])
        np.testing.assert_array_equal(model.logits(TOKENS[:1]), whole[:1])


def test_longrope_context_follows_the_factors_in_use(tmp_path):
    path = tiny_decoder(tmp_path / "m.gguf", "phi3-longrope")
    with (
        closing(ollamacore.Model.load(path, context=32)) as short,
        closing(ollamacore.Model.load(path, context=33)) as long,
    ):
        assert (short.max_context, long.max_context) == (32, CONTEXT)
        assert not np.array_equal(short.logits(TOKENS[:20]), long.logits(TOKENS[:20]))
