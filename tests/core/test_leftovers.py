"""Tensors and numbers of a file that no plan reads: refused by name, but for those of something else."""

import numpy as np
import pytest

from ollamacore.arch import build_plan
from ollamacore.errors import UnsupportedModelError
from ollamacore.gguf import GGUFFile
from tests.generate.decoders import CONTEXT, tiny_decoder


@pytest.fixture
def opened(tmp_path):
    """Opens a tiny model as if its file had further tensors and other metadata."""

    def opened(name="llama", *tensors, **metadata):
        file = GGUFFile.open(tiny_decoder(tmp_path / "m.gguf", name))
        norm = file.tensors["output_norm.weight"]
        file.tensors = {**file.tensors, **{name: norm._replace(name=name) for name in tensors}}
        changed = {f"{file.architecture}.{key.replace('__', '.')}": value for key, value in metadata.items()}
        file.metadata = {**file.metadata, **changed}
        return file

    return opened


@pytest.mark.parametrize("name", ["blk.0.attn_sub_norm.weight", "blk.1.attn_q.scale", "blk.9.attn_q.weight", "x"])
def test_tensor_of_no_use_is_named(opened, name):
    with pytest.raises(UnsupportedModelError, match=f"{name}.*'llama'"):
        build_plan(opened("llama", name))


def test_bias_of_a_norm_without_one_is_named(opened):
    with pytest.raises(UnsupportedModelError, match=r"blk\.2\.ffn_norm\.bias' and 1 others"):
        build_plan(opened("llama", "blk.2.ffn_norm.bias", "blk.3.ffn_norm.bias"))


@pytest.mark.parametrize(
    "name", ["cls.output.weight", "dense_2.weight", "v.blk.0.attn_q.weight", "mm.0.weight", "blk.0.attn_rot_embd"]
)
def test_tensor_of_something_else_is_left_alone(opened, name):
    build_plan(opened("llama", name))


def test_layers_for_drafts_are_left_alone(opened):
    names = [f"blk.4.{name}.weight" for name in ("attn_norm", "attn_q", "nextn.eh_proj")]
    build_plan(opened("qwen3", "blk.3.nextn.eh_proj.weight"))
    with pytest.raises(UnsupportedModelError, match=r"blk\.4\.attn_norm"):
        build_plan(opened("qwen3", *names))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("llama", "attention__scale", 0.5),
        ("qwen2", "attention__causal", False),
        ("qwen2", "attention__sliding_window", CONTEXT - 1),
        ("qwen3", "final_logit_softcapping", 30.0),
        ("olmo2", "rope__dimension_count_swa", 8),
        ("llama", "expert_weights_scale", 2.5),
        ("llama", "swiglu_clamp_exp", np.array([0.0, 7.0], np.float32)),
    ],
)
def test_number_that_changes_results_is_named(opened, name, key, value):
    with pytest.raises(UnsupportedModelError, match=key.replace("__", ".")):
        build_plan(opened(name, **{key: value}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention__causal", True),
        ("attention__sliding_window", CONTEXT),
        ("logit_scale", 1.0),
        ("rope__dimension_count_swa", 8),
        ("vocab_size", 384),
        ("swiglu_clamp_exp", np.zeros(4, np.float32)),
    ],
)
def test_number_that_changes_nothing_is_left_alone(opened, key, value):
    build_plan(opened("llama", rope__dimension_count=8, **{key: value}))
