"""Logits of tiny random models of every decoder architecture against transformers (tests/data/make_arch_goldens.py)."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import ollamacore
from ollamacore.arch import build_plan
from ollamacore.gguf import GGUFFile
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


def test_rope_bases_by_the_names_of_ollama_files_are_the_same_model(tmp_path):
    names = {"rope.freq_base": "rope.global.freq_base", "rope.freq_base_swa": "rope.local.freq_base"}
    base, local = 50000.0, 2000.0
    found = []
    for keys in (list(names), list(names.values())):
        file = GGUFFile.open(tiny_decoder(tmp_path / "m.gguf", "gemma3"))
        file.metadata = {key: value for key, value in file.metadata.items() if key != "gemma3.rope.freq_base"}
        file.metadata |= {f"gemma3.{key}": value for key, value in zip(keys, (base, local), strict=True)}
        found.append(build_plan(file).ropes)
    assert len(found[0]) == 2
    for (freq, mscale), (expected, other) in zip(*found, strict=True):
        np.testing.assert_array_equal(freq, expected)
        assert mscale == other


@pytest.mark.parametrize("name", ["granite", "gemma2", "cohere2", "gemma3"])
def test_layers_that_the_file_says_have_no_rope_or_window(tmp_path, name):
    """granite without rope at all; an array that says of each layer whether it has a window."""
    file = GGUFFile.open(tiny_decoder(tmp_path / "m.gguf", name))
    if name == "granite":
        file.metadata = {**file.metadata, "granite.rope.scaling.finetuned": False}
        assert not build_plan(file).ropes
        return
    pattern = np.array([False, True, True, False])
    file.metadata = {**file.metadata, f"{name}.attention.sliding_window_pattern": pattern}
    windows = [op["window"] for op in build_plan(file).ops if op["kind"] == "attention"]
    assert [window > 0 for window in windows] == pattern.tolist()
