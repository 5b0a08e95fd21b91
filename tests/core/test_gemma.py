"""Logits of tiny random models of Gemma 3n and Gemma 4 against transformers (tests/data/make_gemma_goldens.py)."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from ollamacore import InvalidFileError, Model, UnsupportedModelError
from tests.generate.gemmas import GEMMAS, KEPT, TOKENS, gemma_model, gemma_tensors
from tests.generate.tiny import noise

GOLDENS = Path(__file__).parents[1] / "data" / "gemma.npz"


TABLE = "per_layer_token_embd.weight"


def logits_of(path, **options):
    with closing(Model.load(path, context=128, threads=2, **options)) as model:
        return model.logits(TOKENS, last=KEPT)


@pytest.mark.parametrize("name", GEMMAS)
def test_logits_equal_transformers(tmp_path, name):
    path = gemma_model(tmp_path / "m.gguf", name)
    ours = logits_of(path, kv_type="f32")
    assert np.abs(ours - np.load(GOLDENS)[name]).max() < 1e-4


@pytest.mark.parametrize("name", GEMMAS)
def test_weights_in_the_file_give_the_same_bits(tmp_path, name):
    path = gemma_model(tmp_path / "m.gguf", name, "Q8_0")
    np.testing.assert_array_equal(logits_of(path, repack=False), logits_of(path, repack=True))


def test_quantised_matrices_are_read_everywhere(tmp_path):
    """Every matrix that a file may quantise has its input quantised: the result is near that of floats."""
    for name in GEMMAS:
        exact, ours = (logits_of(gemma_model(tmp_path / "m.gguf", name, kind)) for kind in ("F32", "Q8_0"))
        assert 0 < np.abs(ours - exact).mean() < 0.3  # of unrelated logits it is 1.7


def test_experts_in_one_tensor_equal_those_in_two(tmp_path):
    one, two = (
        gemma_model(tmp_path / f"{fused}.gguf", "gemma4-26b-a4b", fused_experts=fused) for fused in (True, False)
    )
    np.testing.assert_array_equal(logits_of(one), logits_of(two))


def test_table_of_inputs_takes_no_memory(tmp_path):
    """One of 15 MB beside weights of 4 MB, packed or not."""
    rows, width = gemma_tensors(GEMMAS["gemma4-e2b"])[TABLE].shape
    large = noise(1, "table", (rows * 50, width))
    small = gemma_model(tmp_path / "s.gguf", "gemma4-e2b")
    path = gemma_model(tmp_path / "l.gguf", "gemma4-e2b", tensors={TABLE: large})
    for repack in (True, False):
        needed = Model.memory_needed(path, context=128, repack=repack)
        assert needed == Model.memory_needed(small, context=128, repack=repack)
        with closing(Model.load(path, context=128, threads=2, memory=needed, repack=repack)) as model:
            assert model.reserved_bytes <= needed
    with closing(Model.load(path, context=128, threads=2, memory=needed)) as model:
        assert np.isfinite(model.logits(TOKENS)).all()


def test_tokens_that_the_table_lacks_have_its_first_row(tmp_path):
    table = gemma_tensors(GEMMAS["gemma3n"])[TABLE]
    cut, filled = table[:100].copy(), table.copy()
    filled[100:] = table[0]
    assert min(TOKENS) < 100 < max(TOKENS)
    paths = [
        gemma_model(tmp_path / f"{len(rows)}.gguf", "gemma3n", tensors={TABLE: rows}) for rows in (cut, filled)
    ]
    np.testing.assert_array_equal(*(logits_of(path) for path in paths))


def test_keys_of_other_layers_take_no_room(tmp_path):
    shared = gemma_model(tmp_path / "s.gguf", "gemma4-e2b")
    own = gemma_model(tmp_path / "o.gguf", "gemma4-e2b", n_shared=0, wide_ff=False)
    with closing(Model.load(shared, context=128)) as half, closing(Model.load(own, context=128)) as whole:
        half.logits(TOKENS)
        whole.logits(TOKENS)
        of = [model.memory_bytes - model.weight_bytes - model._engine.scratch_bytes for model in (half, whole)]
    assert of[1] == 2 * of[0]


@pytest.mark.parametrize(
    ("name", "changes", "error", "text"),
    [
        ("gemma3n", {"metadata": {"altup.active_idx": 1}}, UnsupportedModelError, "active stream"),
        ("gemma3n", {"metadata": {"altup.num_inputs": 3}}, InvalidFileError, "altup_proj.weight"),
        ("gemma3n", {"metadata": {"embedding_length_per_layer_input": 0}}, InvalidFileError, "per_layer_input"),
        ("gemma3n", {"sparsity": (0.5,)}, InvalidFileError, "activation_sparsity_scale"),
        ("gemma3n", {"tensors": {"blk.2.altup_correct_coef.weight": None}}, InvalidFileError, "blk.2.altup_correct"),
        ("gemma3n", {"tensors": {TABLE: None}}, InvalidFileError, TABLE),
        ("gemma4-e2b", {"tensors": {TABLE: np.zeros((9, 64), np.float32)}}, InvalidFileError, TABLE),
        ("gemma4-e2b", {"tensors": {"rope_freqs.weight": None}}, InvalidFileError, "rope_freqs.weight"),
        ("gemma4-e2b", {"metadata": {"attention.shared_kv_layers": 4}}, InvalidFileError, "layers from 2 on share"),
        ("gemma4-e2b", {"metadata": {"attention.shared_kv_layers": 6}}, InvalidFileError, "shared_kv_layers"),
        ("gemma4-31b", {"n_global_kv_head": 3}, InvalidFileError, "3 KV heads"),
        ("gemma4-31b", {"metadata": {"attention.value_length_swa": 16}}, UnsupportedModelError, "different length"),
        ("gemma4-31b", {"tensors": {"blk.0.attn_v.weight": np.zeros((64, 9), np.float32)}}, InvalidFileError, "attn_v"),
        ("gemma4-26b-a4b", {"metadata": {"expert_used_count": 9}}, InvalidFileError, "expert_used_count"),
        ("gemma4-26b-a4b", {"tensors": {"blk.1.ffn_down_exps.scale": None}}, InvalidFileError, "ffn_down_exps.scale"),
    ],
)  # fmt: skip
def test_file_that_does_not_fit_is_refused_by_name(tmp_path, name, changes, error, text):
    path = gemma_model(tmp_path / "m.gguf", name, **changes)
    with pytest.raises(error, match=text):
        Model.memory_needed(path)


def test_pattern_of_windows_may_be_a_period(tmp_path):
    listed = gemma_model(tmp_path / "l.gguf", "gemma4-31b")
    period = gemma_model(tmp_path / "p.gguf", "gemma4-31b", metadata={"attention.sliding_window_pattern": 2})
    np.testing.assert_array_equal(logits_of(period), logits_of(listed))
