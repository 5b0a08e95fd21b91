"""gemma: Gemma 1 and CodeGemma.

As llama, with scaled embeddings, wide heads, tanh-GELU gates and rope over the two halves of a head.
"""

from ollamacore.arch.decoder import Block, GatedFeedForward, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a Gemma model."""
    hyper = Hyper.read(meta)
    block = Block(rope=model_rope(meta, hyper), neox=True, feed_forward=GatedFeedForward(gelu=True))
    return decoder(meta.file, hyper, [block] * hyper.n_layer, embedding_scale=hyper.n_embd**0.5)
