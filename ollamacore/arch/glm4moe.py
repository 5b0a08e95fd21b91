"""glm4moe: GLM 4.5 and 4.6 with experts.

Rope over the two halves of a part of each head, norms on heads in some sizes, experts chosen by sigmoid behind a dense
layer or several.
"""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.experts import SIGMOID, ExpertFeedForward, expert_blocks
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a GLM mixture of experts."""
    hyper = Hyper.read(meta)
    block = Block(
        rope=model_rope(meta, hyper),
        neox=True,
        head_norms="blk.0.attn_q_norm.weight" in meta.file.tensors,
        ffn_norm="post_attention_norm",
    )
    feed_forward = ExpertFeedForward.read(meta, normalize=True, gating=SIGMOID)
    return decoder(meta.file, hyper, expert_blocks(meta, hyper, block, feed_forward))
