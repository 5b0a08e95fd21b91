"""phi2: Phi 1, 1.5 and 2.

Layernorm, biases everywhere, rope over part of a head, tanh-GELU without a gate; attention and feed-forward side by
side after one norm.
"""

from ollamacore.arch.decoder import Block, PlainFeedForward, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a Phi-2 model."""
    hyper = Hyper.read(meta, centers=True)
    block = Block(
        rope=model_rope(meta, hyper), neox=True, center=True, parallel=True, feed_forward=PlainFeedForward()
    )
    return decoder(meta.file, hyper, [block] * hyper.n_layer)
