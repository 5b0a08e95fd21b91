"""Logits of tiny random models against a float64 computation of the same file."""

from contextlib import closing

import numpy as np
import pytest

import ollamacore
from tests.generate.numpy_reference import Reference, log_softmax
from tests.generate.tiny import SHAPES, tiny_model

#: longer than one step of prefill (256), so with every KV block and the sliding window crossed many times
TOKENS = [(7 * i * i + 3 * i + 5) % 380 + 3 for i in range(300)]
#: positions compared: more than one step gives at once
LAST = 40


def logits_and_exact(path, **options):
    """Our logits and the reference's, at the last positions of TOKENS."""
    with closing(ollamacore.Model.load(path, context=512, **options)) as model:
        ours = model.logits(TOKENS, last=LAST)
    return ours, Reference(path).logits(TOKENS)[-LAST:]


def divergence(ours, exact):
    """Kullback-Leibler divergence of our distributions from the exact ones, in the mean."""
    ours, exact = log_softmax(ours.astype(np.float64)), log_softmax(exact)
    return (np.exp(exact) * (exact - ours)).sum(axis=1).mean()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tensor_type", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("architecture", SHAPES)
def test_float_logits_equal_reference(tmp_path, architecture, tensor_type, threads):
    path = tiny_model(tmp_path / "m.gguf", architecture, tensor_type=tensor_type)
    ours, exact = logits_and_exact(path, threads=threads, kv_type="f32")
    assert ours.dtype == np.float32
    assert ours.shape == exact.shape
    assert np.abs(ours - exact).max() < 1e-3


#: sizes that are no whole numbers of the groups of 8 rows and blocks of 32 that kernels work on
ODD_SIZES = {
    "feed-forward": ("llama", {"n_ff": 172}),
    "width": ("llama", {"n_embd": 100}),
    "odd multiple of 32": ("llama", {"n_embd": 96, "n_ff": 160}),
    "heads of 10": ("llama", {"head_dim": 10, "n_head": 5, "n_kv_head": 5}),
    "all, with biases": ("qwen2", {"n_embd": 100, "n_head": 2, "n_kv_head": 1, "n_ff": 101, "n_vocab": 389}),
    "all, with more norms": ("gemma3", {"n_embd": 60, "head_dim": 20, "n_ff": 171}),
}


@pytest.mark.parametrize(
    ("case", "tensor_type"),
    [*((case, "F32") for case in ODD_SIZES), ("all, with biases", "F16"), ("all, with more norms", "BF16")],
)
def test_odd_sizes_equal_reference(tmp_path, case, tensor_type):
    architecture, changes = ODD_SIZES[case]
    if architecture == "qwen2":
        changes = changes | {"head_dim": changes["n_embd"] // changes["n_head"]}
    path = tiny_model(tmp_path / "m.gguf", architecture, tensor_type=tensor_type, **changes)
    ours, exact = logits_and_exact(path, threads=2, kv_type="f32")
    assert np.abs(ours - exact).max() < 1e-3


@pytest.mark.parametrize("architecture", SHAPES)
def test_half_kv_cache_costs_little(tmp_path, architecture):
    path = tiny_model(tmp_path / "m.gguf", architecture)
    ours, exact = logits_and_exact(path, threads=2, kv_type="f16")
    # Keys and values rounded to 11 bits move a logit, of standard deviation 3, by about 2 ** -11 of it and more.
    assert 0 < np.abs(ours - exact).max() < 0.05


@pytest.mark.parametrize("architecture", SHAPES)
def test_q8_0_kv_cache_costs_little(tmp_path, architecture):
    path = tiny_model(tmp_path / "m.gguf", architecture)
    ours, exact = logits_and_exact(path, threads=2, kv_type="q8_0")
    ours, exact = log_softmax(ours.astype(np.float64)), log_softmax(exact)
    assert 0 < (np.exp(exact) * (exact - ours)).sum(axis=1).mean() < 1e-2


@pytest.mark.parametrize("tensor_type", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4"])
@pytest.mark.parametrize("architecture", SHAPES)
def test_quantised_logits_near_dequantised_reference(tmp_path, architecture, tensor_type):
    path = tiny_model(tmp_path / "m.gguf", architecture, tensor_type=tensor_type)
    assert divergence(*logits_and_exact(path, threads=2)) < 1e-2


@pytest.mark.parametrize("float_matrix", ["blk.0.ffn_down", "blk.1.ffn_down", "blk.0.attn_output", "blk.1.attn_output"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_float_matrix_reads_what_other_layers_read_as_codes(tmp_path, float_matrix, threads):
    """Layers share buffers: one of them has floats in it that the other does not need."""
    path = tiny_model(
        tmp_path / "m.gguf", "llama", tensor_type="Q8_0", stays_float=lambda name: name.startswith(float_matrix)
    )
    assert divergence(*logits_and_exact(path, threads=threads)) < 1e-2


@pytest.mark.parametrize("tensor_type", ["TQ1_0", "TQ2_0"])
def test_formats_with_blocks_of_256_near_dequantised_reference(tmp_path, tensor_type):
    path = tiny_model(tmp_path / "m.gguf", "llama", tensor_type=tensor_type, n_embd=256, head_dim=64, n_ff=256)
    ours, exact = logits_and_exact(path, threads=2)
    ours, exact = log_softmax(ours.astype(np.float64)), log_softmax(exact)
    assert (np.exp(exact) * (exact - ours)).sum(axis=1).mean() < 1e-2


def test_logits_of_fewer_positions_are_the_last_rows(tmp_path):
    path = tiny_model(tmp_path / "m.gguf", "gemma3", tensor_type="Q4_0")
    with closing(ollamacore.Model.load(path, context=512, threads=2)) as model:
        many, one = model.logits(TOKENS, last=LAST), model.logits(TOKENS)
        np.testing.assert_array_equal(one, many[-1:])
        # Alone at a time or many at once, cached or not: the same bits.
        np.testing.assert_array_equal(model.logits(TOKENS, last=len(TOKENS))[-LAST:], many)
