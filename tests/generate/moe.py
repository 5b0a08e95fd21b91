"""Tiny mixtures of experts, as tiny.py makes tiny dense models.

    path = moe_model(tmp_path / "m.gguf", "qwen3moe", tensor_type="Q8_0")
"""

from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path

import gguf
import numpy as np

from tests.generate.tiny import noise, rounded, write_tensors
from tests.generate.vocabulary import Vocabulary

TOKENS = [(7 * i * i + 3 * i + 5) % 380 + 3 for i in range(300)]


@dataclass(frozen=True)
class MoeShape:
    """Everything that can be chosen about a tiny mixture of experts."""

    n_layer: int = 3
    n_embd: int = 128
    n_head: int = 4
    n_kv_head: int = 2
    head_dim: int = 32
    n_ff: int = 96
    n_ff_shared: int = 0
    n_expert: int = 8
    n_used: int = 3
    n_vocab: int = 384
    context: int = 512
    rope_base: float = 10000.0
    eps: float = 1e-5
    norms: tuple[str, ...] = ("attn_norm", "ffn_norm")
    head_norms: int = 0  # 1: of each head of q and k, 2: of all heads together
    attention_biases: tuple[str, ...] = ()
    is_gpt_oss: bool = False
    n_rot: int = 0  # 0: all of a head
    bias: bool = False  # of the choice of experts
    shared_gate: bool = False
    equal_experts: bool = False
    is_dense: bool = False  # only the first expert, as a plain feed-forward
    is_old: bool = False  # a tensor for each expert
    is_fused: bool = False  # gate and up in one tensor
    n_ff_written: int = 0  # what the metadata says instead of n_ff
    n_ff_filled: int = 0  # rows of an expert, zeros behind n_ff
    extra: dict[str, float] = field(default_factory=dict)  # metadata that only this architecture has


MOE_SHAPES = {
    "llama": MoeShape(),
    "qwen2moe": MoeShape(n_ff_shared=160, shared_gate=True, attention_biases=("q", "k", "v"), rope_base=1e6, eps=1e-6),
    "qwen3moe": MoeShape(head_norms=1, head_dim=64, rope_base=1e6, eps=1e-6),
    "olmoe": MoeShape(head_norms=2),
    "granitemoe": MoeShape(
        extra={"attention.scale": 0.25, "embedding_scale": 2.0, "residual_scale": 0.5, "logit_scale": 3.0}
    ),
    "glm4moe": MoeShape(
        n_ff_shared=96,
        norms=("attn_norm", "post_attention_norm"),
        attention_biases=("q", "k", "v"),
        head_norms=1,
        n_rot=16,
        bias=True,
        extra={"expert_weights_scale": 1.5},
    ),
    "gpt-oss": MoeShape(
        n_head=6,
        n_used=4,
        rope_base=150000.0,
        norms=("attn_norm", "post_attention_norm"),
        attention_biases=("q", "k", "v", "output"),
        is_gpt_oss=True,
    ),
}


def moe_model(
    path: str | PathLike[str], architecture: str, *, tensor_type: str = "F32", through: str = "F32", **changes: object
) -> Path:
    """Write a model and return its path. `tensor_type` is that of the matrices; the router, norms and biases are F32.

    `through` is a type that matrices are rounded to before. `changes` replace fields of the architecture's MoeShape.
    """
    shape = replace(MOE_SHAPES[architecture], **changes)
    writer = gguf.GGUFWriter(Path(path), architecture)
    _write_metadata(writer, architecture, shape)
    write_tensors(writer, rounded(tensors(shape), through, _stays_float), tensor_type, _stays_float)
    return Path(path)


def _stays_float(name: str) -> bool:
    return "_inp" in name or name.endswith(".bias")


def _write_metadata(writer: gguf.GGUFWriter, architecture: str, shape: MoeShape) -> None:
    writer.add_name(f"tiny {architecture}")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    n_ff = shape.n_ff_filled or shape.n_ff
    writer.add_feed_forward_length(shape.n_ff_written or n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_kv_head)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_rope_freq_base(shape.rope_base)
    if not shape.is_dense:
        writer.add_expert_count(shape.n_expert)
        writer.add_expert_used_count(shape.n_used)
    if architecture not in ("llama", "granitemoe", "olmoe"):
        writer.add_expert_feed_forward_length(n_ff)
    if shape.n_ff_shared:
        writer.add_expert_shared_feed_forward_length(shape.n_ff_shared)
    if shape.n_rot:
        writer.add_rope_dimension_count(shape.n_rot)
    for key, value in shape.extra.items():
        writer.add_float32(f"{architecture}.{key}", value)
    if shape.is_gpt_oss:
        writer.add_sliding_window(24)
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(32.0)
        writer.add_rope_scaling_orig_ctx_len(4096)
    vocabulary = Vocabulary("gpt2")
    while len(vocabulary.texts) < shape.n_vocab:
        vocabulary.piece(f" w{len(vocabulary.texts)}")
    vocabulary.write(writer)


def tensors(shape: MoeShape, seed: int = 1) -> dict[str, np.ndarray]:
    """All tensors by their name in the file; a matrix has a row for each output, experts are the first axis."""
    found: dict[str, np.ndarray] = {}

    def matrix(name: str, *size: int, spread: float = 1.5) -> None:
        scale = np.float32(spread * (3 / size[-1]) ** 0.5)
        found[f"{name}.weight"] = noise(seed, name, size) * scale

    def vector(name: str, *size: int, center: float = 0.0, spread: float = 0.5) -> None:
        found[name] = np.float32(center) + np.float32(spread) * noise(seed, name, size)

    matrix("token_embd", shape.n_vocab, shape.n_embd, spread=1.0)
    matrix("output", shape.n_vocab, shape.n_embd, spread=1.0)
    vector("output_norm.weight", shape.n_embd, center=1.0, spread=0.3)
    q, kv = shape.n_head * shape.head_dim, shape.n_kv_head * shape.head_dim
    for layer in range(shape.n_layer):
        block = f"blk.{layer}."
        widths = {"q": q, "k": kv, "v": kv}
        for name, rows in widths.items():
            matrix(f"{block}attn_{name}", rows, shape.n_embd)
        matrix(f"{block}attn_output", shape.n_embd, q)
        for name in shape.attention_biases:
            vector(f"{block}attn_{name}.bias", widths.get(name, shape.n_embd))
        for name in shape.norms:
            vector(f"{block}{name}.weight", shape.n_embd, center=1.0, spread=0.3)
        for name, rows in (("q", q), ("k", kv)) if shape.head_norms else ():
            size = shape.head_dim if shape.head_norms == 1 else rows
            vector(f"{block}attn_{name}_norm.weight", size, center=1.0, spread=0.3)
        _add_experts(shape, block, matrix, vector)
        _rearrange(shape, block, found)
    return found


def _add_experts(shape: MoeShape, block: str, matrix, vector) -> None:
    n, width, ff, shared = shape.n_expert, shape.n_embd, shape.n_ff, shape.n_ff_shared
    matrix(f"{block}ffn_gate_inp", n, width, spread=2.0)
    for name, rows, k in (("gate", ff, width), ("up", ff, width), ("down", width, ff)):
        matrix(f"{block}ffn_{name}_exps", n, rows, k)
        if shape.is_gpt_oss:
            vector(f"{block}ffn_{name}_exps.bias", n, rows)
    for name, rows, k in (("gate", shared, width), ("up", shared, width), ("down", width, shared)) if shared else ():
        matrix(f"{block}ffn_{name}_shexp", rows, k)
    if shape.shared_gate:
        vector(f"{block}ffn_gate_inp_shexp.weight", width, spread=0.3)
    if shape.bias:
        vector(f"{block}exp_probs_b.bias", n)
    if shape.is_gpt_oss:
        vector(f"{block}attn_sinks.weight", shape.n_head, spread=3.0)
        vector(f"{block}ffn_gate_inp.bias", n)


def _rearrange(shape: MoeShape, block: str, found: dict[str, np.ndarray]) -> None:
    """Copies of the first expert, or it alone, or all of them in tensors of their own, if the shape asks for them."""
    if shape.is_dense:
        del found[f"{block}ffn_gate_inp.weight"]
    if shape.is_fused:
        parts = [found.pop(f"{block}ffn_{name}_exps.weight") for name in ("gate", "up")]
        found[f"{block}ffn_gate_up_exps.weight"] = np.concatenate(parts, axis=1)
        return
    for name in ("gate", "up", "down"):
        experts = found[f"{block}ffn_{name}_exps.weight"]
        if shape.n_ff_filled:
            rows = (0, shape.n_ff_filled - shape.n_ff)
            experts = np.pad(experts, ((0, 0), (0, 0), rows) if name == "down" else ((0, 0), rows, (0, 0)))
            found[f"{block}ffn_{name}_exps.weight"] = experts
            bias = f"{block}ffn_{name}_exps.bias"
            if bias in found and name != "down":
                found[bias] = np.pad(found[bias], ((0, 0), rows))
        if shape.is_old:
            del found[f"{block}ffn_{name}_exps.weight"]
            found |= {f"{block}ffn_{name}.{index}.weight": values for index, values in enumerate(experts)}
        if shape.equal_experts:
            experts[:] = experts[0]
        if shape.is_dense:
            found[f"{block}ffn_{name}.weight"] = experts[0]
            del found[f"{block}ffn_{name}_exps.weight"]
