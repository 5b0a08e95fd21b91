"""phi3: Phi 3, 3.5 and 4.

As llama, with q, k and v in one tensor, gate and up in one tensor, rope over the two halves of a head or of part of it,
and in models with a long context one set of rope factors for each context length.
"""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a Phi-3 model."""
    hyper = Hyper.read(meta)
    window = meta.integer("attention.sliding_window", 0, 1 << 26, 0)
    block = Block(rope=model_rope(meta, hyper), neox=True, window=window)
    return decoder(meta.file, hyper, [block] * hyper.n_layer)
