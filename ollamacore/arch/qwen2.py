"""qwen2: Qwen2 and Qwen2.5, dense.

As llama, with biases on q, k and v and rope over the two halves of a head.
"""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a Qwen2 model."""
    hyper = Hyper.read(meta)
    return decoder(meta.file, hyper, [Block(rope=model_rope(meta, hyper), neox=True)] * hyper.n_layer)
