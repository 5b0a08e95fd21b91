"""qwen3: Qwen3, dense.

As llama, with norms on the heads of q and k and rope over the two halves of a head.
"""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a Qwen3 model."""
    hyper = Hyper.read(meta)
    block = Block(rope=model_rope(meta, hyper), neox=True, head_norms=True)
    return decoder(meta.file, hyper, [block] * hyper.n_layer)
