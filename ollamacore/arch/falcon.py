"""falcon: Falcon 7B, 40B and 2 11B.

Layernorm, q, k and v in one tensor, a few KV heads or one, GELU without a gate; attention and feed-forward side by
side, with a norm for both or one for each.
"""

from ollamacore.arch.decoder import Block, PlainFeedForward, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a Falcon model."""
    hyper = Hyper.read(meta, centers=True)
    block = Block(
        rope=model_rope(meta, hyper), neox=True, center=True, parallel=True, feed_forward=PlainFeedForward(erf=True)
    )
    return decoder(meta.file, hyper, [block] * hyper.n_layer)
