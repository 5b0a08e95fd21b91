"""The skeleton that decoders share: embedding, blocks of attention and feed-forward, head.

An architecture says with one `Block` a layer how its blocks differ. What a file may have or not is taken as the file
has it: biases, q, k and v in one tensor, gate and up in one tensor, learned positions, a head of its own.

Encoders with norms in front of their blocks are decoders that look both ways and end with the hidden states; those with
norms behind have a skeleton of their own (encoder.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from ollamacore.arch.hyper import Hyper
from ollamacore.arch.per_layer import PerLayerInputs
from ollamacore.arch.plan import KVLayer, Plan, Rows
from ollamacore.arch.rope import Rope
from ollamacore.gguf import GGUFFile


class FeedForward(Protocol):
    """What a block computes of each token beside attention."""

    def __call__(self, plan: Plan, hyper: Hyper, name: str, normed: str, dst: str, scale: float) -> str:
        """Emit `dst` = `scale` times the output, (n_embd), of `normed`; tensors are called `name`..., "blk.N.ffn_"."""
        ...


class Attention(Protocol):
    """Attention of another kind than a block has by itself."""

    def __call__(self, plan: Plan, hyper: Hyper, layer: int, normed: str) -> str:
        """Emit what the matrix called "blk.N.attn_output" reads, of `normed`; tensors are called "blk.N.attn_"..."""
        ...


class Mixer(Protocol):
    """What a block has in place of attention, to bring tokens together."""

    def __call__(self, plan: Plan, hyper: Hyper, name: str, normed: str) -> str:
        """Emit "projected", the output, (n_embd), of `normed`; tensors are called `name`..., "blk.N."."""
        ...


@dataclass(frozen=True, slots=True)
class GatedFeedForward:
    """down(act(gate x) * up x), with SiLU, the tanh form of GELU, or the one with the error function."""

    gelu: bool = False
    erf: bool = False
    up_first: bool = False  # where gate and up share a tensor
    n_ff: int = 0  # 0: the model's

    def __call__(self, plan: Plan, hyper: Hyper, name: str, normed: str, dst: str, scale: float) -> str:
        """See FeedForward."""
        n_ff = self.n_ff or hyper.n_ff
        if plan.has(f"{name}gate.weight"):
            gate, up = Rows(f"{name}gate", n_ff), Rows(f"{name}up", n_ff)
        else:
            gate, up = Rows(f"{name}up", n_ff, 0, 2 * n_ff), Rows(f"{name}up", n_ff, n_ff, 2 * n_ff)
            gate, up = (up, gate) if self.up_first else (gate, up)
        gated = plan.glu(normed, gate, up, gelu=self.gelu, erf=self.erf)
        return plan.linear(gated, Rows(f"{name}down", hyper.n_embd), dst, scale=scale)


@dataclass(frozen=True, slots=True)
class PlainFeedForward:
    """down(gelu(up x)), with the tanh form of GELU or the one with the error function."""

    erf: bool = False

    def __call__(self, plan: Plan, hyper: Hyper, name: str, normed: str, dst: str, scale: float) -> str:
        """See FeedForward."""
        raised = plan.linear(normed, Rows(f"{name}up", hyper.n_ff), "ff", activation="erf" if self.erf else "gelu")
        return plan.linear(raised, Rows(f"{name}down", hyper.n_embd), dst, scale=scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One layer."""

    rope: Rope | None = None  # None: q and k are not turned
    heads: KVLayer | None = None  # what the KV cache holds; None: the model's heads
    kv_of: int | None = None  # the layer whose keys and values are read; None: its own
    attention: Attention | None = None  # None: grouped-query attention, which the fields up to value_norm describe
    mixer: Mixer | None = None  # None: attention
    neox: bool = False  # rope turns the pairs (i, i + n_rot / 2) of a head instead of (2i, 2i + 1)
    scale: float | None = None  # of q; None: 1 / sqrt(head_dim)
    window: int = 0  # keys that a token attends to; 0: all before it
    both_ways: bool = False  # and those after it; of a window, half lies on either side
    softcap: float = 0.0  # of attention scores; 0: none
    head_norms: bool = False  # rmsnorm of each head of q and k
    width_norms: bool = False  # rmsnorm of q and of k, all heads together
    value_norm: bool = False  # rmsnorm of each head of v, without weights; where the file has no v, it is k
    gated_heads: bool = False  # attn_q has behind each head a gate, whose sigmoid multiplies what it attends to
    center: bool = False  # norms are layernorm instead of rmsnorm
    norm_bias: bool = True  # of layernorms
    pre_norms: bool = True  # in front of attention and feed-forward
    attn_norm: bool = True  # the first of them
    ffn_norm: str = "ffn_norm"  # the norm in front of feed-forward
    post_norms: bool = False  # of what attention and feed-forward add
    parallel: bool = False  # attention and feed-forward read the same residual
    residual_scale: float = 1.0  # of what attention and feed-forward add
    output_scale: float = 1.0  # of the residual behind it
    has_feed_forward: bool = True  # else it ends behind attention, or what stands in its place
    feed_forward: FeedForward = field(default_factory=GatedFeedForward)


def decoder(
    file: GGUFFile,
    hyper: Hyper,
    blocks: Sequence[Block],
    *,
    embedding_scale: float = 1.0,
    logit_scale: float = 1.0,
    logit_softcap: float = 0.0,
    per_layer: PerLayerInputs | None = None,
    output_norm: str = "output_norm",
) -> Plan:
    """A decoder of these blocks."""
    plan = Plan(file, kv_layers(hyper, blocks))
    positions = "position_embd" if plan.has("position_embd.weight") else None
    plan.embed("token_embd", hyper.n_embd, hyper.n_vocab, embedding_scale, positions=positions)
    if per_layer:
        per_layer.prepare(plan, hyper)
    selected = _hidden_states(plan, hyper, blocks, per_layer, output_norm)
    head = "output" if plan.has("output.weight") else "token_embd"
    plan.linear(selected, Rows(head, hyper.n_vocab), "logits", scale=logit_scale, softcap=logit_softcap)
    return plan


def encoder(file: GGUFFile, hyper: Hyper, blocks: Sequence[Block], *, embedding_scale: float = 1.0) -> Plan:
    """An encoder of these blocks, which look both ways, with a norm of the embedding if the file has one."""
    # A whole text passes in one step, so every layer may use the same keys and values in turn.
    plan = Plan(file, [KVLayer(hyper.n_kv_head, hyper.head_dim)], is_encoder=True)
    plan.embed("token_embd", hyper.n_embd, hyper.n_vocab, embedding_scale)
    if plan.has("token_embd_norm.weight"):
        plan.norm("token_embd_norm", hyper.eps, center=blocks[0].center, bias=blocks[0].norm_bias, in_place=True)
    _hidden_states(plan, hyper, blocks)
    return plan


def _hidden_states(
    plan: Plan,
    hyper: Hyper,
    blocks: Sequence[Block],
    per_layer: PerLayerInputs | None = None,
    output_norm: str = "output_norm",
) -> str:
    """All blocks, and the norm of what they leave."""
    stream = _Stream(plan, hyper, blocks, per_layer)
    for layer, block in enumerate(blocks):
        (_parallel if block.parallel else _sequential)(stream, block, layer)
    return stream.norm(output_norm, blocks[-1], select=True)


def kv_layers(hyper: Hyper, blocks: Sequence[Block]) -> list[KVLayer]:
    """What the KV cache holds: of each block that has keys and values of its own.

    If there is none, one value that nobody reads: positions are counted in blocks of the cache.
    """
    return [_heads(hyper, block) for block in blocks if _has_kv(block)] or [KVLayer(1, 1)]


def _has_kv(block: Block) -> bool:
    return block.kv_of is None and block.mixer is None


def _heads(hyper: Hyper, block: Block) -> KVLayer:
    return block.heads or KVLayer(hyper.n_kv_head, hyper.head_dim)


def _kv_layer(blocks: Sequence[Block], layer: int) -> int:
    """The layer of the KV cache that a block reads."""
    if blocks[layer].both_ways:
        return 0  # an encoder's: see there
    own = blocks[layer].kv_of
    return sum(_has_kv(block) for block in blocks[: layer if own is None else own])


@dataclass(slots=True)
class _Stream:
    """The residual stream of a plan under construction, and what the next norm adds to it."""

    plan: Plan
    hyper: Hyper
    blocks: Sequence[Block]
    per_layer: PerLayerInputs | None
    added: tuple[str, ...] = ()
    post_norm: str | None = None  # of what is added
    scale: float = 1.0  # of the sum

    def norm(self, name: str | None, block: Block, *, select: bool = False) -> str:
        """Add what waits; the stream, normed by `name`, or as it is."""
        normed = self.plan.norm(
            name,
            self.hyper.eps,
            add=self.added,
            post_norm=self.post_norm,
            scale=self.scale,
            center=block.center,
            bias=block.norm_bias,
            select=select,
        )
        self.added, self.post_norm, self.scale = (), None, 1.0
        return normed


def _sequential(stream: _Stream, block: Block, layer: int) -> None:
    """Attention, then the feed-forward of what it leaves."""
    name = f"blk.{layer}."
    normed = stream.norm(f"{name}attn_norm" if block.pre_norms and block.attn_norm else None, block)
    stream.added = (attention(stream.plan, stream.hyper, stream.blocks, layer, normed),)
    stream.post_norm = f"{name}post_attention_norm" if block.post_norms else None
    if not block.has_feed_forward:
        return
    normed = stream.norm(f"{name}{block.ffn_norm}" if block.pre_norms else None, block)
    stream.added = (_feed_forward(stream, block, layer, normed, "projected"),)
    stream.post_norm = f"{name}post_ffw_norm" if block.post_norms else None
    if stream.per_layer:
        residual = stream.norm(None, block)
        stream.added = (stream.per_layer.project(stream.plan, stream.hyper, layer, residual),)
        stream.post_norm = f"{name}post_norm"
    stream.scale = block.output_scale


def _parallel(stream: _Stream, block: Block, layer: int) -> None:
    """Attention and feed-forward side by side, with a norm for both or one for each."""
    name, has = f"blk.{layer}.", stream.plan.has
    first = f"{name}attn_norm_2" if has(f"{name}attn_norm_2.weight") else f"{name}attn_norm"
    second = f"{name}ffn_norm" if has(f"{name}ffn_norm.weight") else f"{name}attn_norm"
    normed = stream.norm(first, block)
    attended = attention(stream.plan, stream.hyper, stream.blocks, layer, normed)
    if second != first:
        normed = stream.norm(second, block)
    stream.added = attended, _feed_forward(stream, block, layer, normed, "projected_ff")


def attention(plan: Plan, hyper: Hyper, blocks: Sequence[Block], layer: int, normed: str) -> str:
    """Emit the attention of a block, or what it has in its place, projected."""
    block = blocks[layer]
    if block.mixer:
        return block.mixer(plan, hyper, f"blk.{layer}.", normed)
    attend = block.attention or partial(_grouped_query, blocks)
    attended = attend(plan, hyper, layer, normed)
    output = Rows(f"blk.{layer}.attn_output", hyper.n_embd)
    return plan.linear(attended, output, "projected", scale=block.residual_scale)


def _grouped_query(blocks: Sequence[Block], plan: Plan, hyper: Hyper, layer: int, normed: str) -> str:
    block, name = blocks[layer], f"blk.{layer}.attn_"
    n_kv_head, head_dim, _ = _heads(hyper, block)
    parts = _projections(plan, block, name, hyper.n_head * head_dim, n_kv_head * head_dim)
    made = project(plan, parts, normed)
    q, k = made["q"], made.get("k")
    v = made.get("v", k)
    if block.width_norms and k:
        plan.norm_buffer(q, f"{name}q_norm", hyper.eps)
        plan.norm_buffer(k, f"{name}k_norm", hyper.eps)
    return plan.attention(
        q,
        k,
        v,
        _kv_layer(blocks, layer),
        n_head=hyper.n_head,
        scale=head_dim**-0.5 if block.scale is None else block.scale,
        rope=plan.rope(*block.rope) if block.rope else None,
        neox=block.neox,
        window=block.window,
        both_ways=block.both_ways,
        softcap=block.softcap,
        q_norm=f"{name}q_norm.weight" if block.head_norms else None,
        k_norm=f"{name}k_norm.weight" if block.head_norms and k else None,
        value_norm=block.value_norm,
        sinks=f"{name}sinks.weight" if plan.has(f"{name}sinks.weight") else None,
        eps=hyper.eps,
        gated=block.gated_heads,
    )


def _projections(plan: Plan, block: Block, name: str, q_width: int, kv_width: int) -> dict[str, Rows]:
    """Where q is, and k and v unless they are another layer's; v may be missing where it is k."""
    if block.kv_of is not None:
        plan.unused |= {f"{name}k.weight", f"{name}v.weight", f"{name}k_norm.weight"}
        return {"q": Rows(f"{name}q", q_width)}
    parts = head_rows(plan, name, q_width, kv_width)
    if block.gated_heads:
        parts["q"] = Rows(f"{name}q", 2 * q_width)
    if block.value_norm and not plan.has(f"{name}v.weight"):
        del parts["v"]
    return parts


def head_rows(plan: Plan, name: str, q_width: int, kv_width: int) -> dict[str, Rows]:
    """Where q, k and v are: in one tensor, or in three, called `name`..., "blk.N.attn_"."""
    if not plan.has(f"{name}qkv.weight"):
        return {"q": Rows(f"{name}q", q_width), "k": Rows(f"{name}k", kv_width), "v": Rows(f"{name}v", kv_width)}
    fused, all_rows = f"{name}qkv", q_width + 2 * kv_width
    return {
        "q": Rows(fused, q_width, 0, all_rows),
        "k": Rows(fused, kv_width, q_width, all_rows),
        "v": Rows(fused, kv_width, q_width + kv_width, all_rows),
    }


def project(plan: Plan, parts: Mapping[str, Rows], normed: str) -> dict[str, str]:
    """The products of `normed` with each of these, in one phase: buffers of the same names."""
    last = list(parts)[-1]
    return {name: plan.linear(normed, rows, name, join=name != last) for name, rows in parts.items()}


def _feed_forward(stream: _Stream, block: Block, layer: int, normed: str, dst: str) -> str:
    return block.feed_forward(stream.plan, stream.hyper, f"blk.{layer}.ffn_", normed, dst, block.residual_scale)
