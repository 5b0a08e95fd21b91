"""bert: BERT encoders such as MiniLM, BGE, E5, GTE and Snowflake Arctic.

Learned positions, layernorm after each residual addition, attention in both directions, GELU without a gate, biases
everywhere, and no head: the hidden states are what the model computes.
"""

from ollamacore.arch.hyper import Metadata
from ollamacore.arch.plan import KVLayer, Plan, Rows
from ollamacore.errors import InvalidFileError


def build(meta: Metadata) -> Plan:
    """The plan of a BERT model."""
    width = meta.integer("embedding_length", 8, 1 << 16)
    n_ff = meta.integer("feed_forward_length", 1, 1 << 18)
    n_head = meta.integer("attention.head_count", 1, 1024)
    eps = meta.number("attention.layer_norm_epsilon", 0.0, 1.0)
    if width % n_head:
        raise InvalidFileError(f"{width} values are no multiple of {n_head} heads")
    # A whole sequence passes in one step, so every layer may use the same keys and values in turn.
    plan = Plan(meta.file, [KVLayer(n_head, width // n_head)], is_encoder=True)
    plan.embed(
        "token_embd",
        width,
        plan.rows("token_embd.weight"),
        positions="position_embd",
        token_type="token_types.weight",
    )
    hidden = plan.norm("token_embd_norm", eps, center=True, in_place=True)
    n_layer = meta.integer("block_count", 1, 512)
    for layer in range(n_layer):
        block = f"blk.{layer}."
        added = _attention(plan, block, hidden, n_head)
        hidden = plan.norm(f"{block}attn_output_norm", eps, add=(added,), center=True, in_place=True)
        raised = plan.linear(hidden, Rows(f"{block}ffn_up", n_ff), "ff", activation="erf")
        added = plan.linear(raised, Rows(f"{block}ffn_down", width), "added")
        is_last = layer == n_layer - 1
        hidden = plan.norm(
            f"{block}layer_output_norm", eps, add=(added,), center=True, select=is_last, in_place=not is_last
        )
    return plan


def _attention(plan: Plan, block: str, hidden: str, n_head: int) -> str:
    """Attention of every token to every other one of its text, projected."""
    width, head_dim = plan.buffers[hidden], plan.kv[0].head_dim
    q, k, v = (
        plan.linear(hidden, Rows(f"{block}attn_{name}", width), name, join=name != "v") for name in "qkv"
    )
    attended = plan.attention(
        q, k, v, 0, n_head=n_head, scale=head_dim**-0.5, rope=None, neox=False, both_ways=True
    )
    return plan.linear(attended, Rows(f"{block}attn_output", width), "added")
