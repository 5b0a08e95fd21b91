"""Mixtures of experts: logits of tiny random models against transformers, and against the dense model they equal."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import ollamacore
from tests.generate.moe import MOE_SHAPES, TOKENS, moe_model
from tests.generate.numpy_reference import log_softmax

GOLDENS = np.load(Path(__file__).parents[1] / "data" / "moe" / "logits.npz")


def logits_of(path, last, **options):
    with closing(ollamacore.Model.load(path, context=512, **options)) as model:
        return model.logits(TOKENS, last=last)


@pytest.mark.parametrize("architecture", MOE_SHAPES)
def test_float_logits_equal_transformers(tmp_path, architecture):
    path = moe_model(tmp_path / "m.gguf", architecture)
    golden = GOLDENS[architecture]
    ours = logits_of(path, len(golden), threads=2, kv_type="f32")
    assert np.abs(ours - golden).max() < 1e-4


@pytest.mark.parametrize("tensor_type", ["Q8_0", "Q4_0", "MXFP4"])
def test_quantised_logits_near_those_of_rounded_weights(tmp_path, tensor_type):
    exact = logits_of(moe_model(tmp_path / "f.gguf", "gpt-oss", through=tensor_type), 16, threads=2)
    path = moe_model(tmp_path / "q.gguf", "gpt-oss", tensor_type=tensor_type)
    packed = logits_of(path, 16, threads=2, repack=True)
    ours, exact = log_softmax(packed.astype(np.float64)), log_softmax(exact.astype(np.float64))
    assert (np.exp(exact) * (exact - ours)).sum(axis=1).mean() < 1e-2
    np.testing.assert_array_equal(logits_of(path, 16, threads=2, repack=False), packed)


def test_equal_experts_are_one_expert(tmp_path):
    """Weights of the chosen experts sum up to one, so a mixture of copies is what a single copy is."""
    many = moe_model(tmp_path / "m.gguf", "llama", equal_experts=True)
    one = moe_model(tmp_path / "d.gguf", "llama", is_dense=True)
    ours, dense = (logits_of(path, 8, threads=2, kv_type="f32") for path in (many, one))
    assert np.abs(ours - dense).max() < 1e-4


@pytest.mark.parametrize("tensor_type", ["F32", "Q4_0"])
def test_a_tensor_for_each_expert_is_the_same_model(tmp_path, tensor_type):
    old = moe_model(tmp_path / "o.gguf", "llama", is_old=True, tensor_type=tensor_type)
    expected = logits_of(moe_model(tmp_path / "m.gguf", "llama", tensor_type=tensor_type), 8, threads=2)
    np.testing.assert_array_equal(logits_of(old, 8, threads=2, repack=True), expected)
    np.testing.assert_array_equal(logits_of(old, 8, threads=2, repack=False), expected)


@pytest.mark.parametrize("is_old", [False, True], ids=["one tensor", "a tensor each"])
@pytest.mark.parametrize("tensor_type", ["F32", "F16"])
def test_experts_of_any_width_are_computed(tmp_path, tensor_type, is_old):
    """Rows of an expert that are no whole groups: 84, and 28, whose last group would be a whole block of codes."""
    for n_ff in (84, 28):
        kind = {"tensor_type": tensor_type, "n_ff": n_ff, "equal_experts": True}
        many = moe_model(tmp_path / "m.gguf", "llama", is_old=is_old, **kind)
        one = moe_model(tmp_path / "d.gguf", "llama", is_dense=True, **kind)
        ours, dense = (logits_of(path, 8, threads=2, kv_type="f32", repack=True) for path in (many, one))
        assert np.abs(ours - dense).max() < 1e-4
        np.testing.assert_array_equal(logits_of(many, 8, threads=1, kv_type="f32", repack=False), ours)


def test_experts_of_any_width_with_biases_equal_padded_ones(tmp_path):
    """Rows of zeros change nothing: a model whose experts have 84 rows is one with 4 rows more that are zero."""
    narrow = moe_model(tmp_path / "n.gguf", "gpt-oss", n_ff=84)
    wide = moe_model(tmp_path / "w.gguf", "gpt-oss", n_ff=84, n_ff_filled=88)
    ours, padded = (logits_of(path, 8, threads=2, kv_type="f32") for path in (narrow, wide))
    assert np.abs(ours - padded).max() < 1e-5


@pytest.mark.parametrize(("tensor_type", "n_ff"), [("Q8_0", 96), ("F32", 84)])
def test_gate_and_up_in_one_tensor_are_the_same_model(tmp_path, tensor_type, n_ff):
    kind = {"tensor_type": tensor_type, "n_ff": n_ff}
    fused = moe_model(tmp_path / "f.gguf", "qwen3moe", is_fused=True, **kind)
    expected = logits_of(moe_model(tmp_path / "m.gguf", "qwen3moe", **kind), 8, threads=2)
    for repack in (True, False):
        np.testing.assert_array_equal(logits_of(fused, 8, threads=2, repack=repack), expected)


def test_missing_tensor_of_one_expert_is_named(tmp_path):
    path = moe_model(tmp_path / "m.gguf", "llama", is_old=True)
    path.write_bytes(path.read_bytes().replace(b"blk.1.ffn_up.5.weight", b"blk.1.ffn_up.?.weight"))
    with pytest.raises(ollamacore.InvalidFileError, match=r"blk\.1\.ffn_up\.5\.weight"):
        logits_of(path, 1)


def test_too_many_used_experts_are_refused(tmp_path):
    with pytest.raises(ollamacore.InvalidFileError, match="9 of 8 experts"):
        logits_of(moe_model(tmp_path / "m.gguf", "qwen3moe", n_used=9), 1)


def test_misshapen_expert_tensor_is_named(tmp_path):
    with pytest.raises(ollamacore.InvalidFileError, match=r"blk\.0\.ffn_up_exps\.weight.*shape"):
        logits_of(moe_model(tmp_path / "m.gguf", "olmoe", n_ff_written=64), 1)
