"""Latent attention and DeepSeek's routing: tiny random models against transformers, and both forms of their files."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import ollamacore
from ollamacore import _core
from ollamacore.arch import build_plan
from ollamacore.gguf import GGUFFile
from tests.generate.deepseek import DEEPSEEK_SHAPES, deepseek_model
from tests.generate.moe import TOKENS
from tests.generate.numpy_reference import log_softmax

GOLDENS = np.load(Path(__file__).parents[1] / "data" / "deepseek.npz")


def logits_of(path, last, **options):
    with closing(ollamacore.Model.load(path, context=512, threads=2, **options)) as model:
        return model.logits(TOKENS, last=last)


def divergence(exact, ours):
    """Mean KL divergence."""
    exact, ours = log_softmax(exact.astype(np.float64)), log_softmax(ours.astype(np.float64))
    return (np.exp(exact) * (exact - ours)).sum(axis=1).mean()


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("name", DEEPSEEK_SHAPES)
def test_float_logits_equal_transformers(tmp_path, name, is_old):
    path = deepseek_model(tmp_path / "m.gguf", name, is_old=is_old)
    golden = GOLDENS[name]
    assert np.abs(logits_of(path, len(golden), kv_type="f32") - golden).max() < 1e-4


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("name", ["v2", "moonlight"])
def test_quantised_logits_near_those_of_rounded_weights(tmp_path, name, is_old):
    dense = {"n_dense": 3}  # a token that goes to another expert is far away
    exact = logits_of(deepseek_model(tmp_path / "f.gguf", name, is_old=True, through="Q8_0", **dense), 16)
    path = deepseek_model(tmp_path / "q.gguf", name, is_old=is_old, tensor_type="Q8_0", **dense)
    packed = logits_of(path, 16, repack=True)
    assert divergence(exact, packed) < 3e-3
    np.testing.assert_array_equal(logits_of(path, 16, repack=False), packed)


def test_packed_copy_holds_matrices_that_are_made_of_tensors(tmp_path):
    path = deepseek_model(tmp_path / "m.gguf", "v2", is_old=True, tensor_type="Q8_0")
    first, second = (logits_of(path, 4, packed_cache=tmp_path / "packed") for _ in range(2))
    assert list((tmp_path / "packed").iterdir())
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, logits_of(path, 4))


@pytest.mark.parametrize(("kv_type", "limit"), [("f16", 1e-5), ("q8_0", 1e-3)])
def test_small_caches_are_near_the_exact_one(tmp_path, kv_type, limit):
    path = deepseek_model(tmp_path / "m.gguf", "moonlight", n_dense=3)
    assert divergence(logits_of(path, 64, kv_type="f32"), logits_of(path, 64, kv_type=kv_type)) < limit


def test_cache_holds_a_latent_and_a_key_for_all_heads(tmp_path):
    shape = DEEPSEEK_SHAPES["v3"]
    kv = build_plan(GGUFFile.open(deepseek_model(tmp_path / "m.gguf", "v3", is_old=True))).kv
    size = _core.kv_block_bytes(kv, "f16")
    assert size == 32 * shape.n_layer * (shape.latent + shape.turned) * 2


def test_answer_from_a_cached_prefix_is_the_same(tmp_path):
    path = deepseek_model(tmp_path / "m.gguf", "v3", tensor_type="Q8_0")
    with closing(ollamacore.Model.load(path, context=512, threads=2, kv_type="q8_0")) as model:
        first, second = (model.generate(TOKENS[:100], num_predict=8, seed=1).text() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("tensor", ["attn_k_b", "attn_v_b", "attn_kv_a_mqa", "attn_kv_a_norm"])
def test_missing_tensor_is_named(tmp_path, tensor):
    path = deepseek_model(tmp_path / "m.gguf", "v3")
    content = path.read_bytes()
    path.write_bytes(content.replace(tensor.encode(), tensor[:-1].encode() + b"?"))
    with pytest.raises(ollamacore.InvalidFileError, match=rf"blk\.0\.{tensor}"):
        logits_of(path, 1)


def test_misshapen_tensor_is_named(tmp_path):
    path = deepseek_model(tmp_path / "m.gguf", "v3", is_old=True)
    content = path.read_bytes()
    at = content.index(b"attention.value_length") + len("attention.value_length") + 4
    path.write_bytes(content[:at] + (24).to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(ollamacore.InvalidFileError, match=r"blk\.0\.attn_kv_b\.weight.*shape"):
        logits_of(path, 1)
