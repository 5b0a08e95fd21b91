"""The skeleton that decoders share: embedding, blocks of attention and feed-forward, head.

An architecture says with one `Block` a layer how its blocks differ. What a file may have or not is taken as the file
has it: biases, q, k and v in one tensor, gate and up in one tensor, learned positions, a head of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from ollamacore.arch.hyper import Hyper
from ollamacore.arch.plan import KVShape, Plan, Rows
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


@dataclass(frozen=True, slots=True)
class GatedFeedForward:
    """down(act(gate x) * up x), with SiLU or the tanh form of GELU."""

    gelu: bool = False

    def __call__(self, plan: Plan, hyper: Hyper, name: str, normed: str, dst: str, scale: float) -> str:
        """See FeedForward."""
        n_ff = hyper.n_ff
        if plan.has(f"{name}gate.weight"):
            gate, up = Rows(f"{name}gate", n_ff), Rows(f"{name}up", n_ff)
        else:
            gate, up = Rows(f"{name}up", n_ff, 0, 2 * n_ff), Rows(f"{name}up", n_ff, n_ff, 2 * n_ff)
        gated = plan.glu(normed, gate, up, gelu=self.gelu)
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

    rope: Rope | None  # None: q and k are not turned
    attention: Attention | None = None  # None: grouped-query attention, which the fields up to width_norms describe
    neox: bool = False  # rope turns the pairs (i, i + n_rot / 2) of a head instead of (2i, 2i + 1)
    scale: float | None = None  # of q; None: 1 / sqrt(head_dim)
    window: int = 0  # keys that a token attends to; 0: all before it
    softcap: float = 0.0  # of attention scores; 0: none
    head_norms: bool = False  # rmsnorm of each head of q and k
    width_norms: bool = False  # rmsnorm of q and of k, all heads together
    center: bool = False  # norms are layernorm instead of rmsnorm
    norm_bias: bool = True  # of layernorms
    pre_norms: bool = True  # in front of attention and feed-forward
    ffn_norm: str = "ffn_norm"  # the norm in front of feed-forward
    post_norms: bool = False  # of what attention and feed-forward add
    parallel: bool = False  # attention and feed-forward read the same residual
    residual_scale: float = 1.0  # of what attention and feed-forward add
    feed_forward: FeedForward = field(default_factory=GatedFeedForward)


def decoder(
    file: GGUFFile,
    hyper: Hyper,
    blocks: Sequence[Block],
    *,
    embedding_scale: float = 1.0,
    logit_scale: float = 1.0,
    logit_softcap: float = 0.0,
    value_dim: int = 0,
) -> Plan:
    """A decoder of these blocks; `value_dim` as in KVShape."""
    plan = Plan(file, KVShape(len(blocks), hyper.n_kv_head, hyper.head_dim, value_dim))
    positions = "position_embd" if plan.has("position_embd.weight") else None
    plan.embed("token_embd", hyper.n_embd, hyper.n_vocab, embedding_scale, positions=positions)
    stream = _Stream(plan, hyper)
    for layer, block in enumerate(blocks):
        (_parallel if block.parallel else _sequential)(stream, block, layer)
    selected = stream.norm("output_norm", blocks[-1], select=True)
    head = "output" if plan.has("output.weight") else "token_embd"
    plan.linear(selected, Rows(head, hyper.n_vocab), "logits", scale=logit_scale, softcap=logit_softcap)
    return plan


@dataclass(slots=True)
class _Stream:
    """The residual stream of a plan under construction, and what the next norm adds to it."""

    plan: Plan
    hyper: Hyper
    added: tuple[str, ...] = ()
    post_norm: str | None = None  # of what is added

    def norm(self, name: str | None, block: Block, *, select: bool = False) -> str:
        """Add what waits; the stream, normed by `name`, or as it is."""
        normed = self.plan.norm(
            name,
            self.hyper.eps,
            add=self.added,
            post_norm=self.post_norm,
            center=block.center,
            bias=block.norm_bias,
            select=select,
        )
        self.added, self.post_norm = (), None
        return normed


def _sequential(stream: _Stream, block: Block, layer: int) -> None:
    """Attention, then the feed-forward of what it leaves."""
    name = f"blk.{layer}."
    normed = stream.norm(f"{name}attn_norm" if block.pre_norms else None, block)
    stream.added = (_attention(stream, block, layer, normed),)
    stream.post_norm = f"{name}post_attention_norm" if block.post_norms else None
    normed = stream.norm(f"{name}{block.ffn_norm}" if block.pre_norms else None, block)
    stream.added = (_feed_forward(stream, block, layer, normed, "projected"),)
    stream.post_norm = f"{name}post_ffw_norm" if block.post_norms else None


def _parallel(stream: _Stream, block: Block, layer: int) -> None:
    """Attention and feed-forward side by side, with a norm for both or one for each."""
    name, has = f"blk.{layer}.", stream.plan.has
    first = f"{name}attn_norm_2" if has(f"{name}attn_norm_2.weight") else f"{name}attn_norm"
    second = f"{name}ffn_norm" if has(f"{name}ffn_norm.weight") else f"{name}attn_norm"
    normed = stream.norm(first, block)
    attended = _attention(stream, block, layer, normed)
    if second != first:
        normed = stream.norm(second, block)
    stream.added = attended, _feed_forward(stream, block, layer, normed, "projected_ff")


def _attention(stream: _Stream, block: Block, layer: int, normed: str) -> str:
    attended = (block.attention or partial(_grouped_query, block))(stream.plan, stream.hyper, layer, normed)
    output = Rows(f"blk.{layer}.attn_output", stream.hyper.n_embd)
    return stream.plan.linear(attended, output, "projected", scale=block.residual_scale)


def _grouped_query(block: Block, plan: Plan, hyper: Hyper, layer: int, normed: str) -> str:
    name = f"blk.{layer}.attn_"
    q_width, kv_width = hyper.n_head * hyper.head_dim, hyper.n_kv_head * hyper.head_dim
    if plan.has(f"{name}qkv.weight"):
        fused, all_rows = f"{name}qkv", q_width + 2 * kv_width
        parts = [
            Rows(fused, q_width, 0, all_rows),
            Rows(fused, kv_width, q_width, all_rows),
            Rows(fused, kv_width, q_width + kv_width, all_rows),
        ]
    else:
        parts = [Rows(f"{name}q", q_width), Rows(f"{name}k", kv_width), Rows(f"{name}v", kv_width)]
    q, k, v = (plan.linear(normed, rows, dst, join=dst != "v") for rows, dst in zip(parts, "qkv", strict=True))
    if block.width_norms:
        plan.norm_buffer(q, f"{name}q_norm", hyper.eps, join=True)
        plan.norm_buffer(k, f"{name}k_norm", hyper.eps)
    return plan.attention(
        q,
        k,
        v,
        layer,
        n_head=hyper.n_head,
        scale=hyper.head_dim**-0.5 if block.scale is None else block.scale,
        rope=plan.rope(*block.rope) if block.rope else None,
        neox=block.neox,
        window=block.window,
        softcap=block.softcap,
        q_norm=f"{name}q_norm.weight" if block.head_norms else None,
        k_norm=f"{name}k_norm.weight" if block.head_norms else None,
        sinks=f"{name}sinks.weight" if plan.has(f"{name}sinks.weight") else None,
        eps=hyper.eps,
    )


def _feed_forward(stream: _Stream, block: Block, layer: int, normed: str, dst: str) -> str:
    return block.feed_forward(stream.plan, stream.hyper, f"blk.{layer}.ffn_", normed, dst, block.residual_scale)
