"""starcoder2: StarCoder 2.

Layernorm, biases everywhere, tanh-GELU without a gate, rope over the two halves of a head.
"""

from ollamacore.arch.decoder import Block, PlainFeedForward, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a StarCoder 2 model."""
    hyper = Hyper.read(meta, centers=True)
    block = Block(rope=model_rope(meta, hyper), neox=True, center=True, feed_forward=PlainFeedForward())
    return decoder(meta.file, hyper, [block] * hyper.n_layer)
