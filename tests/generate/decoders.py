"""Tiny models of the decoder architectures, each with the quirks of its real models, for the logits of transformers.

    path = tiny_decoder(tmp_path / "m.gguf", "gemma2")

tests/data/make_arch_goldens.py gives the same weights to transformers.
"""

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import gguf
import numpy as np

from tests.generate.tiny import Weights, write_tensors
from tests.generate.vocabulary import Vocabulary

N_LAYER, WIDTH, N_HEAD, HEAD_DIM, N_FF, N_VOCAB, CONTEXT = 4, 128, 4, 32, 192, 384, 64
WINDOW, EPS, ROPE_BASE, N_ROT = 16, 1e-5, 10000.0, 16
#: one sequence, longer than the window and a KV block
TOKENS = [(7 * i * i + 3 * i + 5) % 340 + 3 for i in range(45)]
#: positions whose logits are kept: the last of these
KEPT = 3


@dataclass(frozen=True)
class Decoder:
    """What the file of one model has."""

    architecture: str
    n_kv_head: int = 2
    centers: bool = False  # layernorm
    norm_bias: bool = False
    fused: bool = False  # q, k and v in one tensor
    qkv_bias: bool = False
    output_bias: bool = False  # of attention's output and the feed-forward
    ff: str = "gated"  # or "fused" (gate and up in one tensor) or "plain"
    norms: tuple[str, ...] = ("attn_norm", "ffn_norm")
    qk_norms: str = ""  # "head" or "width"
    tied: bool = False
    head_bias: bool = False
    positions: bool = False
    embedding: float = 3.0  # spread of the embedding
    metadata: dict[str, int | float | bool | str] = field(default_factory=dict)
    vectors: dict[str, tuple[int, float, float]] = field(default_factory=dict)  # name -> size, center, spread
    llama3: tuple[float, float, float, int] | None = None  # factor, low and high frequency factor, original context


_GEMMA2_NORMS = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
_PLAIN = {"centers": True, "norm_bias": True, "qkv_bias": True, "output_bias": True, "ff": "plain"}

DECODERS = {
    "llama": Decoder("llama"),
    "llama3": Decoder("llama", llama3=(8.0, 1.0, 4.0, 24)),
    "mistral3": Decoder(
        "mistral3",
        metadata={
            "rope.scaling.type": "yarn", "rope.scaling.factor": 16.0, "rope.scaling.original_context_length": 48,
            "rope.scaling.yarn_beta_fast": 32.0, "rope.scaling.yarn_beta_slow": 1.0,
            "rope.scaling.yarn_log_multiplier": 1.0, "attention.temperature_scale": 0.1,
        },
    ),
    "smollm3": Decoder("smollm3", tied=True),
    "qwen2": Decoder("qwen2", qkv_bias=True),
    "qwen3": Decoder("qwen3", qk_norms="head", tied=True),
    "granite": Decoder(
        "granite",
        tied=True,
        embedding=1.0,
        metadata={
            "attention.scale": 0.1, "embedding_scale": 6.0, "residual_scale": 0.5, "logit_scale": 2.0,
        },
    ),
    "olmo2": Decoder("olmo2", qk_norms="width", norms=("post_attention_norm", "post_ffw_norm")),
    "olmo3": Decoder(
        "olmo2",
        qk_norms="width",
        norms=("post_attention_norm", "post_ffw_norm"),
        metadata={
            "attention.sliding_window": WINDOW, "rope.scaling.type": "yarn", "rope.scaling.factor": 8.0,
            "rope.scaling.original_context_length": 32, "rope.scaling.yarn_beta_fast": 32.0,
            "rope.scaling.yarn_beta_slow": 1.0,
        },
    ),
    "gemma": Decoder("gemma", tied=True, embedding=1.0, n_kv_head=1),
    "gemma2": Decoder(
        "gemma2",
        tied=True,
        embedding=1.0,
        norms=_GEMMA2_NORMS,
        metadata={
            "attention.sliding_window": WINDOW, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": Decoder(
        "gemma3",
        tied=True,
        embedding=1.0,
        norms=_GEMMA2_NORMS,
        qk_norms="head",
        metadata={"attention.sliding_window": WINDOW, "attention.sliding_window_pattern": 2},
    ),
    "phi3": Decoder("phi3", fused=True, ff="fused"),
    "phi3-longrope": Decoder(
        "phi3",
        fused=True,
        ff="fused",
        metadata={"rope.scaling.original_context_length": 32, "rope.scaling.attn_factor": 1.25},
        vectors={"rope_factors_short.weight": (16, 1.2, 0.2), "rope_factors_long.weight": (16, 3.0, 2.0)},
    ),
    "stablelm": Decoder(
        "stablelm", centers=True, norm_bias=True, qkv_bias=True, metadata={"rope.dimension_count": N_ROT}
    ),
    "stablelm-parallel": Decoder(
        "stablelm", centers=True, norm_bias=True, norms=("attn_norm",), metadata={"rope.dimension_count": N_ROT}
    ),
    "cohere2": Decoder(
        "cohere2",
        centers=True,
        tied=True,
        norms=("attn_norm",),
        metadata={"attention.sliding_window": WINDOW, "logit_scale": 0.5},
    ),
    "starcoder2": Decoder("starcoder2", tied=True, **_PLAIN),
    "gpt2": Decoder("gpt2", n_kv_head=4, tied=True, fused=True, positions=True, **_PLAIN),
    "gptneox": Decoder(
        "gptneox",
        n_kv_head=4,
        fused=True,
        metadata={"rope.dimension_count": N_ROT, "use_parallel_residual": True},
        **_PLAIN,
    ),
    "gptneox-sequential": Decoder(
        "gptneox",
        n_kv_head=4,
        fused=True,
        metadata={"rope.dimension_count": N_ROT, "use_parallel_residual": False},
        **_PLAIN,
    ),
    "falcon": Decoder(
        "falcon", n_kv_head=1, fused=True, tied=True, centers=True, norm_bias=True, ff="plain", norms=("attn_norm",)
    ),
    "falcon-40b": Decoder(
        "falcon", fused=True, centers=True, norm_bias=True, ff="plain", norms=("attn_norm", "attn_norm_2")
    ),
    "phi2": Decoder(
        "phi2",
        n_kv_head=4,
        head_bias=True,
        **(_PLAIN | {"norms": ("attn_norm",), "metadata": {"rope.dimension_count": N_ROT}}),
    ),
}  # fmt: skip


def decoder_tensors(model: Decoder, seed: int = 1) -> dict[str, np.ndarray]:
    """The tensors of a model, matrices as rows of outputs."""
    weights = Weights(seed)
    weights.matrix("token_embd", N_VOCAB, WIDTH, model.embedding)
    if model.positions:
        weights.matrix("position_embd", CONTEXT, WIDTH, 1.0)
    if not model.tied:
        weights.matrix("output", N_VOCAB, WIDTH, 3.0)
    if model.head_bias:
        weights.vector("output.bias", N_VOCAB, 0.0, 0.5)
    _add_norm(weights, model, "output_norm")
    for name, (size, center, spread) in model.vectors.items():
        weights.vector(name, size, center, spread)
    if model.llama3:
        weights.found["rope_freqs.weight"] = _llama3_factors(*model.llama3)
    for layer in range(N_LAYER):
        _add_layer(weights, model, f"blk.{layer}.")
    return weights.found


def _llama3_factors(factor: float, low: float, high: float, original: int) -> np.ndarray:
    """Divisors of the frequencies of rope: 1 for short waves, `factor` for long ones, a blend of both between them."""
    waves = 2 * np.pi * ROPE_BASE ** (np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    short = np.clip((original / waves - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - short) / factor + short)).astype(np.float32)


def _add_norm(weights: Weights, model: Decoder, name: str) -> None:
    weights.vector(f"{name}.weight", WIDTH, 1.0, 0.3)
    if model.norm_bias:
        weights.vector(f"{name}.bias", WIDTH, 0.0, 0.3)


def _add_layer(weights: Weights, model: Decoder, block: str) -> None:
    query, keys = N_HEAD * HEAD_DIM, model.n_kv_head * HEAD_DIM
    inputs = {"attn_qkv": query + 2 * keys} if model.fused else {"attn_q": query, "attn_k": keys, "attn_v": keys}
    raised = {"gated": ("ffn_gate", "ffn_up"), "fused": ("ffn_up",), "plain": ("ffn_up",)}[model.ff]
    matrices = [(name, rows, WIDTH, model.qkv_bias) for name, rows in inputs.items()]
    matrices += [(name, N_FF * (2 if model.ff == "fused" else 1), WIDTH, model.output_bias) for name in raised]
    matrices += [("attn_output", WIDTH, query, model.output_bias), ("ffn_down", WIDTH, N_FF, model.output_bias)]
    for name, rows, columns, has_bias in matrices:
        weights.matrix(block + name, rows, columns, 1.5)
        if has_bias:
            weights.vector(f"{block}{name}.bias", rows, 0.0, 0.3)
    for name in model.norms:
        _add_norm(weights, model, block + name)
    if model.qk_norms:
        whole = model.qk_norms == "width"
        weights.vector(f"{block}attn_q_norm.weight", query if whole else HEAD_DIM, 1.0, 0.3)
        weights.vector(f"{block}attn_k_norm.weight", keys if whole else HEAD_DIM, 1.0, 0.3)


#: how a model with a scoring head asks, as its file has it
RANK_TEMPLATE = "Does <{query}> ask for <{document}>?"


def tiny_decoder(
    path: str | PathLike[str], name: str, tensor_type: str = "F32", *, labels: tuple[int, ...] = ()
) -> Path:
    """Write the model DECODERS[name] and return its path. `tensor_type` is that of the matrices.

    `labels` are tokens: the model has a scoring head made of the rows of its tied head for them.
    """
    model = DECODERS[name]
    writer = gguf.GGUFWriter(Path(path), model.architecture)
    _write_metadata(writer, model)
    tensors = decoder_tensors(model)
    if labels:
        tensors["cls.output.weight"] = tensors["token_embd.weight"][list(labels)]
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_string("tokenizer.chat_template.rerank", RANK_TEMPLATE)
    write_tensors(writer, tensors, tensor_type)
    return Path(path)


def _write_metadata(writer: gguf.GGUFWriter, model: Decoder) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(model.n_kv_head)
    (writer.add_layer_norm_eps if model.centers else writer.add_layer_norm_rms_eps)(EPS)
    if not model.positions:
        writer.add_rope_freq_base(ROPE_BASE)
    adds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in model.metadata.items():
        adds[type(value)](f"{model.architecture}.{key}", value)
    vocabulary = Vocabulary("gpt2")
    while len(vocabulary.texts) < N_VOCAB:
        vocabulary.piece(f" w{len(vocabulary.texts)}")
    vocabulary.write(writer)
