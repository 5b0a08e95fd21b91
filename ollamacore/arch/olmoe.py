"""olmoe: OLMoE.

Norms on q and k, all heads together, rope over the two halves of a head, experts whose weights are not normalised.
"""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.experts import ExpertFeedForward
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of an OLMoE model."""
    hyper = Hyper.read(meta)
    feed_forward = ExpertFeedForward.read(meta, normalize=False)
    block = Block(rope=model_rope(meta, hyper), neox=True, width_norms=True, feed_forward=feed_forward)
    return decoder(meta.file, hyper, [block] * hyper.n_layer)
