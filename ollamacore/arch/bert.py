"""bert: BERT encoders such as MiniLM, BGE, E5, GTE and Snowflake Arctic.

Learned positions, layernorm after each residual addition, attention in both directions, GELU without a gate, biases
everywhere, and no head: the hidden states are what the model computes.
"""

from ollamacore.arch.hyper import Metadata
from ollamacore.arch.plan import KVShape, Plan
from ollamacore.errors import InvalidFileError
from ollamacore.gguf import GGUFFile


def build(file: GGUFFile) -> Plan:
    """The plan of a BERT model."""
    meta = Metadata(file)
    width = meta.integer("embedding_length", 8, 1 << 16)
    n_ff = meta.integer("feed_forward_length", 1, 1 << 18)
    n_head = meta.integer("attention.head_count", 1, 1024)
    eps = meta.number("attention.layer_norm_epsilon", 0.0, 1.0)
    if width % n_head:
        raise InvalidFileError(f"{width} values are no multiple of {n_head} heads")
    # A whole sequence passes in one step, so every layer may use the same keys and values in turn.
    plan = Plan(file, KVShape(1, n_head, width // n_head), is_encoder=True)
    plan.embed(
        "token_embd.weight",
        width,
        plan.rows("token_embd.weight"),
        positions="position_embd.weight",
        token_type="token_types.weight",
    )
    hidden = plan.layernorm("token_embd_norm", eps, add=None)
    n_layer = meta.integer("block_count", 1, 512)
    for layer in range(n_layer):
        block = f"blk.{layer}."
        added = _attention(plan, block, hidden, n_head)
        hidden = plan.layernorm(f"{block}attn_output_norm", eps, add=added)
        raised = plan.linear(
            hidden, f"{block}ffn_up.weight", n_ff, "ff", bias=f"{block}ffn_up.bias", gelu=True
        )
        added = plan.linear(raised, f"{block}ffn_down.weight", width, "added", bias=f"{block}ffn_down.bias")
        is_last = layer == n_layer - 1
        hidden = plan.layernorm(f"{block}layer_output_norm", eps, add=added, select=is_last)
    return plan


def _attention(plan: Plan, block: str, hidden: str, n_head: int) -> str:
    """Attention of every token to every other one of its text, projected."""
    width, head_dim = plan.buffers[hidden], plan.kv.head_dim
    q, k, v = (
        plan.linear(
            hidden, f"{block}attn_{name}.weight", width, name, bias=f"{block}attn_{name}.bias", join=name != "v"
        )
        for name in "qkv"
    )
    attended = plan.attention(
        q, k, v, 0, n_head=n_head, scale=head_dim**-0.5, rope=None, neox=False, both_ways=True
    )
    return plan.linear(
        attended, f"{block}attn_output.weight", width, "added", bias=f"{block}attn_output.bias"
    )
