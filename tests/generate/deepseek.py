"""Tiny models of the architecture deepseek2, as moe.py makes other mixtures of experts.

    path = deepseek_model(tmp_path / "m.gguf", "v3", tensor_type="Q8_0", is_old=True)
"""

from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import gguf
import numpy as np

from tests.generate.tiny import noise, rounded, write_tensors
from tests.generate.vocabulary import Vocabulary


@dataclass(frozen=True)
class DeepseekShape:
    """Everything that can be chosen about a tiny DeepSeek model."""

    n_layer: int = 3
    n_dense: int = 1
    n_embd: int = 128
    n_head: int = 4
    plain: int = 32  # values of a head's key without rope, with it, and of its value
    turned: int = 32
    value: int = 32
    latent: int = 64
    q_low: int = 0  # 0: queries are made in one step
    n_ff: int = 160
    n_ff_expert: int = 32
    n_expert: int = 16
    n_used: int = 4
    n_shared: int = 2
    sigmoid: bool = False
    bias: bool = False
    normalize: bool = False
    scale: float = 1.0
    n_group: int = 1
    n_group_used: int = 1
    n_vocab: int = 384
    context: int = 512
    rope_base: float = 10000.0
    eps: float = 1e-6
    yarn: float = 0.0  # mscale_all_dim; 0: no YaRN
    yarn_factor: float = 8.0
    yarn_original: int = 64


DEEPSEEK_SHAPES = {
    "v2-lite": DeepseekShape(yarn=0.707),
    "v2": DeepseekShape(q_low=96, n_group=4, n_group_used=2, scale=4.0, yarn=0.707),
    "v3": DeepseekShape(
        n_layer=2,
        n_head=49,  # one more than an attention call takes
        q_low=64,
        sigmoid=True,
        bias=True,
        normalize=True,
        scale=2.5,
        n_group=4,
        n_group_used=2,
        yarn=1.0,
    ),
    "moonlight": DeepseekShape(
        plain=64, value=96, turned=32, sigmoid=True, bias=True, normalize=True, scale=2.446, rope_base=50000.0
    ),
}


def deepseek_model(
    path: str | PathLike[str],
    name: str,
    *,
    is_old: bool = False,
    tensor_type: str = "F32",
    through: str = "F32",
    **changes: object,
) -> Path:
    """Write a model and return its path; `is_old`: what makes keys and values of a latent is one tensor, attn_kv_b.

    `tensor_type` is that of the matrices, `through` one that they are rounded to before. `changes` replace fields.
    """
    shape = replace(DEEPSEEK_SHAPES[name], **changes)
    writer = gguf.GGUFWriter(Path(path), "deepseek2")
    _write_metadata(writer, shape, is_old)
    found = rounded(tensors(shape), through, _stays_float)
    if not is_old:
        found = {part: rows for tensor, values in found.items() for part, rows in _split(shape, tensor, values).items()}
    write_tensors(writer, found, tensor_type, _stays_float)
    return Path(path)


def _stays_float(name: str) -> bool:
    return "_inp" in name


def _split(shape: DeepseekShape, name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """What newer files have of a tensor: attn_k_b, transposed, and attn_v_b for attn_kv_b."""
    if "attn_kv_b" not in name:
        return {name: values}
    heads = values.reshape(shape.n_head, shape.plain + shape.value, shape.latent)
    return {
        name.replace("kv_b", "k_b"): heads[:, : shape.plain].swapaxes(1, 2),
        name.replace("kv_b", "v_b"): heads[:, shape.plain :],
    }


def _write_metadata(writer: gguf.GGUFWriter, shape: DeepseekShape, is_old: bool) -> None:
    key, value = shape.plain + shape.turned, shape.value
    writer.add_name("tiny deepseek2")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head if is_old else 1)
    writer.add_key_length(key if is_old else shape.latent + shape.turned)
    writer.add_value_length(value if is_old else shape.latent)
    if not is_old:
        writer.add_key_length_mla(key)
        writer.add_value_length_mla(value)
    writer.add_kv_lora_rank(shape.latent)
    if shape.q_low:
        writer.add_q_lora_rank(shape.q_low)
    writer.add_rope_dimension_count(shape.turned)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_leading_dense_block_count(shape.n_dense)
    writer.add_expert_count(shape.n_expert)
    writer.add_expert_used_count(shape.n_used)
    writer.add_expert_shared_count(shape.n_shared)
    writer.add_expert_feed_forward_length(shape.n_ff_expert)
    writer.add_expert_weights_scale(shape.scale)
    writer.add_expert_weights_norm(shape.normalize)
    writer.add_expert_group_count(shape.n_group)
    writer.add_expert_group_used_count(shape.n_group_used)
    if shape.sigmoid:
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if shape.yarn:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(shape.yarn_factor)
        writer.add_rope_scaling_orig_ctx_len(shape.yarn_original)
        writer.add_rope_scaling_yarn_log_mul(0.1 * shape.yarn)
    vocabulary = Vocabulary("gpt2")
    while len(vocabulary.texts) < shape.n_vocab:
        vocabulary.piece(f" w{len(vocabulary.texts)}")
    vocabulary.write(writer)


def tensors(shape: DeepseekShape, seed: int = 1) -> dict[str, np.ndarray]:
    """All tensors by their name in an old file; a matrix has a row for each output, experts are the first axis."""
    found: dict[str, np.ndarray] = {}

    def matrix(name: str, *size: int, spread: float = 1.5) -> None:
        scale = np.float32(spread * (3 / size[-1]) ** 0.5)
        found[f"{name}.weight"] = noise(seed, name, size) * scale

    def norm(name: str, size: int) -> None:
        found[f"{name}.weight"] = np.float32(1.0) + np.float32(0.3) * noise(seed, name, (size,))

    width, heads, key = shape.n_embd, shape.n_head, shape.plain + shape.turned
    matrix("token_embd", shape.n_vocab, width, spread=1.0)
    matrix("output", shape.n_vocab, width, spread=1.0)
    norm("output_norm", width)
    for layer in range(shape.n_layer):
        block = f"blk.{layer}."
        norm(f"{block}attn_norm", width)
        norm(f"{block}ffn_norm", width)
        if shape.q_low:
            matrix(f"{block}attn_q_a", shape.q_low, width)
            norm(f"{block}attn_q_a_norm", shape.q_low)
            matrix(f"{block}attn_q_b", heads * key, shape.q_low)
        else:
            matrix(f"{block}attn_q", heads * key, width)
        matrix(f"{block}attn_kv_a_mqa", shape.latent + shape.turned, width)
        norm(f"{block}attn_kv_a_norm", shape.latent)
        matrix(f"{block}attn_kv_b", heads * (shape.plain + shape.value), shape.latent)
        matrix(f"{block}attn_output", width, heads * shape.value)
        if layer < shape.n_dense:
            _add_feed_forward(matrix, block, "", (), shape.n_ff, width)
            continue
        matrix(f"{block}ffn_gate_inp", shape.n_expert, width, spread=2.0)
        _add_feed_forward(matrix, block, "_exps", (shape.n_expert,), shape.n_ff_expert, width)
        _add_feed_forward(matrix, block, "_shexp", (), shape.n_ff_expert * shape.n_shared, width)
        if shape.bias:
            found[f"{block}exp_probs_b.bias"] = np.float32(0.5) * noise(seed, f"{block}bias", (shape.n_expert,))
    return found


def _add_feed_forward(matrix, block: str, kind: str, experts: tuple[int, ...], n_ff: int, width: int) -> None:
    for name, rows, k in (("gate", n_ff, width), ("up", n_ff, width), ("down", width, n_ff)):
        matrix(f"{block}ffn_{name}{kind}", *experts, rows, k)
