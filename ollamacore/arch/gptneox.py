"""gptneox: GPT-NeoX and Pythia.

Layernorm, q, k and v in one tensor, biases everywhere, rope over part of a head, GELU without a gate; attention and
feed-forward side by side, each with its norm, where the file asks for it.
"""

from ollamacore.arch.decoder import Block, PlainFeedForward, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a GPT-NeoX model."""
    hyper = Hyper.read(meta, centers=True)
    block = Block(
        rope=model_rope(meta, hyper),
        neox=True,
        center=True,
        parallel=meta.flag("use_parallel_residual", True),
        feed_forward=PlainFeedForward(erf=True),
    )
    return decoder(meta.file, hyper, [block] * hyper.n_layer)
