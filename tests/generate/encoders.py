"""Tiny models of the encoder architectures, each with the quirks of its real models, and two references in numpy.

    path = tiny_encoder(tmp_path / "m.gguf", "nomic-bert")

tests/data/make_encoder_goldens.py gives the same weights to transformers. For Jina BERT and Nomic BERT with experts,
which transformers does not have, and for DistilBERT `hidden_states` computes the definition of the model in float64.
"""

import math
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import gguf
import numpy as np

from tests.generate.tiny import Weights, noise, write_tensors
from tests.generate.vocabulary import Vocabulary

N_LAYER, WIDTH, N_HEAD, HEAD_DIM, N_FF, N_VOCAB, CONTEXT = 4, 96, 3, 32, 160, 384, 640
WINDOW, EPS, ROPE_BASE, LOCAL_BASE, PATTERN = 40, 1e-5, 1000.0, 10000.0, 3
N_EXPERT, N_USED = 4, 2
#: one of several windows and parts of the keys, one shorter than a KV block
TEXTS = tuple([(7 * i * i + 3 * i + n) % 340 + 3 for i in range(n)] for n in (600, 21))
MEAN, FIRST, LAST, RANK = 1, 2, 3, 4


@dataclass(frozen=True)
class Encoder:
    """What the file of one model has."""

    architecture: str
    n_kv_head: int = N_HEAD
    fused: bool = False  # q, k and v in one tensor
    bias: bool = True  # of attention, and of a feed-forward without gates
    positions: bool = False
    token_types: int = 0
    heads_normed: bool = False  # layernorms of q and k, all heads together
    two_norms: bool = False  # behind attention
    ff: str = "plain"  # or "gated", "fused" (gate and up in one tensor), "experts" (in every other layer)
    ff_bias: tuple[str, ...] = ("ffn_up", "ffn_down")
    norms: tuple[str, ...] = ("attn_output_norm", "layer_output_norm")
    centers: bool = True  # layernorm
    head: str = ""  # "dense" (with tanh), "normed" or "single" scores pairs; "projections" stand behind the pooling
    metadata: dict[str, int | float] = field(default_factory=dict)


_JINA = {"token_types": 2, "ff_bias": ("ffn_down",)}
_SANDWICH = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
_LOCAL = {"attention.sliding_window": WINDOW, "attention.sliding_window_pattern": PATTERN}
_MODERN = {
    "fused": True, "bias": False, "ff": "fused", "ff_bias": (), "norms": ("attn_norm", "ffn_norm"),
    "metadata": {**_LOCAL, "rope.freq_base_swa": LOCAL_BASE},
}  # fmt: skip

ENCODERS = {
    "distilbert": Encoder("bert", positions=True),
    "xlm-roberta": Encoder("bert", positions=True, token_types=1),
    "xlm-roberta-rank": Encoder("bert", positions=True, token_types=1, head="dense"),
    "nomic-bert": Encoder("nomic-bert", fused=True, bias=False, token_types=2, ff="gated", ff_bias=()),
    "nomic-bert-moe": Encoder(
        "nomic-bert-moe",
        fused=True,
        token_types=1,
        ff="experts",
        metadata={"moe_every_n_layers": 2, "expert_count": N_EXPERT, "expert_used_count": N_USED},
    ),
    "jina-bert-v2": Encoder("jina-bert-v2", ff="fused", **_JINA),
    "jina-bert-v2-split": Encoder("jina-bert-v2", ff="gated", **_JINA),
    "jina-bert-v2-code": Encoder("jina-bert-v2", ff="fused", heads_normed=True, two_norms=True, **_JINA),
    "jina-bert-v2-rank": Encoder("jina-bert-v2", ff="fused", head="single", **_JINA),
    "modern-bert": Encoder("modern-bert", **_MODERN),
    "modern-bert-rank": Encoder("modern-bert", head="normed", **_MODERN),
    "gemma-embedding": Encoder(
        "gemma-embedding",
        n_kv_head=1,
        bias=False,
        ff="gated",
        ff_bias=(),
        norms=_SANDWICH,
        centers=False,
        head="projections",
        metadata=_LOCAL,
    ),
}
#: those that numpy computes below
IN_NUMPY = ("distilbert", "nomic-bert-moe", *(name for name in ENCODERS if name.startswith("jina")))


def encoder_tensors(model: Encoder, seed: int = 1) -> dict[str, np.ndarray]:
    """The tensors of a model, matrices as rows of outputs, experts first."""
    weights = Weights(seed)
    weights.matrix("token_embd", N_VOCAB, WIDTH, 1.0)
    if model.positions:
        weights.matrix("position_embd", CONTEXT, WIDTH, 1.0)
    if model.token_types:
        weights.matrix("token_types", model.token_types, WIDTH, 1.0)
    if model.centers:
        _add_norm(weights, model, "token_embd_norm")
    if model.norms[0] == "attn_norm":
        _add_norm(weights, model, "output_norm")
    for layer in range(N_LAYER):
        _add_layer(weights, model, layer)
    _add_head(weights, model)
    if model.token_types == 1:  # as quantised files have it
        weights.found["token_types.weight"] = weights.found["token_types.weight"][0]
    return weights.found


def _add_norm(weights: Weights, model: Encoder, name: str, size: int = WIDTH) -> None:
    weights.vector(f"{name}.weight", size, 1.0, 0.3)
    if model.norms[0] == "attn_output_norm":
        weights.vector(f"{name}.bias", size, 0.0, 0.3)


def _add_linear(weights: Weights, name: str, rows: int, columns: int, has_bias: bool) -> None:
    weights.matrix(name, rows, columns, 1.5)
    if has_bias:
        weights.vector(f"{name}.bias", rows, 0.0, 0.3)


def _add_layer(weights: Weights, model: Encoder, layer: int) -> None:
    block, kv_width = f"blk.{layer}.", model.n_kv_head * HEAD_DIM
    inputs = {"attn_q": WIDTH, "attn_k": kv_width, "attn_v": kv_width}
    for name, rows in ({"attn_qkv": WIDTH + 2 * kv_width} if model.fused else inputs).items():
        _add_linear(weights, block + name, rows, WIDTH, model.bias)
    _add_linear(weights, f"{block}attn_output", WIDTH, WIDTH, model.bias)
    for name in model.norms:
        if not (name == "attn_norm" and model.architecture == "modern-bert" and layer == 0):
            _add_norm(weights, model, block + name)
    if model.two_norms:
        _add_norm(weights, model, f"{block}attn_norm_2")
    if model.heads_normed:
        _add_norm(weights, model, f"{block}attn_q_norm")
        _add_norm(weights, model, f"{block}attn_k_norm")
    if not model.centers:
        weights.vector(f"{block}attn_q_norm.weight", HEAD_DIM, 1.0, 0.3)
        weights.vector(f"{block}attn_k_norm.weight", HEAD_DIM, 1.0, 0.3)
    if model.ff == "experts" and layer % 2 == 1:
        _add_experts(weights, block)
        return
    raised = {"gated": ("ffn_gate", "ffn_up")}.get(model.ff, ("ffn_up",))
    for name in raised:
        rows = 2 * N_FF if model.ff == "fused" else N_FF
        _add_linear(weights, block + name, rows, WIDTH, name in model.ff_bias)
    _add_linear(weights, f"{block}ffn_down", WIDTH, N_FF, "ffn_down" in model.ff_bias)


def _add_experts(weights: Weights, block: str) -> None:
    weights.matrix(f"{block}ffn_gate_inp", N_EXPERT, WIDTH, 1.5)
    for name, rows, columns in (("up", N_FF, WIDTH), ("down", WIDTH, N_FF)):
        tensor = f"{block}ffn_{name}_exps.weight"
        scale = np.float32(1.5 * (3 / columns) ** 0.5)
        weights.found[tensor] = noise(weights.seed, tensor, (N_EXPERT, rows, columns)) * scale


def _add_head(weights: Weights, model: Encoder) -> None:
    if model.head == "projections":
        weights.matrix("dense_2", 2 * WIDTH, WIDTH, 1.0)
        weights.matrix("dense_3", WIDTH, 2 * WIDTH, 1.0)
    elif model.head == "single":
        _add_linear(weights, "cls", 1, WIDTH, True)
    elif model.head:
        _add_linear(weights, "cls", WIDTH, WIDTH, model.head == "dense")
        _add_linear(weights, "cls.output", 1, WIDTH, True)
        weights.found["cls.output.weight"] = weights.found["cls.output.weight"][0]
    if model.head == "normed":
        weights.vector("cls.norm.weight", WIDTH, 1.0, 0.3)


def tiny_encoder(path: str | PathLike[str], name: str, *, pooling: int = MEAN, tensor_type: str = "F32") -> Path:
    """Write the model ENCODERS[name] and return its path. `tensor_type` is that of the matrices."""
    model = ENCODERS[name]
    writer = gguf.GGUFWriter(Path(path), model.architecture)
    _write_metadata(writer, model, pooling)
    floats = ("_inp", "token_types", "position")
    write_tensors(writer, encoder_tensors(model), tensor_type, lambda tensor: any(part in tensor for part in floats))
    return Path(path)


def _write_metadata(writer: gguf.GGUFWriter, model: Encoder, pooling: int) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(model.n_kv_head)
    (writer.add_layer_norm_eps if model.centers else writer.add_layer_norm_rms_eps)(EPS)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType(pooling))
    if not model.positions:
        writer.add_rope_freq_base(ROPE_BASE)
    adds = {int: writer.add_uint32, float: writer.add_float32}
    for key, value in model.metadata.items():
        adds[type(value)](f"{model.architecture}.{key}", value)
    vocabulary = Vocabulary("gpt2")
    while len(vocabulary.texts) < N_VOCAB:
        vocabulary.piece(f" w{len(vocabulary.texts)}")
    pre = "modern-bert" if model.architecture == "modern-bert" else "gpt-2"
    vocabulary.write(writer, pre=pre, ends=pooling == RANK)


# ---- references ----


def single_logit(name: str, tokens: list[int]) -> float:
    """What a head of one layer makes of the first token of a text."""
    weights = encoder_tensors(ENCODERS[name])
    return float(hidden_states(name, tokens)[0] @ weights["cls.weight"][0] + weights["cls.bias"][0])


def hidden_states(name: str, tokens: list[int]) -> np.ndarray:
    """(tokens, width) of a model of IN_NUMPY, one text, nothing fused."""
    model = ENCODERS[name]
    weights = {key: value.astype(np.float64) for key, value in encoder_tensors(model).items()}
    x = weights["token_embd.weight"][tokens]
    if model.token_types:
        x = x + np.atleast_2d(weights["token_types.weight"])[0]
    if model.positions:
        x = x + weights["position_embd.weight"][: len(tokens)]
    x = _norm(weights, "token_embd_norm", x)
    for layer in range(N_LAYER):
        block = f"blk.{layer}."
        after = _norm(weights, f"{block}attn_output_norm", x + _attention(model, weights, f"{block}attn_", x))
        if model.two_norms:
            after = _norm(weights, f"{block}attn_norm_2", x + after)
        x = _norm(weights, f"{block}layer_output_norm", after + _feed_forward(weights, f"{block}ffn_", after, model))
    return x


def _linear(weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)


def _norm(weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=-1, keepdims=True)
    scaled = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPS)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _attention(model: Encoder, weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    if model.fused:
        q, k, v = np.split(_linear(weights, f"{name}qkv", x), 3, axis=-1)
    else:
        q, k, v = (_linear(weights, name + part, x) for part in "qkv")
    if model.heads_normed:
        q, k = _norm(weights, f"{name}q_norm", q), _norm(weights, f"{name}k_norm", k)
    q, k, v = (part.reshape(len(x), N_HEAD, HEAD_DIM) for part in (q, k, v))
    distance = np.abs(np.subtract.outer(np.arange(len(x)), np.arange(len(x))))
    if model.architecture == "jina-bert-v2":
        # of three heads: the two of 2^1 heads, then the first of those of 2^2
        bias = -np.array([2.0**-4, 2.0**-8, 2.0**-2])[:, None, None] * distance
    elif model.positions:
        bias = 0.0
    else:
        q, k, bias = _rotated(q), _rotated(k), 0.0
    scores = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(HEAD_DIM) + bias
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = np.einsum("hij,jhd->ihd", scores / scores.sum(axis=-1, keepdims=True), v)
    return _linear(weights, f"{name}output", mixed.reshape(len(x), -1))


def _rotated(x: np.ndarray) -> np.ndarray:
    angle = np.outer(np.arange(len(x)), ROPE_BASE ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM))[:, None]
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], axis=-1)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _feed_forward(weights: dict[str, np.ndarray], name: str, x: np.ndarray, model: Encoder) -> np.ndarray:
    if f"{name}gate_inp.weight" in weights:
        return _experts(weights, name, x)
    raised = _linear(weights, f"{name}up", x)
    if model.ff == "gated":
        raised = _gelu(_linear(weights, f"{name}gate", x)) * raised
    elif model.ff == "fused":
        first, second = np.split(raised, 2, axis=-1)
        raised = first * _gelu(second) if model.two_norms else _gelu(first) * second
    else:
        raised = _gelu(raised)
    return _linear(weights, f"{name}down", raised)


def _experts(weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    logits = _linear(weights, f"{name}gate_inp", x)
    share = np.exp(logits - logits.max(axis=-1, keepdims=True))
    share /= share.sum(axis=-1, keepdims=True)
    y = np.zeros_like(x)
    for token, shares in enumerate(share):
        for expert in np.argsort(-shares)[:N_USED]:
            raised = _gelu(weights[f"{name}up_exps.weight"][expert] @ x[token])
            y[token] += shares[expert] * (weights[f"{name}down_exps.weight"][expert] @ raised)
    return y
