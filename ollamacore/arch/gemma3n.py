"""gemma3n: Gemma 3n, text only (E2B, E4B).

As gemma3, with norms on values and no scale on queries. A token has several residual streams, of which the first
passes through the blocks (AltUp); a block has a short cut of low rank beside attention (Laurel) and an input of its
own; in some layers few values of the feed-forward are not zero; late layers read keys and values of earlier ones.
"""

import math
from dataclasses import dataclass

import numpy as np

from ollamacore.arch.decoder import Block, GatedFeedForward, attention, kv_layers
from ollamacore.arch.hyper import Hyper, Metadata, windowed_layers
from ollamacore.arch.per_layer import PerLayerInputs, kv_owners
from ollamacore.arch.plan import Plan, Rows
from ollamacore.arch.rope import Rope, model_rope, rope_frequencies
from ollamacore.errors import InvalidFileError, UnsupportedModelError

#: layers for each of full attention, and numbers, where the file does not say
DEFAULT_PATTERN = 5
DEFAULT_LOCAL_BASE = 10000.0
DEFAULT_LOGIT_CAP = 30.0


@dataclass(frozen=True, slots=True)
class SparseFeedForward:
    """down(gelu(max(gate x - cutoff, 0)) * up x), the cutoff so many standard deviations above the mean of gate x."""

    deviations: float

    def __call__(self, plan: Plan, hyper: Hyper, name: str, normed: str, dst: str, scale: float) -> str:
        """See FeedForward."""
        gate = plan.linear(normed, Rows(f"{name}gate", hyper.n_ff), "ff_gate", join=True)
        up = plan.linear(normed, Rows(f"{name}up", hyper.n_ff), "ff_up")
        kept = plan.sparse_glu(gate, up, self.deviations)
        return plan.linear(kept, Rows(f"{name}down", hyper.n_embd), dst, scale=scale)


def build(meta: Metadata) -> Plan:
    """The plan of a Gemma 3n model."""
    hyper = Hyper.read(meta)
    per_layer = PerLayerInputs.read(meta)
    if per_layer is None:
        raise InvalidFileError("metadata value 'gemma3n.embedding_length_per_layer_input' is missing or 0")
    if meta.integer("altup.active_idx", 0, 7, 0):
        raise UnsupportedModelError("AltUp whose active stream is not the first is not supported")
    blocks = _blocks(meta, hyper)
    plan = Plan(meta.file, kv_layers(hyper, blocks))
    plan.embed("token_embd", hyper.n_embd, hyper.n_vocab, hyper.n_embd**0.5)
    streams = plan.streams(meta.integer("altup.num_inputs", 2, 8, 4))
    per_layer.prepare(plan, hyper)
    _spread(plan, streams)
    for layer in range(hyper.n_layer):
        _emit_layer(plan, hyper, blocks, per_layer, layer, streams)
    selected = _join(plan, hyper, streams)
    softcap = meta.number("final_logit_softcapping", 0.0, 1e6, DEFAULT_LOGIT_CAP)
    head = "output" if plan.has("output.weight") else "token_embd"
    plan.linear(selected, Rows(head, hyper.n_vocab), "logits", softcap=softcap)
    return plan


def _blocks(meta: Metadata, hyper: Hyper) -> list[Block]:
    is_windowed = windowed_layers(meta, hyper.n_layer, DEFAULT_PATTERN)
    owners = kv_owners(meta, is_windowed)
    window = meta.integer("attention.sliding_window", 1, 1 << 26)
    ropes = {True: Rope(rope_frequencies(hyper.n_rot, _local_base(meta))), False: model_rope(meta, hyper)}
    return [
        Block(
            rope=ropes[is_windowed[layer]],
            neox=True,
            kv_of=owners[layer],
            scale=1.0,
            window=window if is_windowed[layer] else 0,
            head_norms=True,
            value_norm=True,
            feed_forward=SparseFeedForward(deviations) if math.isfinite(deviations) else GatedFeedForward(gelu=True),
        )
        for layer, deviations in enumerate(_sparsity(meta, hyper.n_layer))
    ]


def _local_base(meta: Metadata) -> float:
    """Files of llama.cpp and of Ollama name it differently."""
    key = "rope.freq_base_local" if meta.has("rope.freq_base_local") else "rope.freq_base_swa"
    return meta.number(key, 2.0, 1e12, DEFAULT_LOCAL_BASE)


def _sparsity(meta: Metadata, n_layer: int) -> list[float]:
    """Of each layer the cutoff in standard deviations; -infinity: none."""
    values = meta.file.array(f"{meta.architecture}.activation_sparsity_scale", np.float32, n_layer)
    if np.isnan(values).any() or np.isposinf(values).any():
        raise InvalidFileError("metadata value 'gemma3n.activation_sparsity_scale' is no number of deviations")
    return [float(value) for value in values]


def _spread(plan: Plan, streams: list[str]) -> None:
    """Make the other streams of the first, as large as it is."""
    width, others = plan.buffers["residual"], len(streams) - 1
    made = [
        plan.linear("residual", _stacked("altup_proj", width, i, others), f"altup.{i}", join=i + 1 < others)
        for i in range(others)
    ]
    for src, dst in zip(made, streams[1:], strict=True):
        plan.match(src, "residual", dst)


def _join(plan: Plan, hyper: Hyper, streams: list[str]) -> str:
    """The norm of the mean of all streams, each as large as the first."""
    width, others = plan.buffers["residual"], len(streams) - 1
    for stream in streams[1:]:
        plan.norm(None, hyper.eps, stream=stream)
    made = [
        plan.linear(stream, _stacked("altup_unembd_proj", width, i, others), f"altup.{i}")
        for i, stream in enumerate(streams[1:])
    ]
    for buffer in made:
        plan.match(buffer, "residual", buffer)
    for buffer in made[:-1]:
        plan.norm(None, hyper.eps, add=(buffer,))
    return plan.norm("output_norm", hyper.eps, add=(made[-1],), scale=1 / len(streams), select=True)


def _stacked(name: str, width: int, index: int, n: int) -> Rows:
    return Rows(name, width, index * width, n * width, stacked=True)


def _emit_layer(
    plan: Plan, hyper: Hyper, blocks: list[Block], per_layer: PerLayerInputs, layer: int, streams: list[str]
) -> None:
    """Predict all streams, pass the first through the block, correct all, add the layer's input to the others."""
    name, eps, width = f"blk.{layer}.", hyper.eps, hyper.n_embd
    block = plan.buffer("predicted", width)
    n = len(streams)
    modalities = _modalities(plan, hyper, name, n, plan.norm(f"{name}altup_router_norm", eps))
    plan.predict(streams, f"{name}altup_predict_coef.weight", modalities, block)
    normed = plan.norm(f"{name}attn_norm", eps)
    rank = plan.rows(f"{name}laurel_l.weight")
    low = plan.linear(normed, Rows(f"{name}laurel_l", rank), "laurel_low", join=True, quantize=True)
    attended = attention(plan, hyper, blocks, layer, normed)
    high = plan.linear(low, Rows(f"{name}laurel_r", width), "laurel")
    beside = plan.norm(None, eps, stream=normed, add=(high,), post_norm=f"{name}laurel_post_norm")
    normed = plan.norm(
        f"{name}ffn_norm", eps, add=(attended, beside), post_norm=f"{name}post_attention_norm", scale=0.5**0.5
    )
    added = blocks[layer].feed_forward(plan, hyper, f"{name}ffn_", normed, "projected", 1.0)
    seen = plan.norm(f"{name}altup_router_norm", eps, add=(added,), post_norm=f"{name}post_ffw_norm")
    modalities = _modalities(plan, hyper, name, n, seen)
    plan.correct(streams, f"{name}altup_correct_coef.weight", modalities, block)
    added = per_layer.project(plan, hyper, layer, plan.scaled(f"{name}altup_correct_scale"))
    for stream in streams[1:]:
        plan.norm(None, eps, stream=stream, add=(added,), post_norm=f"{name}post_norm")


def _modalities(plan: Plan, hyper: Hyper, name: str, n: int, normed: str) -> str:
    """tanh of n products: what decides how streams are mixed."""
    return plan.linear(normed, Rows(f"{name}altup_router", n), "modalities", scale=1 / hyper.n_embd, softcap=1.0)
