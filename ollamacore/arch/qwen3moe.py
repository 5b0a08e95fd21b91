"""qwen3moe: Qwen3 with experts (30B-A3B and larger).

Norms on the heads of q and k, rope over the two halves of a head, experts with normalised weights.
"""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.experts import ExpertFeedForward
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a Qwen3 mixture of experts."""
    hyper = Hyper.read(meta)
    feed_forward = ExpertFeedForward.read(meta, normalize=True)
    block = Block(rope=model_rope(meta, hyper), neox=True, head_norms=True, feed_forward=feed_forward)
    return decoder(meta.file, hyper, [block] * hyper.n_layer)
