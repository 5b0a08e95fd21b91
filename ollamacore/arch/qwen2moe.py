"""qwen2moe: Qwen1.5-MoE and Qwen2 with experts.

As qwen2, with experts whose weights are not normalised, and one that all tokens share through a sigmoid gate.
"""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.experts import ExpertFeedForward
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a Qwen2 mixture of experts."""
    hyper = Hyper.read(meta)
    feed_forward = ExpertFeedForward.read(meta, normalize=False)
    block = Block(rope=model_rope(meta, hyper), neox=True, feed_forward=feed_forward)
    return decoder(meta.file, hyper, [block] * hyper.n_layer)
