"""Logits of tiny random models of Gemma 3n and Gemma 4 against transformers (tests/data/make_gemma_goldens.py)."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import ollamacore
from tests.generate.gemmas import CONTEXT, GEMMAS, KEPT, TOKENS, gemma_model

GOLDENS = Path(__file__).parents[1] / "data" / "gemma.npz"


@pytest.mark.parametrize("name", GEMMAS)
def test_logits_equal_transformers(tmp_path, name):
    path = gemma_model(tmp_path / "m.gguf", name)
    with closing(ollamacore.Model.load(path, context=CONTEXT, threads=2, kv_type="f32")) as model:
        ours = model.logits(TOKENS, last=KEPT)
    assert np.abs(ours - np.load(GOLDENS)[name]).max() < 1e-4
