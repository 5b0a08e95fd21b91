"""gpt2: GPT-2 and its relatives.

Learned positions, layernorm, q, k and v in one tensor, biases everywhere, tanh-GELU without a gate.
"""

from ollamacore.arch.decoder import Block, PlainFeedForward, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan


def build(meta: Metadata) -> Plan:
    """The plan of a GPT-2 model."""
    hyper = Hyper.read(meta, centers=True)
    block = Block(rope=None, center=True, feed_forward=PlainFeedForward())
    return decoder(meta.file, hyper, [block] * hyper.n_layer)
