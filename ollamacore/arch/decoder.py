"""The skeleton that dense decoders share: embedding, blocks of attention and gated feed-forward, head."""

from collections.abc import Callable
from dataclasses import dataclass

from ollamacore.arch.hyper import Hyper
from ollamacore.arch.plan import KVShape, Plan
from ollamacore.gguf import GGUFFile


@dataclass(frozen=True, slots=True)
class Block:
    """What may differ from layer to layer and from architecture to architecture."""

    rope: str
    scale: float
    neox: bool = False
    gelu: bool = False
    window: int = 0
    head_norms: bool = False
    post_norms: bool = False


def dense_decoder(
    file: GGUFFile, hyper: Hyper, block_of: Callable[[Plan, int], Block], *, embedding_scale: float = 1.0
) -> Plan:
    """A decoder of hyper.n_layer blocks with a tied or own head; `block_of` says how each layer's block differs."""
    plan = Plan(file, KVShape(hyper.n_layer, hyper.n_kv_head, hyper.head_dim))
    plan.embed("token_embd.weight", hyper.n_embd, hyper.n_vocab, embedding_scale)
    added: str | None = None
    post_norm: str | None = None
    for layer in range(hyper.n_layer):
        block = block_of(plan, layer)
        normed = plan.norm(f"blk.{layer}.attn_norm.weight", hyper.eps, add=added, post_norm=post_norm)
        added = _attention(plan, hyper, block, layer, normed)
        post_norm = f"blk.{layer}.post_attention_norm.weight" if block.post_norms else None
        normed = plan.norm(f"blk.{layer}.ffn_norm.weight", hyper.eps, add=added, post_norm=post_norm)
        added = _feed_forward(plan, hyper, block, layer, normed)
        post_norm = f"blk.{layer}.post_ffw_norm.weight" if block.post_norms else None
    selected = plan.norm("output_norm.weight", hyper.eps, add=added, post_norm=post_norm, select=True)
    head = "output.weight" if plan.has("output.weight") else "token_embd.weight"
    plan.linear(selected, head, hyper.n_vocab, "logits")
    return plan


def _attention(plan: Plan, hyper: Hyper, block: Block, layer: int, normed: str) -> str:
    name = f"blk.{layer}.attn_"
    kv_width = hyper.n_kv_head * hyper.head_dim
    q = plan.linear(
        normed, name + "q.weight", hyper.n_head * hyper.head_dim, "q", bias=name + "q.bias", join=True
    )
    k = plan.linear(normed, name + "k.weight", kv_width, "k", bias=name + "k.bias", join=True)
    v = plan.linear(normed, name + "v.weight", kv_width, "v", bias=name + "v.bias")
    attended = plan.attention(
        q,
        k,
        v,
        layer,
        n_head=hyper.n_head,
        scale=block.scale,
        rope=block.rope,
        neox=block.neox,
        window=block.window,
        q_norm=name + "q_norm.weight" if block.head_norms else None,
        k_norm=name + "k_norm.weight" if block.head_norms else None,
        eps=hyper.eps,
    )
    return plan.linear(attended, name + "output.weight", hyper.n_embd, "projected", bias=name + "output.bias")


def _feed_forward(plan: Plan, hyper: Hyper, block: Block, layer: int, normed: str) -> str:
    name = f"blk.{layer}.ffn_"
    gated = plan.glu(normed, name + "gate.weight", name + "up.weight", hyper.n_ff, gelu=block.gelu)
    return plan.linear(gated, name + "down.weight", hyper.n_embd, "projected")
