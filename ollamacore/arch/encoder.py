"""The skeleton that encoders of BERT's kind share: norms behind the residual additions, attention in both directions.

What a file may have or not is taken as the file has it: learned positions, token types, biases, q, k and v in one
tensor, layernorms of all heads of q and k. There is no head: the hidden states are what the model computes. Encoders
with norms in front of their blocks are in decoder.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ollamacore.arch.decoder import FeedForward, PlainFeedForward, head_rows, project
from ollamacore.arch.hyper import Hyper
from ollamacore.arch.plan import KVLayer, Plan, Rows
from ollamacore.arch.rope import Rope
from ollamacore.gguf import GGUFFile


@dataclass(frozen=True, slots=True, kw_only=True)
class PostNormBlock:
    """One layer."""

    rope: Rope | None = None  # over the two halves of a head; None: q and k are not turned
    alibi: bool = False  # scores get smaller with the distance of query and key
    feed_forward: FeedForward = field(default_factory=lambda: PlainFeedForward(erf=True))


def alibi_slopes(n_head: int) -> npt.NDArray[np.float64]:
    """What each head's scores lose for each position between query and key (Press et al., ALiBi, arXiv 2108.12409).

    Of 2^n heads, powers of 2^(-8 / 2^n); if there are more than that, every other power of those of 2^(n+1) follows.
    """
    whole = 1 << (n_head.bit_length() - 1)
    more = 2.0 ** (-4.0 / whole * np.arange(1, 2 * (n_head - whole), 2))
    return np.concatenate([2.0 ** (-8.0 / whole * np.arange(1, whole + 1)), more])


def post_norm_encoder(file: GGUFFile, hyper: Hyper, blocks: Sequence[PostNormBlock]) -> Plan:
    """An encoder of these blocks."""
    # A whole text passes in one step, so every layer may use the same keys and values in turn.
    plan = Plan(file, [KVLayer(hyper.n_kv_head, hyper.head_dim)], is_encoder=True)
    if plan.has("position_embd.weight"):
        plan.context_limit = plan.rows("position_embd.weight")
    plan.embed(
        "token_embd",
        hyper.n_embd,
        hyper.n_vocab,
        positions="position_embd" if plan.has("position_embd.weight") else None,
        token_type="token_types.weight" if plan.has("token_types.weight") else None,
    )
    plan.norm("token_embd_norm", hyper.eps, center=True, in_place=True)
    for layer, block in enumerate(blocks):
        _add_block(plan, hyper, block, f"blk.{layer}.", is_last=layer == len(blocks) - 1)
    return plan


def _add_block(plan: Plan, hyper: Hyper, block: PostNormBlock, name: str, *, is_last: bool) -> None:
    """Attention and feed-forward, each added to the residual stream, which is then normed."""
    added, norm = _attention(plan, hyper, block, f"{name}attn_"), "attn_output_norm"
    if plan.has(f"{name}attn_norm_2.weight"):  # two norms, each of a sum with what came into the block
        plan.norm_buffer(added, f"{name}{norm}", hyper.eps, add="residual", center=True)
        norm = "attn_norm_2"
    hidden = plan.norm(f"{name}{norm}", hyper.eps, add=(added,), center=True, in_place=True)
    added = block.feed_forward(plan, hyper, f"{name}ffn_", hidden, "projected", 1.0)
    plan.norm(f"{name}layer_output_norm", hyper.eps, add=(added,), center=True, select=is_last, in_place=not is_last)


def _attention(plan: Plan, hyper: Hyper, block: PostNormBlock, name: str) -> str:
    """Attention of every token to every other one of its text, projected."""
    width = hyper.n_head * hyper.head_dim
    q, k, v = project(plan, head_rows(plan, name, width, width), "residual").values()
    for heads, norm in ((q, f"{name}q_norm"), (k, f"{name}k_norm")):
        if plan.has(f"{norm}.weight"):
            plan.norm_buffer(heads, norm, hyper.eps, center=True)
    attended = plan.attention(
        q,
        k,
        v,
        0,
        n_head=hyper.n_head,
        scale=hyper.head_dim**-0.5,
        rope=plan.rope(*block.rope) if block.rope else None,
        neox=True,
        both_ways=True,
        slopes=plan.constant("alibi", alibi_slopes(hyper.n_head)) if block.alibi else None,
    )
    return plan.linear(attended, Rows(f"{name}output", hyper.n_embd), "projected")
