"""Tiny hybrid models: layers with recurrent state between layers of attention.

    path = recurrent_model(tmp_path / "m.gguf", "lfm2")

tests/data/make_recurrent_goldens.py gives the same weights to transformers.
"""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import gguf
import numpy as np

from tests.generate.tiny import Weights, noise, write_tensors
from tests.generate.vocabulary import Vocabulary

N_LAYER, WIDTH, N_HEAD, N_KV_HEAD, HEAD_DIM, N_FF, N_VOCAB, CONTEXT = 4, 128, 4, 2, 32, 192, 384, 512
EPS, ROPE_BASE, N_ROT = 1e-5, 10000.0, 8
#: heads of the gated delta net and their lengths
N_K, KEY, N_V, VALUE = 2, 32, 4, 32
N_EXPERT, N_USED, N_FF_EXPERT, N_FF_SHARED = 4, 2, 96, 64
TOKENS = [(7 * i * i + 3 * i + 5) % 340 + 3 for i in range(45)]
#: positions whose logits are kept: the last of these
KEPT = 3


@dataclass(frozen=True)
class Hybrid:
    """What the file of one model has."""

    attention: tuple[int, ...]  # layers
    conv_width: int
    is_delta: bool = False
    is_scan: bool = False  # a state space, without feed-forward
    grouped: bool = False
    n_dense: int = N_LAYER  # layers without experts
    shared: bool = False
    tied: bool = True


HYBRIDS = {
    "lfm2": Hybrid((2,), 3),
    "lfm2moe": Hybrid((1,), 4, n_dense=1),
    "qwen3next": Hybrid((3,), 4, is_delta=True, grouped=True, n_dense=0, shared=True, tied=False),
    "qwen35": Hybrid((3,), 4, is_delta=True),
    "qwen35moe": Hybrid((3,), 4, is_delta=True, n_dense=0, shared=True, tied=False),
    "mamba2": Hybrid((), 4, is_scan=True),
}


def recurrent_tensors(name: str, seed: int = 1) -> dict[str, np.ndarray]:
    """The tensors of a model, matrices as rows of outputs, experts as the first axis."""
    model = HYBRIDS[name]
    weights = Weights(seed)
    weights.matrix("token_embd", N_VOCAB, WIDTH, 1.5)
    if not model.tied:
        weights.matrix("output", N_VOCAB, WIDTH, 1.5)
    lfm = not (model.is_delta or model.is_scan)
    weights.vector(f"{'token_embd_norm' if lfm else 'output_norm'}.weight", WIDTH, 1.0, 0.3)
    for layer in range(N_LAYER):
        block = f"blk.{layer}."
        weights.vector(f"{block}attn_norm.weight", WIDTH, 1.0, 0.3)
        if model.is_scan:
            _add_scan(weights, block, model)
            continue
        weights.vector(f"{block}{'post_attention_norm' if model.is_delta else 'ffn_norm'}.weight", WIDTH, 1.0, 0.3)
        if layer in model.attention:
            _add_attention(weights, block, gated=model.is_delta)
        elif model.is_delta:
            _add_delta(weights, block, model)
        else:
            weights.matrix(f"{block}shortconv.in_proj", 3 * WIDTH, WIDTH, 1.5)
            weights.matrix(f"{block}shortconv.conv", WIDTH, model.conv_width, 1.0)
            weights.matrix(f"{block}shortconv.out_proj", WIDTH, WIDTH, 1.5)
        _add_feed_forward(weights, block, model, is_dense=layer < model.n_dense)
    return weights.found


def _add_attention(weights: Weights, block: str, *, gated: bool) -> None:
    query, keys = N_HEAD * HEAD_DIM, N_KV_HEAD * HEAD_DIM
    for name, rows in (("q", 2 * query if gated else query), ("k", keys), ("v", keys)):
        weights.matrix(f"{block}attn_{name}", rows, WIDTH, 1.5)
    weights.matrix(f"{block}attn_output", WIDTH, query, 1.5)
    for name in "qk":
        weights.vector(f"{block}attn_{name}_norm.weight", HEAD_DIM, 1.0, 0.3)


def _add_delta(weights: Weights, block: str, model: Hybrid) -> None:
    values = N_V * VALUE
    channels = 2 * N_K * KEY + values
    weights.matrix(f"{block}attn_qkv", channels, WIDTH, 1.5)
    weights.matrix(f"{block}attn_gate", values, WIDTH, 1.5)
    weights.matrix(f"{block}ssm_conv1d", channels, model.conv_width, 1.0)
    for name, rows in (("ba", 2 * N_V),) if model.grouped else (("beta", N_V), ("alpha", N_V)):
        weights.matrix(f"{block}ssm_{name}", rows, WIDTH, 1.5)
    weights.vector(f"{block}ssm_a", N_V, -0.6, 0.5)
    weights.vector(f"{block}ssm_dt.bias", N_V, -1.0, 1.0)
    weights.vector(f"{block}ssm_norm.weight", VALUE, 1.0, 0.3)
    weights.matrix(f"{block}ssm_out", WIDTH, values, 1.5)


def _add_scan(weights: Weights, block: str, model: Hybrid) -> None:
    values = N_V * VALUE
    channels = values + 2 * N_K * KEY
    weights.matrix(f"{block}ssm_in", values + channels + N_V, WIDTH, 1.5)
    weights.matrix(f"{block}ssm_conv1d", channels, model.conv_width, 1.0)
    weights.vector(f"{block}ssm_conv1d.bias", channels, 0.0, 0.3)
    weights.vector(f"{block}ssm_dt.bias", N_V, -1.0, 1.0)
    for name, center, spread in (("ssm_a", -0.6, 0.5), ("ssm_d", 1.0, 0.5)):
        weights.vector(f"{block}{name}", N_V, center, spread)
        weights.found[f"{block}{name}"] = weights.found[f"{block}{name}"][:, None]
    weights.vector(f"{block}ssm_norm.weight", values, 1.0, 0.3)
    weights.found[f"{block}ssm_norm.weight"] = weights.found[f"{block}ssm_norm.weight"].reshape(N_K, -1)
    weights.matrix(f"{block}ssm_out", WIDTH, values, 1.5)


def _add_feed_forward(weights: Weights, block: str, model: Hybrid, *, is_dense: bool) -> None:
    if is_dense:
        _add_glu(weights, f"{block}ffn_", "", N_FF)
        return
    weights.matrix(f"{block}ffn_gate_inp", N_EXPERT, WIDTH, 2.0)
    for name, rows, columns in (
        ("gate", N_FF_EXPERT, WIDTH),
        ("up", N_FF_EXPERT, WIDTH),
        ("down", WIDTH, N_FF_EXPERT),
    ):
        values = noise(weights.seed, f"{block}{name}", (N_EXPERT, rows, columns))
        weights.found[f"{block}ffn_{name}_exps.weight"] = values * np.float32(1.5 * (3 / columns) ** 0.5)
    if model.shared:
        _add_glu(weights, f"{block}ffn_", "_shexp", N_FF_SHARED)
        weights.vector(f"{block}ffn_gate_inp_shexp.weight", WIDTH, 0.0, 0.3)
    else:
        weights.vector(f"{block}exp_probs_b.bias", N_EXPERT, 0.0, 0.3)


def _add_glu(weights: Weights, name: str, suffix: str, n: int) -> None:
    weights.matrix(f"{name}gate{suffix}", n, WIDTH, 1.5)
    weights.matrix(f"{name}up{suffix}", n, WIDTH, 1.5)
    weights.matrix(f"{name}down{suffix}", WIDTH, n, 1.5)


def recurrent_model(
    path: str | PathLike[str], name: str, tensor_type: str = "F32", *, is_old: bool = False, says_which: bool = False
) -> Path:
    """Write the model HYBRIDS[name] and return its path. `tensor_type` is that of the matrices.

    `is_old`: q, k, v and gate of the delta net are one tensor, by heads of keys. `says_which`: the metadata names the
    layers without attention.
    """
    writer = gguf.GGUFWriter(Path(path), name)
    _write_metadata(writer, HYBRIDS[name], says_which=says_which)
    floats = ("conv.weight", "conv1d", "gate_inp", "ssm_a", "ssm_d", "ssm_norm")
    tensors = recurrent_tensors(name)
    for layer in set(range(N_LAYER)) - set(HYBRIDS[name].attention) if is_old else ():
        _join_inputs(tensors, f"blk.{layer}.")
    write_tensors(writer, tensors, tensor_type, lambda tensor: any(part in tensor for part in floats))
    return Path(path)


def _join_inputs(tensors: dict[str, np.ndarray], block: str) -> None:
    mixed, gate = tensors.pop(f"{block}attn_qkv.weight"), tensors.pop(f"{block}attn_gate.weight")
    parts = (*np.split(mixed, [N_K * KEY, 2 * N_K * KEY]), gate)
    by_head = [part.reshape(N_K, -1, WIDTH) for part in parts]
    tensors[f"{block}ssm_in.weight"] = np.concatenate(by_head, axis=1).reshape(-1, WIDTH)


def _write_metadata(writer: gguf.GGUFWriter, model: Hybrid, *, says_which: bool) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(0 if model.is_scan else N_FF)
    writer.add_head_count(0 if model.is_scan else N_HEAD)
    writer.add_layer_norm_rms_eps(EPS)
    if model.is_delta or model.is_scan:
        writer.add_ssm_conv_kernel(model.conv_width)
        writer.add_ssm_state_size(KEY)
        writer.add_ssm_group_count(N_K)
        writer.add_ssm_time_step_rank(N_V)
        writer.add_ssm_inner_size(N_V * VALUE)
    if not model.is_scan:
        _write_attention(writer, model, says_which=says_which)
    vocabulary = Vocabulary("gpt2")
    while len(vocabulary.texts) < N_VOCAB:
        vocabulary.piece(f" w{len(vocabulary.texts)}")
    vocabulary.write(writer)


def _write_attention(writer: gguf.GGUFWriter, model: Hybrid, *, says_which: bool) -> None:
    writer.add_rope_freq_base(ROPE_BASE)
    if model.n_dense < N_LAYER:
        writer.add_expert_count(N_EXPERT)
        writer.add_expert_used_count(N_USED)
        writer.add_expert_feed_forward_length(N_FF_EXPERT)
        if model.shared:
            writer.add_expert_shared_feed_forward_length(N_FF_SHARED)
    if model.is_delta:
        writer.add_head_count_kv(N_KV_HEAD)
        writer.add_key_length(HEAD_DIM)
        writer.add_value_length(HEAD_DIM)
        writer.add_rope_dimension_count(N_ROT)
        if says_which:
            writer.add_array(
                f"{writer.arch}.attention.recurrent_layers", [layer not in model.attention for layer in range(N_LAYER)]
            )
        else:
            writer.add_full_attention_interval(N_LAYER)
        if not model.grouped:
            writer.add_rope_dimension_sections([2, 1, 1, 0])
    else:
        writer.add_head_count_kv([N_KV_HEAD if layer in model.attention else 0 for layer in range(N_LAYER)])
        writer.add_shortconv_l_cache(model.conv_width)
        if model.n_dense < N_LAYER:
            writer.add_leading_dense_block_count(model.n_dense)
            writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
